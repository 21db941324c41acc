"""Does a ledger add up? A fold over an owner's entries must give its balance, its count and its head hash.

Works on a store, or offline on an export. It reports what it finds and repairs nothing.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ledger_core.chain import Chain
from ledger_core.errors import UnavailableError
from ledger_core.exports import HEAD_FIELDS, head_line, rows_of
from ledger_core.findings import Discrepancy, Finding, FindingKind
from ledger_core.models import GENESIS_HASH, Head, LedgerEntry, format_time
from ledger_core.receipts import Held, Receipt
from ledger_core.store import LedgerStore

__all__ = [
    "INDEX_LAG_PAUSES_SECONDS",
    "Read",
    "Report",
    "audit",
    "audit_export",
    "audit_store",
    "export",
]

INDEX_LAG_PAUSES_SECONDS = (0.0, 0.2, 1.0)
"""The index follows the tables within moments, so what does not add up is looked at again after these."""

T = TypeVar("T")


class Read(Protocol):
    """Makes a reading call of the store, in whatever way: once, or again when it may succeed."""

    def __call__(self, call: Callable[[], T], /) -> T: ...


class Report(BaseModel):
    """What an audit of one owner found; valid when nothing.

    `discrepancies` are the values that do not add up, `findings` what was done that they do not, and where.
    """

    model_config = ConfigDict(frozen=True)

    owner_id: str
    valid: bool
    entries_checked: int
    head: Head
    findings: list[Finding]
    discrepancies: list[Discrepancy]


def audit(head: Head, rows: Iterable[Any], receipts: Iterable[Receipt] = ()) -> Report:
    """Fold an owner's entries, oldest first, and compare the outcome with `head`.

    Args:
        head: what the balances table says.
        rows: the fields of each entry; anything else is reported as unreadable.
        receipts: what was signed before; those of other owners are passed over.
    """
    so_far, count, found = Head(owner_id=head.owner_id), 0, []
    chain, held = Chain(head.owner_id), Held(head.owner_id, receipts)
    for row in rows:
        count += 1
        try:
            entry = LedgerEntry.model_validate(row)
        except ValidationError as error:
            reason = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['type']}" for e in error.errors())
            found.append(Discrepancy(entry_id=so_far.entry_count + 1, field="entry", expected=None, found=reason))
            chain.add_unreadable(count)
            continue
        computed = entry.computed_hash()
        chain.add(count, entry, computed)
        held.against(entry, computed)
        found += _entry_discrepancies(head.owner_id, so_far, entry, computed)
        so_far = Head.at(entry)
    found += [
        Discrepancy(entry_id=None, field=field, expected=expected, found=claimed)
        for field, expected, claimed in zip(HEAD_FIELDS, _head_values(so_far), _head_values(head), strict=True)
        if expected != claimed
    ]
    found += (contradictions := held.contradictions())
    findings = chain.findings(head)
    findings += [Finding.of(FindingKind.CONTRADICTS_RECEIPT, one.entry_id) for one in contradictions]
    return Report(
        owner_id=head.owner_id,
        valid=not found and not findings,
        entries_checked=count,
        head=head,
        findings=findings,
        discrepancies=found,
    )


def audit_store(
    store: LedgerStore,
    owner_id: str,
    *,
    read: Read,
    receipts: Sequence[Receipt] = (),
    sleep: Callable[[float], None] = time.sleep,
) -> Report:
    """Audit an owner's ledger in the store, as of now; writers may go on meanwhile.

    Args:
        store: where the ledger is.
        owner_id: whose it is.
        read: makes each call of the store; it may try again, or say that the time is up.
        receipts: as for `audit`.
        sleep: waits for the index when something does not add up.

    Raises:
        LedgerError: the store could not be read to the end.
    """
    head, until = _extent(store, owner_id, read)  # once, or busy writers would always be ahead of the index
    report = None
    for pause_seconds in INDEX_LAG_PAUSES_SECONDS:
        sleep(pause_seconds)
        try:
            report = audit(head, _rows(store, owner_id, until, read), receipts)
        except UnavailableError:
            if report is None:
                raise
        if report.valid:
            break
    assert report is not None  # there is at least one pause
    return report


def audit_export(lines: Iterable[str], receipts: Sequence[Receipt] = ()) -> Iterator[Report]:
    """Audit an export, of one owner or several one after the other, line by line and without a store.

    Raises:
        InvalidRequestError: it is empty or does not begin with a head, or a head is malformed.
    """
    for _, section in groupby(rows_of(lines), key=itemgetter(0)):
        _, head = next(section)
        yield audit(head, (row for _, row in section), receipts)  # noqa: B031  # the rest of it, once


def export(
    store: LedgerStore, owner_id: str, *, read: Read, sleep: Callable[[float], None] = time.sleep
) -> Iterator[str]:
    """An owner's ledger as JSON Lines: its head, then its entries, oldest first. Arguments as for `audit_store`."""
    head, until = _extent(store, owner_id, read)
    for pause_seconds in INDEX_LAG_PAUSES_SECONDS:
        sleep(pause_seconds)
        latest = read(partial(store.latest, owner_id, at=head.updated_at))
        if (latest.hash if latest else GENESIS_HASH) == head.head_hash:
            break
    yield head_line(head)
    for row in _rows(store, owner_id, until, read):
        yield json.dumps(row, ensure_ascii=False)


def _extent(store: LedgerStore, owner_id: str, read: Read) -> tuple[Head, datetime | None]:
    """An owner's head, and the time of the last entry that there is (None: there is none)."""
    # The index first: whatever it shows, a consistent head that is read later covers, unless somebody forged it.
    latest = read(partial(store.latest, owner_id))
    head = read(partial(store.head, owner_id, consistent=True))
    return head, max((time for time in (head.updated_at, latest and latest.created_at) if time), default=None)


def _rows(store: LedgerStore, owner_id: str, until: datetime | None, read: Read) -> Iterator[dict[str, Any]]:
    if until is None:
        return
    rows, start = read(partial(store.rows, owner_id, until=until))
    yield from rows
    while start is not None:
        rows, start = read(partial(store.rows, owner_id, until=until, start=start))
        yield from rows


def _head_values(head: Head) -> tuple[int | str | None, ...]:
    updated_at = format_time(head.updated_at) if head.updated_at else None
    return head.balance, head.entry_count, head.head_hash, updated_at


def _entry_discrepancies(owner_id: str, so_far: Head, entry: LedgerEntry, computed: str) -> Iterator[Discrepancy]:
    for field, expected in (
        ("owner_id", owner_id),
        ("id", so_far.entry_count + 1),
        ("balance_after", so_far.balance + entry.amount),
        ("prev_hash", so_far.head_hash),
        ("hash", computed),
    ):
        if getattr(entry, field) != expected:
            yield Discrepancy(entry_id=entry.id, field=field, expected=expected, found=getattr(entry, field))
    if entry.balance_after < 0:
        yield Discrepancy(entry_id=entry.id, field="balance_after", expected="0 or more", found=entry.balance_after)
    if so_far.updated_at and entry.created_at <= so_far.updated_at:
        later = f"after {format_time(so_far.updated_at)}"
        found = format_time(entry.created_at)
        yield Discrepancy(entry_id=entry.id, field="created_at", expected=later, found=found)
