"""Races that a ledger loses when it looks before it writes: all callers have looked before the first one writes."""

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
"""What there is to spend for writers who each spend one."""
MEETING_SECONDS_MAX = 10.0
Process = Callable[[OperationRequest], LedgerEntry]


class Lost(NamedTuple):
    """What the ledgers say when it is over."""

    overdrawn: int
    """Credits by which a balance is below zero."""
    doubled: int
    """Spends beyond the first that one nonce took from a balance."""


def lost(client: "DynamoDBClient", name: str, processes: Sequence[Process], *, write: str) -> Lost:
    """Let all spend at once what is not enough for all, and then all under one nonce.

    Args:
        client: that of all processes.
        name: begins the owners' ids.
        processes: as many as WRITERS, which share nothing else.
        write: the name of the request by which they first write.
    """
    few, one_nonce = f"{name}-few", f"{name}-one-nonce"
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
    """Until the end of the block each thread waits before its first such request, until all are there."""
    barrier, waited = threading.Barrier(WRITERS), threading.local()

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
