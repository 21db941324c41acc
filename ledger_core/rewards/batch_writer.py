"""Writes a reward to many owners, fifty to a transaction and several transactions at a time.

A transaction is written for all of its owners or for none. Its reasons name the owners that kept it
from being written; these are tried again apart from the others.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from secrets import token_hex

from ledger_core.account import Account, AccountChange
from ledger_core.dynamodb import WRITES_MAX, Cancelled, SweepStore
from ledger_core.errors import ContentionError, LedgerError, StoreError, UnavailableError
from ledger_core.observability import measure_request
from ledger_core.posting import TOKEN_BYTES, RetryBudget, make_plan
from ledger_core.rewards.progress import Outcome
from ledger_core.rewards.scheduled_operation import Reward

__all__ = ["TRANSACTIONS_MAX", "TRIES_MAX", "BatchWriter"]

TRANSACTIONS_MAX = 4
"""Transactions under way at once."""
TRIES_MAX = 4
"""Transactions that one owner may keep from being written before it is postponed."""
PAUSES_GROWING = 6
"""After so many in a row they grow no longer; only the end of the time ends them."""
GROWTH = 5
"""Owners by which a finished transaction enlarges the next, up to WRITES_MAX; conflict and
throttling halve it."""

ITEM_IS_INVALID = "ValidationException"
"""DynamoDB's code for what is wrong with a request as such, and so perhaps with one of its items
only."""


@dataclass
class _Pending:
    """An owner who is to get the reward."""

    account: Account
    tries: int = 0
    lost_hashes: set[str] = field(default_factory=set)
    """Of entries of which it is not known whether they were written."""


class BatchWriter:
    """Writes one reward to the owners of one page after the other; it remembers the size of batch
    that DynamoDB takes.

    Args:
        store: where the accounts are.
        reward: what to write.
        clock: the time that entries get; UTC. It may raise UnavailableError when it is not sure.
        budget: makes the retry budget of a thread.
    """

    def __init__(
        self,
        store: SweepStore,
        reward: Reward,
        *,
        clock: Callable[[], datetime],
        budget: Callable[[], RetryBudget],
    ) -> None:
        self._store = store
        self._reward = reward
        self._clock = clock
        self._budget = budget
        self._batch_size = WRITES_MAX
        self._lock = threading.Lock()  # of what threads share: the size, and all that is below
        self._todo: deque[_Pending] = deque()
        self._apart: deque[list[_Pending]] = deque()
        self._to_retry: list[_Pending] = []
        self._outcome = Outcome()

    def write(self, accounts: Iterable[Account], threads: ThreadPoolExecutor) -> Outcome:
        """Write to every account, each at most once, until all is done or the time is up.

        Raises:
            UnavailableError: the clock is off; nothing was written.
            StoreError: DynamoDB refused, for want of a permission or a table.
        """
        self._outcome = Outcome()
        self._stop()
        self._todo.extend(map(_Pending, accounts))
        if self._todo:
            self._clock()
        working = [threads.submit(self._work) for _ in range(TRANSACTIONS_MAX)]
        for work in working:
            work.result()
        self._outcome.complete = not (self._todo or self._apart or self._to_retry)
        return self._outcome

    def _work(self) -> None:
        """One thread: write batch after batch, and pause in between when DynamoDB has trouble with
        them."""
        budget = self._budget()
        try:
            with measure_request() as metrics:
                while not budget.is_spent:
                    now = self._clock()
                    if not (batch := self._next_batch()):
                        break
                    trouble, to_retry = self._write(batch, now)
                    self._resize(has_trouble=trouble is not None)
                    budget.pauses = min(budget.pauses, PAUSES_GROWING) if trouble else 0
                    try:
                        if trouble:
                            budget.pause(trouble)
                    finally:  # not before, or another thread would not have waited
                        self._retry_later(to_retry)
        except (ContentionError, UnavailableError):
            # no time is left to wait, or the clock was set; `complete` says that owners are left
            pass
        except BaseException:
            # what one thread cannot do, for want of a permission or a table, no other can
            self._stop()
            raise
        finally:
            with self._lock:
                self._outcome.tally.add_metrics(metrics)

    def _resize(self, *, has_trouble: bool) -> None:
        with self._lock:
            size = self._batch_size // 2 if has_trouble else self._batch_size + GROWTH
            self._batch_size = min(max(size, 1), WRITES_MAX)

    def _stop(self) -> None:
        with self._lock:
            self._todo.clear()
            self._apart.clear()
            self._to_retry = []

    def _next_batch(self) -> list[_Pending]:
        """The next owners: first those that were never the reason, as many as fit; then batches not
        to be mixed."""
        with self._lock:
            if self._todo:
                return [self._todo.popleft() for _ in range(min(len(self._todo), self._batch_size))]
            # Together the first time, and then each by itself.
            if self._to_retry and not self._apart:
                self._apart.append([pending for pending in self._to_retry if pending.tries == 1])
                self._apart += [[pending] for pending in self._to_retry if pending.tries > 1]
                self._to_retry = []
            while self._apart:
                batch = self._apart.popleft()
                if rest := batch[self._batch_size :]:
                    self._apart.appendleft(rest)
                if batch:
                    return batch[: self._batch_size]
            return []

    def _write(
        self, batch: list[_Pending], now: datetime
    ) -> tuple[LedgerError | None, list[_Pending]]:
        """Write to these owners; the trouble for which to pause, if any, and the owners to try
        again."""
        batch, changes = self._plan(batch, now)
        if not batch:
            return None, []
        try:
            cancelled = self._store.transact(changes, token=token_hex(TOKEN_BYTES))
        except (ContentionError, UnavailableError) as error:  # and so it may be written, or not
            for pending, change in zip(batch, changes, strict=True):
                pending.lost_hashes.add(change.entries[-1].hash)
            return error, batch
        except StoreError as error:
            if error.dynamodb_code != ITEM_IS_INVALID:
                raise
            self._split(batch, error)
            return None, []
        with self._lock:
            if cancelled:
                return self._sort(batch, cancelled)
            self._outcome.tally.granted += len(batch)
        return None, []

    def _plan(
        self, batch: list[_Pending], now: datetime
    ) -> tuple[list[_Pending], list[AccountChange]]:
        """The owners of a batch who can get the reward, and the change of each; the others are
        counted."""
        possible: list[_Pending] = []
        changes: list[AccountChange] = []
        for pending in batch:
            account = pending.account
            try:
                planned = make_plan(self._reward.posting(account.owner_id), account, now)
            except (ArithmeticError, TypeError, ValueError) as error:
                with self._lock:
                    self._outcome.fail(account.owner_id, error)
                continue
            if isinstance(planned, LedgerError):
                with self._lock:
                    self._outcome.refuse(account, planned)
                continue
            possible.append(pending)
            changes += planned.changes
        return possible, changes

    def _split(self, batch: list[_Pending], error: StoreError) -> None:
        """Find the owner whose item is invalid, by halving the batch."""
        with self._lock:
            if len(batch) == 1:
                self._outcome.fail(batch[0].account.owner_id, error)
            else:
                half = len(batch) // 2
                self._apart += [batch[:half], batch[half:]]

    def _sort(
        self, batch: list[_Pending], cancelled: list[Cancelled]
    ) -> tuple[LedgerError | None, list[_Pending]]:
        """Sort the owners of a cancelled transaction by the reason of each."""
        unaffected: list[_Pending] = []
        to_retry: list[_Pending] = []
        is_contended = False
        for pending, reason in zip(batch, cancelled, strict=True):
            is_contended = (
                is_contended or bool(reason.busy) or bool(reason.account and pending.tries)
            )
            if reason.error:
                self._outcome.fail(pending.account.owner_id, reason.error)
            elif reason.stored and reason.stored[0].hash in pending.lost_hashes:
                self._outcome.tally.granted += 1
            elif reason.stored:
                self._outcome.tally.already += 1
            elif reason.account:
                pending.account = reason.account
                to_retry.append(pending)
            elif reason.busy:
                to_retry.append(pending)
            else:
                unaffected.append(pending)
        self._todo.extendleft(reversed(unaffected))
        trouble = (
            ContentionError("Other writers move these owners' accounts.") if is_contended else None
        )
        return trouble, to_retry

    def _retry_later(self, to_retry: list[_Pending]) -> None:
        with self._lock:
            for pending in to_retry:
                pending.tries += 1
                if pending.tries < TRIES_MAX:
                    self._to_retry.append(pending)
                else:
                    self._outcome.postponed.append(pending.account.owner_id)
