"""Races that a ledger loses if it checks before it writes: all writers check, then all write."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from ledger_core.errors import DuplicateNonceError, InsufficientBalanceError
from ledger_core.models import LedgerEntry, OperationRequest
from ledger_core.wiring import create_store
from tests.support import add, spend

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

__all__ = ["CREDITS", "WRITERS", "Lost", "lost"]

WRITERS = 8
CREDITS = 3
"""The credits of an owner. Each writer spends one."""
MEETING_SECONDS_MAX = 10.0
Process = Callable[[OperationRequest], LedgerEntry]


class Lost(NamedTuple):
    """The errors in the ledgers after the races."""

    overdrawn: int
    """The credits by which a balance is below zero."""
    doubled: int
    """The spends of a nonce beyond the first."""


def lost(client: "DynamoDBClient", name: str, processes: Sequence[Process], *, write: str) -> Lost:
    """Let all writers spend at once: first more than there is, then under the same nonce.

    Args:
        client: the client of all writers.
        name: the beginning of the owners' ids.
        processes: one for each of WRITERS; they share only the client.
        write: the name of the request by which they first write.
    """
    few = f"{name}-few"
    one_nonce = f"{name}-one-nonce"
    processes[0](add(CREDITS, "grant", owner_id=few))
    processes[0](add(WRITERS, "grant", owner_id=one_nonce))
    with _together(client, write):
        _all_at_once(processes, [spend(1, f"{number}", owner_id=few) for number in range(WRITERS)])
    with _together(client, write):
        _all_at_once(processes, [spend(1, "same", owner_id=one_nonce)] * WRITERS)
    store = create_store(client)
    balances = [store.account(owner_id, consistent=True).balance for owner_id in (few, one_nonce)]
    return Lost(overdrawn=max(0, -balances[0]), doubled=WRITERS - balances[1] - 1)


@contextmanager
def _together(client: "DynamoDBClient", request: str) -> Iterator[None]:
    """Until the end of the block, the threads wait for each other before their first request."""
    barrier = threading.Barrier(WRITERS)
    waited = threading.local()

    def wait(**_: Any) -> None:
        if not hasattr(waited, "once"):
            waited.once = True
            barrier.wait(MEETING_SECONDS_MAX)

    event = f"before-send.dynamodb.{request}"
    client.meta.events.register(event, wait)
    yield
    client.meta.events.unregister(event, wait)


def _all_at_once(processes: Sequence[Process], requests: Sequence[OperationRequest]) -> None:
    def post(process: Process, request: OperationRequest) -> None:
        try:
            process(request)
        except (DuplicateNonceError, InsufficientBalanceError):
            return

    with ThreadPoolExecutor(len(processes)) as threads:
        list(threads.map(post, processes, requests))
