"""Writing a reward to many owners, fifty to a transaction and several transactions at a time.

A transaction is done for all of its owners or for none, so the owners that spoil one are told from the others by the
reasons, and tried again apart from them.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime

from ledger_core.accounts import WRITES_MAX, AccountStore
from ledger_core.errors import ContentionError, InvalidRequestError, LedgerError, StoreError, UnavailableError
from ledger_core.items import Write
from ledger_core.models import BALANCE_MAX, Head, owner_hash
from ledger_core.patience import Patience
from ledger_core.responses import Account, Cancelled
from ledger_core.rewards import Reward, Tally
from ledger_core.usage import measured

__all__ = ["TRANSACTIONS_MAX", "TRIES_MAX", "BatchWriter", "Outcome"]

TRANSACTIONS_MAX = 4
"""Transactions under way at once."""
TRIES_MAX = 8
"""Transactions that one owner may spoil before it is passed over."""
GROWTH = 5
"""Owners by which a finished transaction enlarges the next, up to WRITES_MAX; conflict and throttling halve it."""

ITEM_IS_INVALID = "ValidationException"
"""DynamoDB's code for what is wrong with a request as such, and so perhaps with one of its items only."""

logger = logging.getLogger(__name__)


@dataclass
class Outcome:
    """What became of some owners."""

    tally: Tally = field(default_factory=Tally)
    stragglers: list[str] = field(default_factory=list)
    """Owners that were passed over for now."""
    complete: bool = True
    """Whether all were seen to before the time was up."""

    def admits(self, head: Head, reward: Reward) -> bool:
        """Whether the balance can take the reward; count the owner if not."""
        balance = head.balance + reward.amount
        if balance > BALANCE_MAX:
            self.fail(head.owner_id, InvalidRequestError(f"the balance cannot exceed {BALANCE_MAX}"))
        elif balance < 0:
            self.tally.skipped += 1
        return 0 <= balance <= BALANCE_MAX

    def fail(self, owner_id: str, error: Exception) -> None:
        """Count, and log, an owner that cannot be written to."""
        self.tally.failed += 1
        logger.error("owner %s gets no reward: %s", owner_hash(owner_id), error)


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
        clock: the time that entries get; UTC.
        patience: makes what tries again, for as long as there is time.
    """

    def __init__(
        self, store: AccountStore, reward: Reward, *, clock: Callable[[], datetime], patience: Callable[[], Patience]
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
        """Write to every account, each at most once, until all is done or the time is up."""
        self._outcome = Outcome()
        self._spoilers = []
        self._apart.clear()
        self._todo.clear()
        self._todo.extend(_Pending(account.head, account.marks) for account in accounts)
        working = [threads.submit(self._work) for _ in range(TRANSACTIONS_MAX)]
        try:
            for work in working:
                work.result()
        except BaseException:
            self._todo.clear()  # what one thread cannot do, for want of a permission or a table, no other can
            raise
        self._outcome.complete = not (self._todo or self._apart or self._spoilers)
        return self._outcome

    def _work(self) -> None:
        """One thread: write batch after batch, and wait in between when DynamoDB has trouble with them."""
        patience = self._patience()
        with measured() as usage:
            try:
                while not patience.is_over and (batch := self._next_batch()):
                    trouble = self._write(batch)
                    with self._lock:
                        grown = self._batch_size // 2 if trouble else self._batch_size + GROWTH
                        self._batch_size = min(max(grown, 1), WRITES_MAX)
                    if trouble:
                        patience.pause(trouble)
                    else:
                        patience = self._patience()
            except (ContentionError, UnavailableError):
                pass  # no time is left to wait; who is left is told by `complete`
        with self._lock:
            self._outcome.tally.add_usage(usage)

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

    def _write(self, batch: list[_Pending]) -> LedgerError | None:
        """Write to these owners, or see to each of them; what makes waiting advisable, if anything does."""
        now = self._clock()
        writes = [Write(self._reward.entry(one.head, now), one.head, self._reward.mark(one.marks)) for one in batch]
        try:
            reasons = self._store.append_all(writes)
        except (ContentionError, UnavailableError) as error:  # and so it may be written, or not
            with self._lock:
                for pending, write in zip(batch, writes, strict=True):
                    pending.sent.add(write.entry.hash)
                    self._spoilt(pending)
            return error
        except StoreError as error:
            if error.dynamodb_code != ITEM_IS_INVALID:
                raise
            with self._lock:
                if len(batch) == 1:
                    self._outcome.fail(batch[0].head.owner_id, error)
                else:  # one of them is to blame, and halving finds it
                    half = len(batch) // 2
                    self._apart += [batch[:half], batch[half:]]
            return None
        with self._lock:
            if not reasons:
                self._outcome.tally.granted += len(batch)
                return None
            return self._after_cancellation(batch, reasons)

    def _after_cancellation(self, batch: list[_Pending], reasons: list[Cancelled]) -> LedgerError | None:
        innocent, contended = [], False
        for pending, reason in zip(batch, reasons, strict=True):
            contended = contended or reason.contended
            if reason.error:
                self._outcome.fail(pending.head.owner_id, reason.error)
            elif reason.entry and reason.entry.hash in pending.sent:
                self._outcome.tally.granted += 1
            elif reason.entry:
                self._outcome.tally.already += 1
            elif reason.head:
                pending.head, pending.marks = reason.head, reason.marks
                if self._outcome.admits(reason.head, self._reward):
                    self._spoilt(pending)
            elif reason.contended:
                self._spoilt(pending)
            else:
                innocent.append(pending)
        self._todo.extendleft(reversed(innocent))
        return ContentionError("Other writers are at these owners' balances.") if contended else None

    def _spoilt(self, pending: _Pending) -> None:
        pending.tries += 1
        if pending.tries < TRIES_MAX:
            self._spoilers.append(pending)
        else:
            self._outcome.stragglers.append(pending.head.owner_id)
