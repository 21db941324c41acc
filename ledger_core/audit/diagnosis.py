"""What was done to a ledger that does not add up, and where.

Every entry has the hash of the entry before it, and the head has the hash of the last entry. A walk
from the head's hash back to the beginning therefore finds the chain. An entry off the chain is
inserted or duplicated. An entry of the chain that stands elsewhere is reordered. A link that leads
nowhere shows what is deleted or changed.

Some evidence fits several stories. A finding then says what is certain, and MEANING tells the
stories.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ledger_core.account import Head
from ledger_core.audit.findings import Finding, FindingKind, merged
from ledger_core.audit.walk import Chain, Link, Step, walk_back
from ledger_core.dynamodb import StoredHead

__all__ = ["diagnose"]


def diagnose(
    beginning: Head, head: StoredHead | None, rows: Sequence[Link | None]
) -> list[Finding]:
    """Say what was done to a ledger that does not add up.

    Args:
        beginning: the head of the account before its first entry.
        head: the row of the accounts table; None if the rows may end before the last entry.
        rows: the link of each row; None for a row that is no entry.
    """
    chain = walk_back(head, [link for link in rows if link])
    return list(merged(_Diagnosis(beginning, head, chain, rows).findings()))


class _Diagnosis:
    """Compares the rows with the chain."""

    def __init__(
        self, beginning: Head, head: StoredHead | None, chain: Chain, rows: Sequence[Link | None]
    ) -> None:
        self._beginning = beginning
        self._account = beginning.key
        self._head = head
        self._steps = chain.steps
        self._is_named = chain.is_named
        self._rows = rows
        self._numbers = {step.link.position: step.number for step in chain.steps}
        self._copies: list[Link] = []
        self._strays: dict[int, Link | None] = {}
        """The other rows off the chain, by position."""
        self._misplaced: dict[int, Link] = {}
        """The entries of the chain that stand elsewhere, by position."""
        self._remains: dict[int, deque[int]] = {}
        """Strays that may be all that is left of an entry, by the position of the entry that they
        stand behind."""

    def findings(self) -> Iterator[Finding]:
        """All findings, in any order."""
        self._find_strays()
        self._find_misplaced()
        self._find_remains()
        for link in self._misplaced.values():
            yield Finding.of(FindingKind.REORDERED, link.id, at=link.position)
        anchor = 0
        before: Step | None = None
        for step in self._steps:
            yield from self._compare(step, before, anchor)
            before = step
            if step.link.position not in self._misplaced:
                anchor = step.link.position
        yield from self._compare_head(before, anchor)
        for copy in self._copies:
            yield Finding.of(FindingKind.DUPLICATED, copy.id, at=copy.position)
        for position, stray in self._strays.items():
            yield Finding.of(FindingKind.INSERTED, stray.id if stray else None, at=position)

    def _find_strays(self) -> None:
        known = {(step.link.hash, step.link.id) for step in self._steps}
        for position, link in enumerate(self._rows, start=1):
            if position in self._numbers:
                continue
            if link and (link.hash, link.id) in known:
                self._copies.append(link)
                continue
            self._strays[position] = link
            if link and link.is_intact:
                known.add((link.hash, link.id))

    def _find_misplaced(self) -> None:
        """Find what is out of order.

        A single row that skips entries is misplaced. Two or more rows that skip entries together
        are not: what they skip is misplaced.
        """
        awaited = deque(self._numbers.values())
        seen: set[int] = set()
        passed = 0
        for run in self._runs():
            while awaited and (awaited[0] <= passed or awaited[0] in seen):
                awaited.popleft()
            skips = bool(awaited) and awaited[0] < self._number_of(run[0])
            is_alone = skips and len(run) == 1
            chained = [link for link in run if link.position in self._numbers]
            for link in chained:
                seen.add(self._number_of(link))
                if is_alone or self._number_of(link) <= passed:
                    self._misplaced[link.position] = link
            if is_alone:
                continue
            for link in chained or (run if skips else ()):
                passed = max(passed, self._number_of(link))

    def _runs(self) -> Iterator[list[Link]]:
        """Entries that stand together and whose numbers count up, without copies."""
        run: list[Link] = []
        for position, link in enumerate(self._rows, start=1):
            if link is None or not (position in self._numbers or position in self._strays):
                continue
            if run and self._number_of(link) != self._number_of(run[-1]) + 1:
                yield run
                run = []
            run.append(link)
        if run:
            yield run

    def _number_of(self, link: Link) -> int:
        return self._numbers.get(link.position, link.id)

    def _find_remains(self) -> None:
        anchor = 0
        for position, link in enumerate(self._rows, start=1):
            if position in self._numbers and position not in self._misplaced:
                anchor = position
            elif position in self._strays and not (link and link.is_intact):
                self._remains.setdefault(anchor, deque()).append(position)

    def _compare(self, step: Step, before: Step | None, anchor: int) -> Iterator[Finding]:
        """Compare an entry of the chain with the entry before it."""
        link = step.link
        first_id = before.number + 1 if before else 1
        if first_id < step.number:
            yield from self._missing(first_id, step.number - 1, anchor, FindingKind.DELETED)
        if not link.is_intact:
            yield Finding.of(FindingKind.CHANGED, link.id, at=link.position)
        elif not self._is_lawful(step, before):
            yield Finding.of(FindingKind.REWRITTEN, link.id, at=link.position)
        elif not step.is_linked and first_id == step.number and before and before.link.is_intact:
            yield Finding.of(FindingKind.CHANGED, before.link.id, at=before.link.position)

    def _is_lawful(self, step: Step, before: Step | None) -> bool:
        """Whether the ledger would have written an intact entry after the entry before it."""
        link = step.link
        if link.account != self._account or link.balance_after < 0:
            return False
        if not step.is_linked:
            return before is not None or step.number > 1
        if before is None:
            return link.id == 1 and link.balance_after == link.amount
        if link.id != before.number + 1:
            return False
        last = before.link
        if not last.is_intact:
            return True
        return (
            link.balance_after == last.balance_after + link.amount
            and link.created_at > last.created_at
        )

    def _missing(
        self, first_id: int, last_id: int, anchor: int, kind: FindingKind
    ) -> Iterator[Finding]:
        """Name missing entries. Each of the strays behind the anchor may be what is left of an
        entry."""
        remains = self._remains.get(anchor, deque())
        while remains and first_id <= last_id:
            position = remains.popleft()
            link = self._strays.pop(position)
            yield Finding.of(FindingKind.CHANGED, link.id if link else first_id, at=position)
            first_id += 1
            kind = FindingKind.DELETED
        if first_id <= last_id:
            yield Finding.of(kind, first_id, last_id)

    def _compare_head(self, last: Step | None, anchor: int) -> Iterator[Finding]:
        """Compare the head with the last entry of the chain."""
        head = self._head
        number = last.number if last else 0
        entry_count = head.entry_count if head else None
        if entry_count is None:
            entry_count = number + len(self._remains.get(anchor, ()))
        is_cut = number < entry_count and not self._is_named
        if is_cut:
            yield from self._missing(number + 1, entry_count, anchor, FindingKind.TAIL_CUT)
        if head is None:
            return
        whole = head.head()
        is_edited = whole is None
        if self._is_named and (last is None or last.link.is_intact):
            is_edited = whole != self._head_after(last)
        elif not (self._is_named or is_cut or head.head_hash is None):
            if number and entry_count:
                yield Finding.of(FindingKind.HEAD_DIFFERS)
            else:
                is_edited = True
        if is_edited:
            yield Finding.of(FindingKind.BALANCE_EDITED)

    def _head_after(self, last: Step | None) -> Head:
        """The head that the last entry left."""
        if last is None:
            return self._beginning
        link = last.link
        return replace(
            self._beginning,
            balance=link.balance_after,
            entry_count=link.id,
            head_hash=link.hash,
            updated_at=link.created_at,
        )
