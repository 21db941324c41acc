"""Audits and exports of ledgers in the store, and of exports offline. They repair nothing.

The index that they read follows the table with a lag. So what does not add up is read again until
the lag is no reason for it; and of entries that are not there it is only said once the table itself
does not have them.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any, Protocol, TypeVar

from ledger_core.account import GENESIS_HASH
from ledger_core.audit.export_format import LineCopy, head_line, row_line, rows_of
from ledger_core.audit.fold import Report, audit_once, fold
from ledger_core.audit.gaps import Gaps, common, is_among
from ledger_core.audit.receipts import Receipt
from ledger_core.dynamodb import LedgerStore, StoredHead
from ledger_core.errors import StoreError, TooLongError, UnavailableError
from ledger_core.fields import format_time
from ledger_core.posting import BudgetSpentError

__all__ = [
    "INDEX_LAG_MAX",
    "INDEX_LAG_PAUSES_SECONDS",
    "Read",
    "Report",
    "audit_export",
    "audit_store",
    "export",
]

INDEX_LAG_PAUSES_SECONDS = (0.0, 0.2, 1.0)
"""The index follows the tables within moments, so what does not add up is looked at again after
these."""
INDEX_LAG_MAX = timedelta(days=1)
"""What is as old as this and not in the index is not in the table either; for who may not look into
the table."""
TOO_LONG = (
    "The ledger is too long to be verified in the time there is: "
    "`ledger verify` and `export` have no limit."
)
NOT_SHOWN = (
    "The index does not show all entries yet. "
    "Try again later; `ledger verify` looks into the table too."
)

T = TypeVar("T")


class Read(Protocol):
    """Makes a reading call of the store, in whatever way: once, or again when it may succeed."""

    def __call__(self, call: Callable[[], T], /) -> T: ...


def audit_store(
    store: LedgerStore,
    key: str,
    *,
    read: Read,
    receipts: Sequence[Receipt] = (),
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Report:
    """Audit an owner's ledger in the store, as of now; writers may go on meanwhile.

    A finding is one that two readings show, each with a head of its own.

    Args:
        store: where the ledger is.
        key: the key of the account; see `ledger_core.keys`.
        read: makes each call of the store; it may try again, or say that the time is up.
        receipts: as for `audit`.
        sleep: waits for the index when something does not add up.
        clock: the time; UTC.

    Raises:
        UnavailableError: the store could not be read to the end, or not often enough to tell what
            is wrong.
        TooLongError: it takes more than the time that there is, and would the next time.
        LedgerError: the store could not be read.
    """
    ledger = _Ledger(store, key, read, clock)
    extent = ledger.extent()  # once, or busy writers would always be ahead of the index
    for pause_seconds in INDEX_LAG_PAUSES_SECONDS:
        sleep(pause_seconds)
        report = fold(extent.head, ledger.rows(extent, Gaps()), receipts)
        if report.valid:
            return report
    first, first_absent = ledger.audit(extent, receipts)
    later = ledger.extent()
    second, second_absent = ledger.audit(later, receipts)
    if second.valid:
        return second
    report = first.seen_again(second)
    if not report.findings:
        raise UnavailableError(NOT_SHOWN)
    ledger.check_absent(common(first_absent, second_absent), extent.head)
    return report


def audit_export(lines: Iterable[str], receipts: Sequence[Receipt] = ()) -> Iterator[Report]:
    """Audit an export, of one owner or several one after the other, line by line and without a
    store.

    The lines are read once: a copy serves the second reading of a ledger that does not add up.

    Raises:
        InvalidRequestError: it is empty, does not begin with a head, or is cut off in its last
            line.
    """
    for _, section in groupby(rows_of(lines), key=itemgetter(0)):
        _, head, _ = next(section)
        with LineCopy() as copy:
            rows = _copied(section, copy)  # noqa: B031  # the rest of it, once
            report = fold(head, rows, receipts)
            if not report.valid:
                report = audit_once(head, copy.rows(), receipts)
        yield report


def _copied(section: Iterable[tuple[int, Any, str]], copy: LineCopy) -> Iterator[Any]:
    for _, row, line in section:
        copy.add(line)
        yield row


def export(
    store: LedgerStore,
    key: str,
    *,
    read: Read,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Iterator[str]:
    """An owner's ledger as JSON Lines: its head, then its entries, oldest first, whatever is in
    them.

    Arguments and errors as for `audit_store`; of an export that ends in one, nothing is to be used.
    """
    ledger = _Ledger(store, key, read, clock)
    extent, absent = ledger.extent(), list[range]()
    if not ledger.waits_for(extent, sleep):
        gaps = Gaps()
        for _ in ledger.rows(extent, gaps):
            pass
        ledger.check_absent(absent := extent.gaps(gaps), extent.head)
    yield head_line(extent.head)
    gaps = Gaps()
    for row in ledger.rows(extent, gaps):
        yield row_line(row)
    if extent.gaps(gaps) != absent:
        ledger.check_absent(extent.gaps(gaps), extent.head)


@dataclass(frozen=True)
class _Extent:
    """What of a ledger is read: its head, and the time of the last entry that there is (None: there
    is none)."""

    head: StoredHead
    until: str | None

    def gaps(self, gaps: Gaps) -> list[range]:
        return gaps.of(self.head.fields.get("entry_count"))


@dataclass
class _Ledger:
    """One owner's ledger in the store."""

    store: LedgerStore
    key: str
    call: Read
    clock: Callable[[], datetime]
    has_pages: bool = False

    def read(self, call: Callable[[], T]) -> T:
        try:
            return self.call(call)
        except BudgetSpentError as error:
            if self.has_pages:
                raise TooLongError(TOO_LONG) from error
            raise

    def extent(self) -> _Extent:
        # The index first: whatever it shows, a consistent head that is read later covers, unless
        # somebody forged it.
        last = self.read(partial(self.store.last_row, self.key))
        head = self.read(partial(self.store.stored_head, self.key))
        times = [time for time in (head.updated_at, last and last["created_at"]) if time]
        return _Extent(head, max(times, default=None))

    def audit(self, extent: _Extent, receipts: Sequence[Receipt]) -> tuple[Report, list[range]]:
        """What a reading shows, and which entries it does not come upon."""
        gaps = Gaps()
        report = audit_once(extent.head, self.rows(extent, gaps), receipts)
        return report, extent.gaps(gaps)

    def waits_for(self, extent: _Extent, sleep: Callable[[float], None]) -> bool:
        """Whether the index comes to show the entry that the head has the hash of."""
        for pause_seconds in INDEX_LAG_PAUSES_SECONDS:
            sleep(pause_seconds)
            last = self.read(partial(self.store.last_row, self.key, until=extent.head.updated_at))
            if (last.get("hash") if last else GENESIS_HASH) == extent.head.fields.get("head_hash"):
                return True
        return False

    def rows(self, extent: _Extent, gaps: Gaps) -> Iterator[dict[str, Any]]:
        """Its entries, oldest first; `gaps` is told of each."""
        start, more = None, extent.until is not None
        while more:
            rows, start = self.read(
                partial(self.store.rows, self.key, until=extent.until, start=start)
            )
            for row in rows:
                gaps.add(row)
                yield row
            more = start is not None
            self.has_pages = self.has_pages or more

    def check_absent(self, gaps: Sequence[range], head: StoredHead) -> None:
        """Raise UnavailableError if the table may have entries that the index does not show."""
        if not gaps:
            return
        try:
            if not self._has_any_of(gaps):
                return
        except (StoreError, TooLongError, UnavailableError) as error:
            if isinstance(error, StoreError) and error.dynamodb_code != "AccessDeniedException":
                raise
            if head.updated_at and head.updated_at < format_time(self.clock() - INDEX_LAG_MAX):
                return
        raise UnavailableError(NOT_SHOWN)

    def _has_any_of(self, gaps: Sequence[range]) -> bool:
        """Whether the table, strongly consistent, has any of these entries."""
        start, more = None, True
        while more:
            ids, start = self.read(partial(self.store.table_ids, self.key, start=start))
            if any(is_among(gaps, one) for one in ids):
                return True
            more = start is not None
        return False
