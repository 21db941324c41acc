"""Does a ledger add up? A fold over an owner's entries must give its balance, its count and its head hash.

Works on a store, or offline on an export. It reports what it finds and repairs nothing.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from ledger_core.errors import InvalidRequestError
from ledger_core.models import Head, LedgerEntry, format_time
from ledger_core.store import LedgerStore

__all__ = ["INDEX_LAG_PAUSES_SECONDS", "Discrepancy", "Report", "audit", "audit_export", "audit_store", "export"]

INDEX_LAG_PAUSES_SECONDS = (0.0, 0.2, 1.0)
"""The index follows the tables within moments, so what does not add up is looked at again after these."""


class Discrepancy(BaseModel):
    """One thing that does not add up: a field of an entry, or of the head where `entry_id` is null."""

    model_config = ConfigDict(frozen=True)

    entry_id: int | None
    field: str
    expected: int | str | None
    found: int | str | None


class Report(BaseModel):
    """What an audit of one owner found; valid when nothing."""

    model_config = ConfigDict(frozen=True)

    owner_id: str
    valid: bool
    entries_checked: int
    head: Head
    discrepancies: list[Discrepancy]


def audit(head: Head, rows: Iterable[Any]) -> Report:
    """Fold an owner's entries, oldest first, and compare the outcome with `head`.

    Args:
        head: what the balances table says.
        rows: the fields of each entry; anything else is reported as unreadable.
    """
    so_far, count, found = Head(owner_id=head.owner_id), 0, []
    for row in rows:
        count += 1
        try:
            entry = LedgerEntry.model_validate(row)
        except ValidationError as error:
            reason = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['type']}" for e in error.errors())
            found.append(Discrepancy(entry_id=so_far.entry_count + 1, field="entry", expected=None, found=reason))
            continue
        found += _entry_discrepancies(head.owner_id, so_far, entry)
        so_far = Head.at(entry)
    found += [
        Discrepancy(entry_id=None, field=field, expected=getattr(so_far, field), found=getattr(head, field))
        for field in ("balance", "entry_count", "head_hash")
        if getattr(so_far, field) != getattr(head, field)
    ]
    return Report(owner_id=head.owner_id, valid=not found, entries_checked=count, head=head, discrepancies=found)


def audit_store(store: LedgerStore, owner_id: str, *, sleep: Callable[[float], None] = time.sleep) -> Report:
    """Audit an owner's ledger in the store, as of now; writers may go on meanwhile.

    Raises:
        LedgerError: the store could not be read.
    """
    for pause_seconds in INDEX_LAG_PAUSES_SECONDS:
        sleep(pause_seconds)
        report = audit(*_ledger(store, owner_id))
        if report.valid:
            break
    return report


def audit_export(lines: Iterable[str]) -> Iterator[Report]:
    """Audit an export, of one owner or several one after the other, line by line and without a store.

    Raises:
        InvalidRequestError: it is empty or does not begin with a head, or a head is malformed.
    """
    for head, section in groupby(_export_rows(lines), key=itemgetter(0)):
        yield audit(head, (row for _, row in section if row is not None))


def export(store: LedgerStore, owner_id: str) -> Iterator[str]:
    """An owner's ledger as JSON Lines: its head, then its entries, oldest first."""
    head, rows = _ledger(store, owner_id)
    yield TypeAdapter(Head).dump_json(head).decode()
    for row in rows:
        yield json.dumps(row, ensure_ascii=False)


def _ledger(store: LedgerStore, owner_id: str) -> tuple[Head, Iterator[dict[str, Any]]]:
    # The index first: whatever it shows, a consistent head that is read later covers, unless somebody forged it.
    latest = store.latest(owner_id)
    head = store.head(owner_id, consistent=True)
    times = [time for time in (head.updated_at, latest and latest.created_at) if time]
    return head, store.rows(owner_id, until=max(times)) if times else iter(())


def _entry_discrepancies(owner_id: str, so_far: Head, entry: LedgerEntry) -> Iterator[Discrepancy]:
    for field, expected in (
        ("owner_id", owner_id),
        ("id", so_far.entry_count + 1),
        ("balance_after", so_far.balance + entry.amount),
        ("prev_hash", so_far.head_hash),
        ("hash", entry.computed_hash()),
    ):
        if getattr(entry, field) != expected:
            yield Discrepancy(entry_id=entry.id, field=field, expected=expected, found=getattr(entry, field))
    if entry.balance_after < 0:
        yield Discrepancy(entry_id=entry.id, field="balance_after", expected="0 or more", found=entry.balance_after)
    if so_far.updated_at and entry.created_at <= so_far.updated_at:
        later = f"after {format_time(so_far.updated_at)}"
        found = format_time(entry.created_at)
        yield Discrepancy(entry_id=entry.id, field="created_at", expected=later, found=found)


def _export_rows(lines: Iterable[str]) -> Iterator[tuple[Head, Any]]:
    head = None
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = line  # unreadable, and so reported
        if isinstance(row, dict) and "head_hash" in row:
            try:
                head, row = TypeAdapter(Head).validate_python(row), None
            except ValidationError:
                raise InvalidRequestError(f"line {number}: this head is malformed") from None
        if head is None:
            raise InvalidRequestError("line 1: an export begins with the head of a ledger")
        yield head, row
    if head is None:
        raise InvalidRequestError("line 1: the export is empty")
