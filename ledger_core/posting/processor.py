"""The rules of posting an operation: what is accepted, what is refused and in which order, what is tried again.

No AWS and no HTTP. Time, sleep and chance are arguments, so that a test can hold them still.
"""

import threading
import time
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from random import SystemRandom
from typing import TypeVar

from ledger_core.account import Head, Mark
from ledger_core.dynamodb import LedgerStore
from ledger_core.errors import ContentionError, UnknownOperationError
from ledger_core.models import LedgerEntry, OperationRequest
from ledger_core.operations import BaseLedgerOperations, OperationConfig
from ledger_core.posting.lanes import Lane, Ticket
from ledger_core.posting.retry import RetryBudget
from ledger_core.posting.writer import LaneWriter

__all__ = ["HEADS_MAX", "TIMEOUT_SECONDS", "OperationProcessor"]

TIMEOUT_SECONDS = 10.0
"""How long a caller waits who does not say."""
HEADS_MAX = 4096
"""Owners whose head a process remembers."""

T = TypeVar("T")

_SYSTEM_RANDOM = SystemRandom()


class OperationProcessor:
    """Posts an app's operations to owners' ledgers.

    Safe to share between threads: the writes of one owner go single file within a process, those that wait together in
    one transaction, and across processes DynamoDB's conditions decide.

    Args:
        store: where the ledgers are.
        operations: the app's operations.
        clock: the time that entries get; UTC. By default the machine's, which has to agree with DynamoDB's.
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
        clock: Callable[[], datetime] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        random: Callable[[], float] = _SYSTEM_RANDOM.random,
        lock: Callable[[], threading.Lock] = threading.Lock,
    ) -> None:
        self.store = store
        self.operations = operations.get_operation_config()
        self._writer = LaneWriter(store, clock or store.clock)
        self._monotonic = monotonic
        self._sleep = sleep
        self._random = random
        self._configs = {str(name): config for name, config in self.operations.items()}
        self._lane_of = lru_cache(maxsize=HEADS_MAX)(lambda owner_id: Lane(owner_id, lock()))
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
        self,
        request: OperationRequest,
        *,
        mark: Mark | None = None,
        begins: bool = True,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> LedgerEntry:
        """Post one operation and return its entry, stored, with the balance moved.

        When it raises ContentionError or UnavailableError the entry may or may not be stored: the same request under
        the same nonce finds out, without harm.

        Args:
            request: what to post.
            mark: what to note on the balance with it, as for a reward, unless a later period is noted there.
            begins: whether it may be the owner's first entry; not so for a reward.
            timeout_seconds: how long to keep trying. The first call is made however little time there is, no further
                one begins after it, and one that is under way then is waited for.

        Raises:
            UnknownOperationError: the app has no such operation.
            InvalidRequestError: the amount breaks the operation's bounds, the balance would exceed BALANCE_MAX, or it
                would be the first entry and may not.
            DuplicateNonceError: the owner has an entry under this nonce; it is in the error. Takes precedence over:
            InsufficientBalanceError: the balance would fall below zero; nothing is stored, the nonce is not spent.
            ContentionError: other writers moved this ledger until the time was up.
            UnavailableError: DynamoDB failed or throttled until the time was up, or the clock is off.
            StoreError: DynamoDB refused.
        """
        return self.finish(self.enter(request, mark=mark, begins=begins), timeout_seconds=timeout_seconds)

    def enter(self, request: OperationRequest, *, mark: Mark | None = None, begins: bool = True) -> Ticket:
        """Begin to post an operation, without waiting: the next writer to this owner writes it too.

        The caller then calls `finish`, or gives the ticket up by `Ticket.abandon`.

        Raises:
            UnknownOperationError, InvalidRequestError: as for `process`.
        """
        config = self.config_of(request.operation)
        amount = config.signed_amount(request.amount)
        with self._lanes_lock:
            lane = self._lane_of(request.owner_id)
        is_fixed, alone = config.magnitude_min is None, mark is not None
        return lane.enter(Ticket(lane, request, amount, is_fixed, mark, alone=alone, begins=begins))

    def finish(self, ticket: Ticket, *, timeout_seconds: float = TIMEOUT_SECONDS) -> LedgerEntry:
        """Post what was begun, unless another has meanwhile. As for `process`."""
        patience, lane = self.patience(timeout_seconds), ticket.lane
        try:
            if lane.lock.acquire(timeout=max(timeout_seconds, 0)):
                try:
                    self._writer.write_until_settled(ticket, patience)
                finally:
                    lane.forget_settled()
                    lane.lock.release()
            else:
                ticket.abandon(ContentionError("Other operations of this owner took all the time there was."))
        except BaseException as error:
            ticket.error = error  # or another would write it, when nobody waits for it any more
            raise
        return ticket.outcome()

    def remembered(self, owner_id: str) -> Head | None:
        """Where an owner's ledger stands, as far as this process knows; None if it does not know."""
        with self._lanes_lock:
            return self._lane_of(owner_id).head

    def read(self, call: Callable[[], T], *, timeout_seconds: float = TIMEOUT_SECONDS) -> T:
        """What a reading call of the store answers, tried again as long as it may succeed and there is time."""
        return self.patience(timeout_seconds).read(call)

    def patience(self, timeout_seconds: float) -> RetryBudget:
        """What a request has that takes several calls: their time is in common."""
        return RetryBudget(self._monotonic() + timeout_seconds, self._monotonic, self._sleep, self._random)
