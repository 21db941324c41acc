"""The chain of a ledger that does not add up: the entries that a walk back from the head's hash
finds."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from sys import intern
from typing import NamedTuple, Self

from ledger_core.account import GENESIS_HASH
from ledger_core.dynamodb import StoredHead
from ledger_core.models import LedgerEntry

__all__ = ["Chain", "Link", "Step", "walk_back"]

_Content = tuple[str, str, bool]


class Link(NamedTuple):
    """A readable entry, reduced to what shows its place in the chain."""

    position: int
    """Where it stands among the rows, counted from 1."""
    id: int
    account: str
    """The key of its account."""
    amount: int
    balance_after: int
    created_at: datetime
    prev_hash: str
    hash: str
    computed_hash: str
    is_exact: bool
    """Whether its times are spelt as they were written."""

    @classmethod
    def of(cls, position: int, entry: LedgerEntry, computed_hash: str, *, is_exact: bool) -> Self:
        """The link of an entry. Equal hashes share their memory."""
        return cls(
            position,
            entry.id,
            intern(entry.account_key),
            entry.amount,
            entry.balance_after,
            entry.created_at,
            intern(entry.prev_hash),
            intern(entry.hash),
            intern(computed_hash),
            is_exact,
        )

    @property
    def is_intact(self) -> bool:
        """Whether the entry is what its hash was made of."""
        return self.is_exact and self.hash == self.computed_hash

    @property
    def content(self) -> _Content:
        """What the copies of one entry have in common."""
        return self.hash, self.computed_hash, self.is_exact


class Step(NamedTuple):
    """An entry of the chain."""

    link: Link
    number: int
    """Its number in the chain: its id, unless the id was changed."""
    is_linked: bool
    """Whether it has the hash of the entry before it, or of the beginning."""


class Chain(NamedTuple):
    """The entries that a walk finds, oldest first."""

    steps: Sequence[Step]
    is_named: bool
    """Whether the head has the hash of the last entry."""


def walk_back(head: StoredHead | None, links: Sequence[Link]) -> Chain:
    """Go back from the head's hash to the beginning.

    Where no entry has the hash that is looked for, the walk goes on with the entry with the highest
    id below. Where the head has the hash of no entry, or is unknown, the walk begins with the entry
    that is most likely the last.
    """
    index = _Index(links)
    entry_count = head.entry_count if head else None
    named = _named_by(head, index) if head else None
    link = named or index.likely_last(entry_count)
    number = link.id if link else 0
    if named and entry_count is not None and not (named.is_intact or index.follows(named)):
        number = entry_count  # the id was changed, or the link
    steps: list[Step] = []
    walked: set[_Content] = set()
    while link:
        walked.add(link.content)
        is_first = link.prev_hash == GENESIS_HASH and (link.is_intact or number == 1)
        before = None if is_first else _before(link, number, index, walked)
        steps.append(Step(link, number, is_linked=is_first or before is not None))
        if before:
            number = before.id if before.is_intact else number - 1
        elif not is_first and (before := index.take_below(number, walked)):
            number = before.id
        link = before
    is_empty = not links and head is not None and head.head_hash == GENESIS_HASH
    return Chain(_in_place(reversed(steps), index), is_named=is_empty or named is not None)


def _named_by(head: StoredHead, index: "_Index") -> Link | None:
    """The entry whose hash the head has."""
    named = index.of_hash(head.head_hash)
    if named and named.id != head.entry_count and index.is_continued(named):
        return None  # the last neither by its links nor by the count: the head's hash was edited
    return named


def _before(link: Link, number: int, index: "_Index", walked: set[_Content]) -> Link | None:
    """The entry whose hash an entry has."""
    before = index.of_hash(link.prev_hash)
    if before is None or before.content in walked:
        return None
    # A changed entry's link counts only if it leads to the right id: the link may be what was
    # changed.
    return before if link.is_intact or before.id == number - 1 else None


def _in_place(steps: Iterator[Step], index: "_Index") -> list[Step]:
    """The same steps with the copy of each entry that stands in its place, and with numbers that go
    up."""
    chain: list[Step] = []
    number = 0
    position = 0
    for step in steps:
        link = index.copy_after(step.link, position)
        number = max(number + 1, step.number)
        position = max(position, link.position)
        chain.append(step._replace(link=link, number=number))
    return chain


class _Index:
    """Finds entries by their hashes and, where no hash leads on, by their ids."""

    def __init__(self, links: Sequence[Link]) -> None:
        self._by_hash: dict[str, Link] = {}
        self._copies: dict[_Content, list[Link]] = {}
        for link in links:
            self._copies.setdefault(link.content, []).append(link)
            for text in (link.hash, link.computed_hash):
                known = self._by_hash.setdefault(text, link)
                if link.is_intact and not known.is_intact:
                    self._by_hash[text] = link
        self._places = {
            (text, link.id) for link in links for text in (link.hash, link.computed_hash)
        }
        self._continued = {link.prev_hash for link in links}
        self._by_id = sorted(links, key=self._rank)

    def of_hash(self, text: str | None) -> Link | None:
        """The entry of this hash; an intact entry rather than a changed entry."""
        return self._by_hash.get(text) if text is not None else None

    def copy_after(self, link: Link, position: int) -> Link:
        """The first copy of an entry after a position, or the first of all."""
        copies = self._copies[link.content]
        return next((copy for copy in copies if copy.position > position), copies[0])

    def is_continued(self, link: Link) -> bool:
        """Whether an entry follows from this entry."""
        return link.hash in self._continued

    def follows(self, link: Link) -> bool:
        """Whether an entry has the right id after the entry whose hash it has."""
        if link.prev_hash == GENESIS_HASH:
            return link.id == 1
        return (link.prev_hash, link.id - 1) in self._places

    def likely_last(self, entry_count: int | None) -> Link | None:
        """The entry that is most likely the last, where the head has the hash of no entry."""
        links = self._by_id
        if entry_count is not None:
            links = [link for link in links if link.id <= entry_count or self.follows(link)]

        def rank(link: Link) -> tuple[object, ...]:
            is_counted = link.id == entry_count and not self.is_continued(link)
            return is_counted, self.follows(link), *self._rank(link)

        return max(links, key=rank, default=None)

    def take_below(self, number: int, walked: set[_Content]) -> Link | None:
        """The entry with the highest id below a number. Drops what a walk has passed."""
        links = self._by_id
        while links and (links[-1].id >= number or links[-1].content in walked):
            links.pop()
        return links[-1] if links else None

    def _rank(self, link: Link) -> tuple[int, bool, bool, int]:
        return link.id, self.follows(link), link.is_intact, -link.position
