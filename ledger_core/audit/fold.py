"""Does a ledger add up? A fold over an owner's entries must give its balance, its count and its head hash.

It reads nothing: it is told the rows, whatever is in them, and says what it found.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from ledger_core.account import Head
from ledger_core.audit.chain import Chain
from ledger_core.audit.findings import Discrepancy, Finding, FindingKind, merged
from ledger_core.audit.receipts import Held, Receipt
from ledger_core.dynamodb import HEAD_FIELDS, StoredHead, respelt, same, told, unknown_fields
from ledger_core.fields import format_time
from ledger_core.models import LedgerEntry

__all__ = ["Report", "audit"]


class Report(BaseModel):
    """What an audit of one owner found; valid when nothing.

    `discrepancies` are the values that do not add up, `findings` what was done that they do not, and where. `head` is
    null when the balance's row is none, or of a format that is not known.
    """

    model_config = ConfigDict(frozen=True)

    owner_id: str
    valid: bool
    entries_checked: int
    head: Head | None
    findings: list[Finding]
    discrepancies: list[Discrepancy]

    @property
    def is_undecided(self) -> bool:
        """Whether nothing was found but what this version does not know."""
        return not self.valid and all(one.kind is FindingKind.UNKNOWN_FORMAT for one in self.findings)

    def seen_again(self, later: "Report") -> Self:
        """Less what a later reading of the same ledger did not find."""
        findings = {(one.kind, one.first_id, one.last_id) for one in later.findings}
        discrepancies = {(one.entry_id, one.field) for one in later.discrepancies}
        return self.model_copy(
            update={
                "findings": [one for one in self.findings if (one.kind, one.first_id, one.last_id) in findings],
                "discrepancies": [one for one in self.discrepancies if (one.entry_id, one.field) in discrepancies],
            }
        )


def audit(head: Head | StoredHead, rows: Iterable[Any], receipts: Iterable[Receipt] = ()) -> Report:
    """Fold an owner's entries, oldest first, and compare the outcome with `head`.

    Args:
        head: what the balances table says.
        rows: the fields of each entry; anything else is reported as unreadable.
        receipts: what was signed before; those of other owners are passed over.
    """
    fold = _Fold(StoredHead.of(head) if isinstance(head, Head) else head, receipts)
    for row in rows:
        fold.add(row)
    return fold.report()


class _Fold:
    """Goes from row to row. What follows a row of a format that it does not know, it does not judge."""

    def __init__(self, head: StoredHead, receipts: Iterable[Receipt]) -> None:
        self._head, self._owner_id = head, head.owner_id
        self._so_far, self._count = Head(owner_id=head.owner_id), 0
        self._found, self._unknown = list[Discrepancy](), list[Finding]()
        self._fields: list[str] = []  # of another format, as told last
        self._chain, self._held = Chain(head.owner_id), Held(head.owner_id, receipts)

    def add(self, row: Any) -> None:
        """The next row."""
        self._count += 1
        if unknown := unknown_fields(row):
            entry_id = row["id"] if type(row.get("id")) is int else None
            self._find_unknown(unknown, entry_id, at=self._count)
        if self._unknown:
            return
        try:
            entry = LedgerEntry.model_validate(row)
        except ValidationError as error:
            reason = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['type']}" for e in error.errors())
            self._find(self._so_far.entry_count + 1, "entry", None, reason)
            self._chain.add_unreadable(self._count)
            return
        computed, names = entry.computed_hash(), respelt(row, entry)
        for name in names:
            self._find(entry.id, name, format_time(getattr(entry, name)), row[name])
        self._chain.add(self._count, entry, computed, exact=not names)
        self._held.against(entry, computed)
        self._found += _discrepancies(self._owner_id, self._so_far, entry, computed)
        self._so_far = Head.at(entry)

    def report(self) -> Report:
        """What was found, once the last row was added."""
        if unknown := self._head.unknown:
            self._find_unknown(unknown, None)
        head, contradictions = self._head.head(), self._held.contradictions()
        if self._unknown:
            findings = [*self._chain.findings(self._so_far), *merged(self._unknown)]
            contradictions = [one for one in contradictions if (one.entry_id or 0) <= self._so_far.entry_count]
        else:
            findings = self._findings_with_head(head)
        findings += [Finding.of(FindingKind.CONTRADICTS_RECEIPT, one.entry_id) for one in contradictions]
        return Report(
            owner_id=self._owner_id,
            valid=not self._found and not contradictions and not findings,
            entries_checked=self._count,
            head=head,
            findings=findings,
            discrepancies=self._found + contradictions,
        )

    def _findings_with_head(self, head: Head | None) -> list[Finding]:
        computed, stored = StoredHead.of(self._so_far).fields, self._head.fields
        for name in HEAD_FIELDS:
            if not same(computed[name], stored.get(name)):
                self._find(None, name, computed[name], stored.get(name))
        findings = self._chain.findings(head or self._head.nearest(self._so_far))
        edited = Finding.of(FindingKind.BALANCE_EDITED)
        return findings if head or edited in findings else [*findings, edited]

    def _find(self, entry_id: int | None, field: str, expected: int | str | None, found: Any) -> None:
        self._found.append(Discrepancy(entry_id=entry_id, field=field, expected=expected, found=told(found)))

    def _find_unknown(self, fields: list[str], entry_id: int | None, at: int | None = None) -> None:
        self._unknown.append(Finding.of(FindingKind.UNKNOWN_FORMAT, entry_id, at=at))
        if fields != self._fields:  # once in a row, as a newer version may have written many
            self._find(entry_id, "format", None, ", ".join(fields))
        self._fields = fields


def _discrepancies(owner_id: str, so_far: Head, entry: LedgerEntry, computed: str) -> Iterator[Discrepancy]:
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
