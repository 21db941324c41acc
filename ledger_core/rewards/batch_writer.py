"""Writing a reward to many owners, fifty to a transaction and several transactions at a time.

A transaction is done for all of its owners or for none, so the owners that spoil one are told from the others by the
reasons, and tried again apart from them.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime

from ledger_core.account import Account, Head
from ledger_core.dynamodb import WRITES_MAX, Cancelled, SweepStore, Write
from ledger_core.errors import ContentionError, LedgerError, StoreError, UnavailableError
from ledger_core.observability import measure_request
from ledger_core.posting import RetryBudget
from ledger_core.rewards.progress import Outcome
from ledger_core.rewards.scheduled_operation import Reward

__all__ = ["TRANSACTIONS_MAX", "TRIES_MAX", "BatchWriter"]

TRANSACTIONS_MAX = 4
"""Transactions under way at once."""
TRIES_MAX = 4
"""Transactions that one owner may spoil before it is passed over."""
PAUSES_GROWING = 6
"""After so many in a row they grow no longer; only the end of the time ends them."""
GROWTH = 5
"""Owners by which a finished transaction enlarges the next, up to WRITES_MAX; conflict and throttling halve it."""

ITEM_IS_INVALID = "ValidationException"
"""DynamoDB's code for what is wrong with a request as such, and so perhaps with one of its items only."""


@dataclass
class _Pending:
    """An owner who is to get the reward."""

    head: Head
    marks: Mapping[str, str]
    tries: int = 0
    sent: set[str] = field(default_factory=set)
    """Hashes of entries of which it is not known whether they were written."""


class BatchWriter:
    """Writes one reward to the owners of one page after the other; the size of batch that DynamoDB takes it remembers.

    Args:
        store: where the accounts are.
        reward: what to write.
        clock: the time that entries get; UTC. It may raise UnavailableError when it is not sure.
        patience: makes what tries again, for as long as there is time.
    """

    def __init__(
        self, store: SweepStore, reward: Reward, *, clock: Callable[[], datetime], patience: Callable[[], RetryBudget]
    ) -> None:
        self._store = store
        self._reward = reward
        self._clock = clock
        self._patience = patience
        self._batch_size = WRITES_MAX
        self._lock = threading.Lock()  # of what threads share: the size, and all that is below
        self._todo: deque[_Pending] = deque()
        self._apart: deque[list[_Pending]] = deque()
        self._spoilers: list[_Pending] = []
        self._outcome = Outcome()

    def write(self, accounts: Iterable[Account], threads: ThreadPoolExecutor) -> Outcome:
        """Write to every account, each at most once, until all is done or the time is up.

        Raises:
            UnavailableError: the clock is off; nothing was written.
            StoreError: DynamoDB refused, for want of a permission or a table.
        """
        self._outcome = Outcome()
        self._stop()
        self._todo.extend(_Pending(account.head, account.marks) for account in accounts)
        if self._todo:
            self._clock()
        working = [threads.submit(self._work) for _ in range(TRANSACTIONS_MAX)]
        for work in working:
            work.result()
        self._outcome.complete = not (self._todo or self._apart or self._spoilers)
        return self._outcome

    def _work(self) -> None:
        """One thread: write batch after batch, and wait in between when DynamoDB has trouble with them."""
        patience = self._patience()
        try:
            with measure_request() as usage:
                while not patience.is_over:
                    now = self._clock()
                    if not (batch := self._next_batch()):
                        break
                    trouble, spoilers = self._write(batch, now)
                    with self._lock:
                        grown = self._batch_size // 2 if trouble else self._batch_size + GROWTH
                        self._batch_size = min(max(grown, 1), WRITES_MAX)
                    patience.pauses = min(patience.pauses, PAUSES_GROWING) if trouble else 0
                    try:
                        if trouble:
                            patience.pause(trouble)
                    finally:  # not before, or another thread would not have waited
                        self._put_off(spoilers)
        except (ContentionError, UnavailableError):
            pass  # no time is left to wait, or the clock was set; who is left is told by `complete`
        except BaseException:
            self._stop()  # what one thread cannot do, for want of a permission or a table, no other can
            raise
        finally:
            with self._lock:
                self._outcome.tally.add_usage(usage)

    def _stop(self) -> None:
        with self._lock:
            self._todo.clear()
            self._apart.clear()
            self._spoilers = []

    def _next_batch(self) -> list[_Pending]:
        """Who is next: first those that spoilt nothing, as many as fit; then batches that are not to be mixed."""
        with self._lock:
            if self._todo:
                return [self._todo.popleft() for _ in range(min(len(self._todo), self._batch_size))]
            if self._spoilers and not self._apart:  # together the first time, and then each by itself
                self._apart.append([one for one in self._spoilers if one.tries == 1])
                self._apart += [[one] for one in self._spoilers if one.tries > 1]
                self._spoilers = []
            while self._apart:
                batch = self._apart.popleft()
                if rest := batch[self._batch_size :]:
                    self._apart.appendleft(rest)
                if batch:
                    return batch[: self._batch_size]
            return []

    def _write(self, batch: list[_Pending], now: datetime) -> tuple[LedgerError | None, list[_Pending]]:
        """Write to these owners, or see to each; what makes waiting advisable, if anything, and whom to try again."""
        batch, writes = self._writes(batch, now)
        if not batch:
            return None, []
        try:
            reasons = self._store.append_all(writes)
        except (ContentionError, UnavailableError) as error:  # and so it may be written, or not
            for pending, write in zip(batch, writes, strict=True):
                pending.sent.add(write.entries[-1].hash)
            return error, batch
        except StoreError as error:
            if error.dynamodb_code != ITEM_IS_INVALID:
                raise
            with self._lock:
                if len(batch) == 1:
                    self._outcome.fail(batch[0].head.owner_id, error)
                else:  # one of them is to blame, and halving finds it
                    half = len(batch) // 2
                    self._apart += [batch[:half], batch[half:]]
            return None, []
        with self._lock:
            if not reasons:
                self._outcome.tally.granted += len(batch)
                return None, []
            return self._after_cancellation(batch, reasons)

    def _writes(self, batch: list[_Pending], now: datetime) -> tuple[list[_Pending], list[Write]]:
        """What to write, and to whom; without those to whose head no entry can be added."""
        possible, writes = [], []
        for pending in batch:
            try:
                entry, mark = self._reward.entry(pending.head, now), self._reward.mark(pending.marks)
                write = Write((entry,), pending.head, mark)
            except (ArithmeticError, TypeError, ValueError) as error:
                with self._lock:
                    self._outcome.fail(pending.head.owner_id, error)
            else:
                possible.append(pending)
                writes.append(write)
        return possible, writes

    def _after_cancellation(
        self, batch: list[_Pending], reasons: list[Cancelled]
    ) -> tuple[LedgerError | None, list[_Pending]]:
        innocent, spoilers, contended = [], [], False
        for pending, reason in zip(batch, reasons, strict=True):
            contended = contended or reason.contended or bool(reason.head and pending.tries)
            if reason.error:
                self._outcome.fail(pending.head.owner_id, reason.error)
            elif reason.stored and reason.stored[0].hash in pending.sent:
                self._outcome.tally.granted += 1
            elif reason.stored:
                self._outcome.tally.already += 1
            elif reason.head:
                pending.head, pending.marks = reason.head, reason.marks
                if not reason.head.entry_count:
                    self._outcome.tally.skipped += 1  # erased meanwhile
                elif self._outcome.admits(reason.head, self._reward):
                    spoilers.append(pending)
            elif reason.contended:
                spoilers.append(pending)
            else:
                innocent.append(pending)
        self._todo.extendleft(reversed(innocent))
        return ContentionError("Other writers are at these owners' balances.") if contended else None, spoilers

    def _put_off(self, spoilers: list[_Pending]) -> None:
        with self._lock:
            for pending in spoilers:
                pending.tries += 1
                if pending.tries < TRIES_MAX:
                    self._spoilers.append(pending)
                else:
                    self._outcome.stragglers.append(pending.head.owner_id)
