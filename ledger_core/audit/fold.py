"""Does a ledger add up? A fold over its entries must give its balance, its count and its head hash.

The fold keeps no row, so it judges a ledger of any length in flat memory. Only a ledger that does
not add up is read a second time, and that reading keeps a small tuple per row for the diagnosis.
Nothing here reads a store or a file.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from ledger_core.account import Head
from ledger_core.audit.diagnosis import diagnose
from ledger_core.audit.findings import (
    DISCREPANCIES_MAX,
    FINDINGS_MAX,
    Discrepancy,
    Finding,
    FindingKind,
    merged,
)
from ledger_core.audit.receipts import Held, Receipt
from ledger_core.audit.walk import Link
from ledger_core.dynamodb import (
    HEAD_FIELDS,
    KEYS,
    StoredHead,
    reported,
    respelt,
    same,
    unknown_fields,
    written_fields,
)
from ledger_core.fields import format_time
from ledger_core.models import LedgerEntry

__all__ = ["Report", "audit", "audit_once", "fold"]


class Report(BaseModel):
    """What an audit found in one account."""

    model_config = ConfigDict(frozen=True)

    owner_id: str
    """The owner of the account."""
    unit: str
    """What the account counts in."""
    valid: bool
    """Whether the ledger adds up: no finding, no discrepancy."""
    entries_checked: int
    """How many entries the audit read."""
    head: Head | None
    """The balance's row; null if it is malformed, or of a format that this version does not know.
    """
    findings: list[Finding]
    """What was done to the ledger, and where. At most FINDINGS_MAX, in the order of ids."""
    discrepancies: list[Discrepancy]
    """The values that do not add up. At most DISCREPANCIES_MAX, in the order of the entries."""
    truncated: bool
    """Whether there are more findings or discrepancies than the report lists."""

    @property
    def is_undecided(self) -> bool:
        """Whether the only findings are of a format that this version does not know."""
        return not self.valid and all(
            finding.kind is FindingKind.UNKNOWN_FORMAT for finding in self.findings
        )

    def seen_again(self, later: "Report") -> Self:
        """This report without what a later reading of the same ledger did not find."""
        findings = {(finding.kind, finding.first_id, finding.last_id) for finding in later.findings}
        discrepancies = {
            (discrepancy.entry_id, discrepancy.field) for discrepancy in later.discrepancies
        }
        return self.model_copy(
            update={
                "findings": [
                    finding
                    for finding in self.findings
                    if (finding.kind, finding.first_id, finding.last_id) in findings
                ],
                "discrepancies": [
                    discrepancy
                    for discrepancy in self.discrepancies
                    if (discrepancy.entry_id, discrepancy.field) in discrepancies
                ],
            }
        )


def audit(
    head: Head | StoredHead,
    read_rows: Callable[[], Iterable[Any]],
    receipts: Iterable[Receipt] = (),
) -> Report:
    """Fold a ledger, and diagnose it if it does not add up.

    Args:
        head: the row of the accounts table.
        read_rows: reads the fields of each entry, oldest first; called a second time for a
            diagnosis. A row that is anything else is reported as unreadable.
        receipts: signed heads of before; those of other owners are passed over.
    """
    receipts = list(receipts)
    report = fold(head, read_rows(), receipts)
    return report if report.valid else audit_once(head, read_rows(), receipts)


def fold(head: Head | StoredHead, rows: Iterable[Any], receipts: Iterable[Receipt] = ()) -> Report:
    """Judge a ledger in flat memory. The report has discrepancies, and no findings.

    Arguments as for `audit`.
    """
    judge = _Fold(_stored(head), receipts)
    for row in rows:
        judge.add(row)
    return judge.report()


def audit_once(
    head: Head | StoredHead, rows: Iterable[Any], receipts: Iterable[Receipt] = ()
) -> Report:
    """Fold and diagnose a ledger in a single reading, with a small tuple per row in memory.

    Arguments as for `audit`.
    """
    judge = _Fold(_stored(head), receipts, links=[])
    for row in rows:
        judge.add(row)
    return judge.report()


def _stored(head: Head | StoredHead) -> StoredHead:
    return StoredHead.of(head) if isinstance(head, Head) else head


class _Fold:
    """Goes from row to row. It does not judge what follows a row of an unknown format."""

    def __init__(
        self, head: StoredHead, receipts: Iterable[Receipt], links: list[Link | None] | None = None
    ) -> None:
        self._head = head
        self._beginning = Head(owner_id=head.owner_id, unit=head.unit)
        self._links = links
        self._so_far = self._beginning
        self._count = 0
        self._discrepancies: list[Discrepancy] = []
        self._truncated = False
        self._is_unknown = False
        self._unknown: list[Finding] = []
        self._fields: list[str] = []
        """The unknown fields of the row before, of which the report has a discrepancy."""
        self._held = Held(self._beginning, receipts)

    def add(self, row: Any) -> None:
        """Judge the next row."""
        self._count += 1
        if unknown := unknown_fields(row):
            entry_id = row["id"] if type(row.get("id")) is int else None
            self._find_unknown(unknown, entry_id, at=self._count)
        if self._is_unknown:
            return
        try:
            entry = LedgerEntry.model_validate(_without_keys(row))
        except ValidationError as error:
            self._find(self._so_far.entry_count + 1, "entry", None, _reason(error))
            if self._links is not None:
                self._links.append(None)
            return
        computed_hash = entry.computed_hash()
        names = respelt(row, entry)
        for name in names:
            self._find(entry.id, name, reported(written_fields(entry).get(name)), row[name])
        if self._links is not None:
            self._links.append(Link.of(self._count, entry, computed_hash, is_exact=not names))
        self._held.against(entry, computed_hash)
        for field, expected, found in _contradictions(
            self._so_far, entry, self._beginning, computed_hash
        ):
            self._find(entry.id, field, expected, found)
        self._so_far = Head.at(entry)

    def report(self) -> Report:
        """Say what was found, after the last row."""
        if unknown := self._head.unknown:
            self._find_unknown(unknown, None)
        contradicted = self._held.contradictions()
        if self._is_unknown:
            contradicted = [
                discrepancy
                for discrepancy in contradicted
                if (discrepancy.entry_id or 0) <= self._so_far.entry_count
            ]
        else:
            self._compare_head()
        for discrepancy in contradicted:
            self._keep(discrepancy)
        findings = [] if self._links is None else self._findings(self._links, contradicted)
        return Report(
            owner_id=self._head.owner_id,
            unit=self._head.unit,
            valid=not self._discrepancies,
            entries_checked=self._count,
            head=self._head.head(),
            findings=findings[:FINDINGS_MAX],
            discrepancies=self._discrepancies,
            truncated=self._truncated or len(findings) > FINDINGS_MAX,
        )

    def _findings(
        self, links: list[Link | None], contradicted: Iterable[Discrepancy]
    ) -> list[Finding]:
        head = None if self._is_unknown else self._head
        return [
            *diagnose(self._beginning, head, links),
            *(
                Finding.of(FindingKind.CONTRADICTS_RECEIPT, discrepancy.entry_id)
                for discrepancy in contradicted
            ),
            *merged(self._unknown),
        ]

    def _compare_head(self) -> None:
        computed = StoredHead.of(self._so_far).fields
        stored = self._head.fields
        for name in HEAD_FIELDS:
            if not same(computed[name], stored.get(name)):
                self._find(None, name, computed[name], stored.get(name))

    def _find(
        self, entry_id: int | None, field: str, expected: int | str | None, found: Any
    ) -> None:
        self._keep(
            Discrepancy(entry_id=entry_id, field=field, expected=expected, found=reported(found))
        )

    def _keep(self, discrepancy: Discrepancy) -> None:
        if len(self._discrepancies) < DISCREPANCIES_MAX:
            self._discrepancies.append(discrepancy)
        else:
            self._truncated = True

    def _find_unknown(self, fields: list[str], entry_id: int | None, at: int | None = None) -> None:
        self._is_unknown = True
        if self._links is not None:
            self._unknown.append(Finding.of(FindingKind.UNKNOWN_FORMAT, entry_id, at=at))
        # Only the first of a run, because a newer version may have written many.
        if fields != self._fields:
            self._find(entry_id, "format", None, ", ".join(fields))
        self._fields = fields


def _without_keys(row: Any) -> Any:
    if isinstance(row, dict) and not row.keys().isdisjoint(KEYS):
        return {name: value for name, value in row.items() if name not in KEYS}
    return row


def _reason(error: ValidationError) -> str:
    """Which fields make a row no entry, and why."""
    return "; ".join(
        f"{'.'.join(map(str, problem['loc']))}: {problem['type']}" for problem in error.errors()
    )


def _contradictions(
    so_far: Head, entry: LedgerEntry, beginning: Head, computed_hash: str
) -> Iterator[tuple[str, int | str, int | str]]:
    """Each field of an entry that does not follow from the entries before it: its name, what it
    should be, and is."""
    expected: dict[str, int | str] = {
        "owner_id": beginning.owner_id,
        "unit": beginning.unit,
        "id": so_far.entry_count + 1,
        "balance_after": so_far.balance + entry.amount,
        "prev_hash": so_far.head_hash,
        "hash": computed_hash,
    }
    for field, value in expected.items():
        if getattr(entry, field) != value:
            yield field, value, getattr(entry, field)
    if entry.balance_after < 0:
        yield "balance_after", "0 or more", entry.balance_after
    if so_far.updated_at and entry.created_at <= so_far.updated_at:
        yield "created_at", f"after {format_time(so_far.updated_at)}", format_time(entry.created_at)
