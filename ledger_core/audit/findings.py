"""What an audit can find: values that do not add up, and what was done to a ledger. Each kind has a
stable name."""

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from math import inf

from pydantic import BaseModel, ConfigDict

__all__ = [
    "DISCREPANCIES_MAX",
    "FINDINGS_MAX",
    "MEANING",
    "Discrepancy",
    "Finding",
    "FindingKind",
    "merged",
]

FINDINGS_MAX = 1000
"""Findings in a report."""
DISCREPANCIES_MAX = 1000
"""Discrepancies in a report."""


class FindingKind(StrEnum):
    """What was done; stable, for programs."""

    CHANGED = "changed"
    DELETED = "deleted"
    INSERTED = "inserted"
    DUPLICATED = "duplicated"
    REORDERED = "reordered"
    REWRITTEN = "rewritten"
    TAIL_CUT = "tail_cut"
    BALANCE_EDITED = "balance_edited"
    HEAD_DIFFERS = "head_differs"
    CONTRADICTS_RECEIPT = "contradicts_receipt"
    UNKNOWN_FORMAT = "unknown_format"


MEANING: Mapping[FindingKind, str] = {
    FindingKind.CHANGED: (
        "Not what its hash was made of, or no entry, or a field is spelt otherwise; or the next "
        "entry has another hash of it, and one of the two was made anew."
    ),
    FindingKind.DELETED: "Not there, while entries after it are.",
    FindingKind.INSERTED: (
        "Not of the chain, which goes on without it. At the end: or the balance's row was set back."
    ),
    FindingKind.DUPLICATED: "The same entry, with the same hash, stands elsewhere too.",
    FindingKind.REORDERED: "Of the chain, but not in its place.",
    FindingKind.REWRITTEN: (
        "Its hash is right and it contradicts the entry before it: it was made with its hash."
    ),
    FindingKind.TAIL_CUT: (
        "Counted in the balance's row and not there: cut off, or all written anew with fewer. Of "
        "an export: or its file was cut off at the end of a line."
    ),
    FindingKind.BALANCE_EDITED: (
        "The entries are in order, and the balance's row says otherwise, or is none."
    ),
    FindingKind.HEAD_DIFFERS: (
        "The last entry is not the one that the balance's row has the hash of: one or the other "
        "was edited, or all written anew."
    ),
    FindingKind.CONTRADICTS_RECEIPT: (
        "Not what the receipt says: rewritten, cut or set back since it was signed."
    ),
    FindingKind.UNKNOWN_FORMAT: (
        "Has a field that this version does not know, so it cannot judge it, nor what follows. A "
        "newer version may; this says nothing of tampering."
    ),
}


class Discrepancy(BaseModel):
    """A value that does not add up: a field of an entry or of the head, or a receipt."""

    model_config = ConfigDict(frozen=True)

    entry_id: int | None
    """The entry's id; null for the balance's row."""
    field: str
    """The name of the field; `entry` for a row that is no entry."""
    expected: int | str | None
    """The value that the entries before it ask for."""
    found: int | str | None
    """The value that is stored, or why it is no value."""


class Finding(BaseModel):
    """What was done to entries that follow each other, or to the balance's row."""

    model_config = ConfigDict(frozen=True)

    kind: FindingKind
    """What was done. Stable: programs may rely on it."""
    first_id: int | None
    """The first entry's id; null for the balance's row, and for a row without id."""
    last_id: int | None
    """The last entry's id; `first_id` if there is one entry."""
    position: int | None
    """Where the first entry stands, counted from 1; null if no row stands there."""
    detail: str
    """What the kind means."""

    @classmethod
    def of(
        cls,
        kind: FindingKind,
        first: int | None = None,
        last: int | None = None,
        at: int | None = None,
    ) -> "Finding":
        """A finding about the entries from `first` to `last`, of which the first stands `at` a
        position."""
        last_id = first if last is None else last
        return cls(kind=kind, first_id=first, last_id=last_id, position=at, detail=MEANING[kind])


def merged(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Findings in the order of ids, those without an id last; neighbours of a kind become a single
    finding."""
    last: Finding | None = None
    for finding in sorted(
        findings, key=lambda finding: (finding.first_id or inf, finding.position or 0)
    ):
        if last and _continues(finding, last):
            last = last.model_copy(update={"last_id": finding.last_id})
            continue
        if last:
            yield last
        last = finding
    if last:
        yield last


def _continues(finding: Finding, last: Finding) -> bool:
    """Whether a finding is of the same kind, and of the next ids in the next positions."""
    if (
        finding.kind is not last.kind
        or last.last_id is None
        or finding.first_id != last.last_id + 1
    ):
        return False
    length = last.last_id + 1 - (last.first_id or 0)
    return (finding.position or 0) - (last.position or 0) == length
