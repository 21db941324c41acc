"""Which rows of a ledger belong together, and so what was done to one that does not add up, and where.

Every entry has the hash of the one before it, so the chain shows what else stands among them; the head says where it
ends. What more than one story explains is named for what is known, and MEANING tells the stories.
"""

from array import array
from dataclasses import dataclass, replace
from itertools import chain

from ledger_core.account import GENESIS_HASH, Head
from ledger_core.audit.findings import Finding, FindingKind, merged
from ledger_core.models import LedgerEntry

__all__ = ["REMEMBERED_MAX", "Chain"]

REMEMBERED_MAX = 65_536
"""Entries whose traces are kept: a copy of one further back is found as inserted, not as duplicated."""


@dataclass(frozen=True, slots=True)
class _Row:
    entry: LedgerEntry
    position: int
    computed: str
    exact: bool

    @property
    def intact(self) -> bool:
        return self.exact and self.entry.hash == self.computed


@dataclass(slots=True)
class _Gap:
    """Entries that are missing."""

    first: int
    last: int

    @property
    def is_open(self) -> bool:
        return self.first <= self.last


class Chain:
    """Follows a ledger from row to row, and keeps only those that are out of place: a row that does not follow is put
    aside, and is of the chain if a later one, or the head, follows from it."""

    def __init__(self, owner_id: str) -> None:
        self._owner_id = owner_id
        self._tip: _Row | None = None  # None at the beginning, and where the chain goes on from what is not there
        self._id, self._links, self._furthest = 0, {GENESIS_HASH}, 0
        self._traces, self._positions = (array("q", bytes(8 * REMEMBERED_MAX)) for _ in range(2))
        self._aside: dict[str, _Row] = {}
        self._last_aside: _Row | None = None
        self._gaps: dict[int, _Gap] = {}  # by the id of its first entry
        self._wanted: dict[str, _Gap] = {}
        self._found, self._unreadable = list[Finding](), list[int]()
        self._doubted: dict[int, list[Finding]] = {}  # by id; forgotten when the entry turns out not to be of the chain

    def add_unreadable(self, position: int) -> None:
        """The next row, which is no entry."""
        self._unreadable.append(position)

    def add(self, position: int, entry: LedgerEntry, computed: str, *, exact: bool = True) -> None:
        """The next row, the hash that its other fields ask for, and whether its times are spelt as they were."""
        row = _Row(entry, position, computed, exact)
        if entry.prev_hash not in self._links:
            if copy := self._remembers(entry.id, entry.hash) or entry.hash in self._aside:
                self._find(FindingKind.DUPLICATED, row)
            if copy or self._fills_gap(row):
                return
            before = self._aside.get(entry.prev_hash) or self._last_aside
            if before and entry.id > self._id and entry.id == before.entry.id + 1:
                self._go_on_from(before)
        if entry.prev_hash in self._links and (entry.id == self._id + 1 or not row.intact):
            self._advance(row)
        else:
            self._aside[entry.hash] = self._last_aside = row

    def findings(self, head: Head) -> list[Finding]:
        """All that was found, once the last row was added."""
        last = (
            self._last_aside if self._last_aside and self._id < head.entry_count == self._last_aside.entry.id else None
        )
        if head.head_hash not in self._links and (last := self._aside.get(head.head_hash, last)):
            self._go_on_from(last)
        by_id = sorted(self._aside.values(), key=lambda row: row.entry.id)
        for row in (*by_id, *reversed(by_id)):
            if row.entry.hash in self._aside and self._fills_gap(row):
                del self._aside[row.entry.hash]
        self._find(FindingKind.INSERTED, *self._aside.values())
        if self._unreadable and head.entry_count > self._id:
            self._miss(head.entry_count, wanted=head.head_hash)
        else:
            self._compare(head)
        self._insert_unreadable()
        gaps = [Finding.of(FindingKind.DELETED, gap.first, gap.last) for gap in self._gaps.values() if gap.is_open]
        return list(merged(chain(self._found, gaps, *self._doubted.values())))

    def _find(self, kind: FindingKind, *rows: _Row) -> None:
        self._found += [Finding.of(kind, row.entry.id, at=row.position) for row in rows]

    def _doubt(self, kind: FindingKind, entry_id: int, row: _Row) -> None:
        self._doubted.setdefault(entry_id, []).append(Finding.of(kind, row.entry.id, at=row.position))

    def _remembers(self, entry_id: int, hash_: str) -> bool:
        """Whether the chain has that entry."""
        if entry_id < 1:
            return entry_id == 0 and hash_ == GENESIS_HASH
        return entry_id <= self._id and self._traces[entry_id % REMEMBERED_MAX] == hash(hash_)

    def _remember(self, entry_id: int, row: _Row) -> None:
        slot = entry_id % REMEMBERED_MAX
        self._traces[slot], self._positions[slot] = hash(row.entry.hash), row.position

    def _advance(self, row: _Row) -> None:
        """The chain goes on with this row."""
        entry = row.entry
        if copy := self._aside.pop(entry.hash, None):
            self._find(FindingKind.DUPLICATED, copy)
        self._insert_unreadable()
        if row.position < self._furthest:
            self._find(FindingKind.REORDERED, row)
        if row.intact and not self._is_lawful(row):
            self._doubt(FindingKind.REWRITTEN, max(entry.id, self._id + 1), row)
            if entry.id > self._id + 1:
                self._miss(entry.id - 1, wanted=entry.prev_hash)
        elif not row.intact:
            self._doubt(FindingKind.CHANGED, self._id + 1, row)
        self._tip, self._id, self._last_aside = row, self._id + 1, None
        self._links, self._furthest = {entry.hash, row.computed}, max(self._furthest, row.position)
        self._remember(self._id, row)

    def _is_lawful(self, row: _Row) -> bool:
        """Whether an intact entry may follow the one before it."""
        entry, before = row.entry, self._tip
        if entry.owner_id != self._owner_id or entry.id != self._id + 1 or entry.balance_after < 0:
            return False
        if before is None or not before.intact:
            return self._id > 0 or entry.balance_after == entry.amount
        is_sum = entry.balance_after == before.entry.balance_after + entry.amount
        return is_sum and entry.created_at > before.entry.created_at

    def _go_on_from(self, row: _Row | None) -> None:
        """The chain goes on with a row that was put aside, and those aside that it follows from."""
        segment: list[_Row] = []
        while row:
            segment.append(self._aside.pop(row.entry.hash))
            row = self._aside.get(row.entry.prev_hash)
        first = segment[-1]
        entry, prev_hash = first.entry, first.entry.prev_hash
        if prev_hash not in self._links:
            branches = [at for at in (entry.id, self._id) if at <= self._id and self._remembers(at - 1, prev_hash)]
            if branches:
                self._found += self._insert_from(branches[0])
            elif entry.id > self._id + 1:
                self._miss(entry.id - 1, wanted=prev_hash)
            elif first.intact and self._tip and entry.id == self._id + 1:
                if self._tip.intact:
                    self._doubt(FindingKind.CHANGED, self._id, self._tip)
            elif first.intact:
                self._doubt(FindingKind.REWRITTEN, self._id + 1, first)
            self._tip, self._links = None, {prev_hash}
        for row in reversed(segment):
            self._advance(row)

    def _insert_from(self, entry_id: int) -> list[Finding]:
        """What was taken for the chain from this entry on is not of it."""
        found, one = list[Finding](), entry_id
        while one <= self._id:
            self._doubted.pop(one, None)
            if (gap := self._gaps.pop(one, None)) and gap.is_open:
                one = gap.last
            else:
                found.append(Finding.of(FindingKind.INSERTED, one, at=self._positions[one % REMEMBERED_MAX]))
            one += 1
        self._id = entry_id - 1
        return found

    def _miss(self, last: int, *, wanted: str) -> None:
        """Entries up to `last` are not there, but that a row that cannot be read stands for each of the first."""
        gap = _Gap(self._id + 1, last)
        while self._unreadable and gap.is_open:
            self._found.append(Finding.of(FindingKind.CHANGED, gap.first, at=self._unreadable.pop(0)))
            gap.first += 1
        self._gaps[gap.first] = self._wanted[wanted] = gap
        self._id = last

    def _fills_gap(self, row: _Row) -> bool:
        """Whether it is one that was missed, as what is before or after the gap says."""
        entry, gap = row.entry, self._wanted.pop(row.entry.hash, None)
        if gap and gap.is_open and gap.last == entry.id:
            gap.last, self._wanted[entry.prev_hash] = gap.last - 1, gap
        elif self._remembers(entry.id - 1, entry.prev_hash) and (gap := self._gaps.pop(entry.id, None)) and gap.is_open:
            gap.first = entry.id + 1
            self._gaps[gap.first] = gap
        else:
            return False
        self._remember(entry.id, row)
        self._find(FindingKind.REORDERED, row)
        if not row.intact:
            self._doubt(FindingKind.CHANGED, entry.id, row)
        return True

    def _insert_unreadable(self) -> None:
        self._found += [Finding.of(FindingKind.INSERTED, at=position) for position in self._unreadable]
        self._unreadable.clear()

    def _compare(self, head: Head) -> None:
        """Say what the head has against the last entry, unless that one is known not to be what it was."""
        tip, count = self._tip, head.entry_count
        if head.head_hash in self._links:
            at_tip = replace(Head.at(tip.entry) if tip else Head(owner_id=""), owner_id=self._owner_id)
            found = [] if at_tip == head or (tip and not tip.intact) else [Finding.of(FindingKind.BALANCE_EDITED)]
        elif count > self._id:
            found = [Finding.of(FindingKind.TAIL_CUT, self._id + 1, count)]
        elif 0 < count < self._id and self._remembers(count, head.head_hash):
            found = self._insert_from(count + 1)
        else:
            found = [Finding.of(FindingKind.HEAD_DIFFERS if self._id and count else FindingKind.BALANCE_EDITED)]
        self._found += found
