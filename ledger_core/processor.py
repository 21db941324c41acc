"""The rules of posting an operation: what is accepted, what is refused and in which order, what is tried again.

No AWS and no HTTP. Time, sleep and chance are arguments, so that a test can hold them still.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from random import SystemRandom
from typing import TypeVar
from uuid import uuid4

from ledger_core.errors import (
    ContentionError,
    DuplicateNonceError,
    InsufficientBalanceError,
    InvalidRequestError,
    RequestState,
    UnknownOperationError,
)
from ledger_core.items import Mark
from ledger_core.models import BALANCE_MAX, Head, LedgerEntry, OperationRequest
from ledger_core.operations import BaseLedgerOperations, OperationConfig
from ledger_core.patience import Patience
from ledger_core.store import LedgerStore
from ledger_core.usage import current_usage

__all__ = ["HEADS_MAX", "TIMEOUT_SECONDS", "OperationProcessor"]

TIMEOUT_SECONDS = 10.0
"""How long a caller waits who does not say."""
HEADS_MAX = 4096
"""Owners whose head a process remembers."""

T = TypeVar("T")

_SYSTEM_RANDOM = SystemRandom()


def _utc_now() -> datetime:
    return datetime.now(UTC)


class OperationProcessor:
    """Posts an app's operations to owners' ledgers.

    Safe to share between threads: the writes of one owner go single file within a process, and across processes
    DynamoDB's conditions decide.

    Args:
        store: where the ledgers are.
        operations: the app's operations.
        clock: the time that entries get; UTC.
        monotonic: seconds on a clock that never goes back, for deadlines.
        sleep: waits for some seconds.
        random: chance in [0, 1), for jitter; of the system by default, so that copies of a process do not move in step.
        lock: makes a lock between those who call at the same time.
    """

    def __init__(
        self,
        store: LedgerStore,
        operations: type[BaseLedgerOperations],
        *,
        clock: Callable[[], datetime] = _utc_now,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        random: Callable[[], float] = _SYSTEM_RANDOM.random,
        lock: Callable[[], threading.Lock] = threading.Lock,
    ) -> None:
        self.store = store
        self.operations = operations.get_operation_config()
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
        self._random = random
        self._configs = {str(name): config for name, config in self.operations.items()}
        self._lane_of = lru_cache(maxsize=HEADS_MAX)(lambda _owner_id: _Lane(lock()))
        self._lanes_lock = threading.Lock()

    def config_of(self, operation: str) -> OperationConfig:
        """One operation's config.

        Raises:
            UnknownOperationError: the app has no such operation.
        """
        if operation not in self._configs:
            raise UnknownOperationError(f"operation: must be one of {', '.join(self._configs)}")
        return self._configs[operation]

    def process(
        self, request: OperationRequest, *, mark: Mark | None = None, timeout_seconds: float = TIMEOUT_SECONDS
    ) -> LedgerEntry:
        """Post one operation and return its entry, stored, with the balance moved.

        When it raises ContentionError or UnavailableError the entry may or may not be stored: the same request under
        the same nonce finds out, without harm.

        Args:
            request: what to post.
            mark: what to note on the balance with it, as for a reward.
            timeout_seconds: how long to keep trying. The first call is made however little time there is, no further
                one begins after it, and one that is under way then is waited for.

        Raises:
            UnknownOperationError: the app has no such operation.
            InvalidRequestError: the amount breaks the operation's bounds, or the balance would exceed BALANCE_MAX.
            DuplicateNonceError: the owner has an entry under this nonce; it is in the error. Takes precedence over:
            InsufficientBalanceError: the balance would fall below zero; nothing is stored, the nonce is not spent.
            ContentionError: other writers moved this ledger until the time was up.
            UnavailableError: DynamoDB failed or throttled until the time was up.
            StoreError: DynamoDB refused.
        """
        amount = self.config_of(request.operation).signed_amount(request.amount)
        patience = self.patience(timeout_seconds)
        with self._lanes_lock:
            lane = self._lane_of(request.owner_id)
        if not lane.lock.acquire(timeout=max(timeout_seconds, 0)):
            raise ContentionError("Other operations of this owner took all the time there was.")
        try:
            return self._append(lane, request, amount, mark, patience)
        finally:
            lane.lock.release()

    def read(self, call: Callable[[], T], *, timeout_seconds: float = TIMEOUT_SECONDS) -> T:
        """What a reading call of the store answers, tried again as long as it may succeed and there is time."""
        return self.patience(timeout_seconds).read(call)

    def patience(self, timeout_seconds: float) -> Patience:
        """What a request has that takes several calls: their time is in common."""
        return Patience(self._monotonic() + timeout_seconds, self._monotonic, self._sleep, self._random)

    def _append(
        self, lane: "_Lane", request: OperationRequest, amount: int, mark: Mark | None, patience: Patience
    ) -> LedgerEntry:
        head = lane.head or patience.retry(
            partial(self.store.head, request.owner_id, consistent=False), RequestState.CHECKING_BALANCE
        )
        losses, usage = 0, current_usage()
        while True:
            if not 0 <= head.balance + amount <= BALANCE_MAX:
                head = self._refuse_unless_moved(lane, request, amount, patience)
            entry = LedgerEntry.after(head, request, amount=amount, now=self._clock())
            lane.head = None  # not known while the transaction is under way
            usage.attempts += 1
            # One token for every try of this transaction: if an answer is lost, the next one tells what came of it.
            cancelled = patience.retry(
                partial(self.store.append, entry, head=head, token=str(uuid4()), mark=mark), RequestState.PROCESSING
            )
            if cancelled is None:
                lane.head = Head.at(entry)
                return entry
            lane.head = head = cancelled.head or head
            if cancelled.entry is not None:
                raise self._duplicate(cancelled.entry, request, amount)
            losses += 1
            usage.stale_heads += cancelled.head is not None
            if losses > 1 or cancelled.contended:
                patience.pause(ContentionError("Other writers kept moving this owner's balance."))

    def _refuse_unless_moved(self, lane: "_Lane", request: OperationRequest, amount: int, patience: Patience) -> Head:
        """Refuse for the balance's sake, but on the strength of a fresh one, and never what was accepted before.

        Returns the fresh head when the operation is possible after all.
        """
        entry, head = patience.retry(
            partial(self.store.look_up, request.owner_id, request.nonce), RequestState.CHECKING_NONCE
        )
        lane.head = head
        if entry is not None:
            raise self._duplicate(entry, request, amount)
        if head.balance + amount < 0:
            raise InsufficientBalanceError(balance=head.balance, required=-amount)
        if head.balance + amount > BALANCE_MAX:
            error = InvalidRequestError(f"amount: the balance is {head.balance} and cannot exceed {BALANCE_MAX}")
            error.state = RequestState.CHECKING_BALANCE
            raise error
        return head

    def _duplicate(self, entry: LedgerEntry, request: OperationRequest, amount: int) -> DuplicateNonceError:
        if self.config_of(request.operation).magnitude_min is None:
            amount = entry.amount  # fixed by the app, which may have changed it since: the request is the same
        return DuplicateNonceError(entry=entry, replay=entry.answers(request, amount=amount))


@dataclass
class _Lane:
    """Where the writes of one owner go single file, and what the last of them left behind."""

    lock: threading.Lock
    head: Head | None = None
