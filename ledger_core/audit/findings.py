"""What an audit can find: values that do not add up, and what was done, each with a stable name and its meaning."""

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from math import inf

from pydantic import BaseModel, ConfigDict

__all__ = ["MEANING", "Discrepancy", "Finding", "FindingKind", "merged"]


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
    FindingKind.CHANGED: "Not what its hash was made of, or no entry, or its time is spelt otherwise; or the next "
    "entry has another hash of it, and one of the two was made anew.",
    FindingKind.DELETED: "Not there, while entries after it are.",
    FindingKind.INSERTED: "Not of the chain, which goes on without it. At the end: or the balance's row was set back.",
    FindingKind.DUPLICATED: "The same entry, with the same hash, stands elsewhere too.",
    FindingKind.REORDERED: "Of the chain, but not in its place.",
    FindingKind.REWRITTEN: "Its hash is right and it contradicts the entry before it: it was made with its hash.",
    FindingKind.TAIL_CUT: "Counted in the balance's row and not there: cut off, or all written anew with fewer. Of an "
    "export: or its file was cut off at the end of a line.",
    FindingKind.BALANCE_EDITED: "The entries are in order, and the balance's row says otherwise, or is none.",
    FindingKind.HEAD_DIFFERS: "The last entry is not the one that the balance's row has the hash of: one or the other "
    "was edited, or all written anew.",
    FindingKind.CONTRADICTS_RECEIPT: "Not what the receipt says: rewritten, cut or set back since it was signed.",
    FindingKind.UNKNOWN_FORMAT: "Has a field that this version does not know, so it cannot judge it, nor what follows. "
    "A newer version may; this says nothing of tampering.",
}


class Discrepancy(BaseModel):
    """One thing that does not add up: a field of an entry, or of the head where `entry_id` is null, or a receipt."""

    model_config = ConfigDict(frozen=True)

    entry_id: int | None
    field: str
    expected: int | str | None
    found: int | str | None


class Finding(BaseModel):
    """What was done to the entries `first_id` to `last_id`; both are null for the balance's row, and what has no id.

    `position` is where the first of them stands, counted from 1; null for what does not stand there.
    """

    model_config = ConfigDict(frozen=True)

    kind: FindingKind
    first_id: int | None
    last_id: int | None
    position: int | None
    detail: str

    @classmethod
    def of(
        cls, kind: FindingKind, first: int | None = None, last: int | None = None, at: int | None = None
    ) -> "Finding":
        """With what it means."""
        last_id = first if last is None else last
        return cls(kind=kind, first_id=first, last_id=last_id, position=at, detail=MEANING[kind])


def merged(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Findings in the order of ids, those of the head last; neighbours of one kind as one."""
    last: Finding | None = None
    for one in sorted(findings, key=lambda one: (one.first_id or inf, one.position or 0)):
        if last and last.kind is one.kind and last.last_id is not None and last.last_id + 1 == one.first_id:
            length = one.first_id - (last.first_id or 0)
            if (last.position or 0) + (length if last.position else 0) == (one.position or 0):
                last = last.model_copy(update={"last_id": one.last_id})
                continue
        if last:
            yield last
        last = one
    if last:
        yield last
