"""What holds of every ledger, whatever raced, failed or crashed: each invariant a function with a name.

An invariant looks at a `Book`, an owner's ledger as it is stored, and at the `Answer`s that clients were given about
that owner, and yields what contradicts it. `violations` asks them all.
"""

import math
import time
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from heapq import heappop, heappush
from itertools import accumulate, pairwise
from typing import Any, NamedTuple, Self

from ledger_core import (
    ContentionError,
    DuplicateNonceError,
    InsufficientBalanceError,
    LedgerEntry,
    LedgerError,
    OperationRequest,
    UnavailableError,
)
from ledger_core.account import GENESIS_HASH, Account, Head
from ledger_core.dynamodb import KEYS, LedgerStore
from ledger_core.fields import NONCE_PREFIX_RESERVED
from ledger_core.keys import CREDIT, account_key, entry_key, stored_nonce

__all__ = ["INVARIANTS", "Answer", "Book", "Outcome", "Violation", "check", "violations"]


class Outcome(StrEnum):
    """What a client knows of its request."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    """It was accepted before; the answer holds the original."""
    REFUSED = "refused"
    """Nothing is stored, it was told."""
    IN_DOUBT = "in doubt"
    """A 503, or no answer at all."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a client asked for, and what it was told, between two instants of one clock."""

    request: OperationRequest
    outcome: Outcome
    entry: LedgerEntry | None = None
    replay: bool | None = None
    """Of a duplicate: whether the request is the one that was accepted."""
    balance: int | None = None
    required: int | None = None
    """Of a refusal for the balance's sake."""
    begun: float = -math.inf
    ended: float = math.inf
    unit: str = CREDIT
    app: str | None = None
    """The unit of the operation, and the app that was asked."""

    @property
    def account_key(self) -> str:
        """The key of the account that it is about."""
        return account_key(self.request.owner_id, self.unit)

    @property
    def nonce(self) -> str:
        """The nonce as the key of an entry holds it."""
        return stored_nonce(self.request.nonce, self.app)

    @classmethod
    def of(
        cls,
        request: OperationRequest,
        process: Callable[[OperationRequest], LedgerEntry],
        *,
        unit: str = CREDIT,
        app: str | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> Self:
        """Post it by `OperationProcessor.process`, or by what is tested in its place, and note what came of it."""
        begun = now()
        told: dict[str, Any]
        try:
            told = {"outcome": Outcome.ACCEPTED, "entry": process(request)}
        except DuplicateNonceError as error:
            told = {"outcome": Outcome.DUPLICATE, "entry": error.entry, "replay": error.replay}
        except InsufficientBalanceError as error:
            told = {
                "outcome": Outcome.REFUSED,
                "balance": error.balance,
                "required": error.required,
            }
        except (ContentionError, UnavailableError):
            told = {"outcome": Outcome.IN_DOUBT}
        except LedgerError:
            told = {"outcome": Outcome.REFUSED}
        return cls(request=request, begun=begun, ended=now(), unit=unit, app=app, **told)

    @classmethod
    def of_http(
        cls,
        request: OperationRequest,
        status: int | None,
        body: Any = None,
        *,
        replayed: bool = False,
        begun: float = -math.inf,
        ended: float = math.inf,
    ) -> Self:
        """What an HTTP answer to it says; `status` is None when none came, `replayed` is `Idempotency-Replayed`."""
        told: dict[str, Any] = {"outcome": Outcome.REFUSED}
        if status is None or status >= 500 or status == 429:
            told = {"outcome": Outcome.IN_DOUBT}
        elif status == 200:
            told = {
                "outcome": Outcome.DUPLICATE if replayed else Outcome.ACCEPTED,
                "entry": LedgerEntry(**body),
            }
        elif body.get("code") == "duplicate_nonce":
            told = {
                "outcome": Outcome.DUPLICATE,
                "entry": LedgerEntry(**body["entry"]),
                "replay": body["replay"],
            }
        elif body.get("code") == "insufficient_balance":
            told |= {"balance": body["balance"], "required": body["required"]}
        return cls(request=request, begun=begun, ended=ended, **told)


@dataclass(frozen=True)
class Book:
    """An account as it is stored, and its entries as the index orders them, the oldest first."""

    head: Account
    """A book that is read over HTTP leaves `created_at` and `active_at` out."""
    entries: Sequence[LedgerEntry]

    @classmethod
    def of(cls, store: LedgerStore, key: str) -> Self:
        """Read the account of a key. Writers must have ended."""
        rows: list[dict[str, Any]] = []
        start = None
        while True:
            page, start = store.rows(key, until=None, start=start)
            rows += page
            if start is None:
                return cls(store.account(key, consistent=True), [_entry(row) for row in rows])


def _entry(row: dict[str, Any]) -> LedgerEntry:
    """The entry of a row, also under a wrong key."""
    return LedgerEntry(**{name: value for name, value in row.items() if name not in KEYS})


def conservation(book: Book, answers: Sequence[Answer]) -> Iterator[str]:
    """The balance is the sum of the entries, and each entry says what the sum was after it."""
    sums = list(accumulate(entry.amount for entry in book.entries))
    if book.head.balance != (sums or [0])[-1]:
        yield f"the balance is {book.head.balance}, the entries' sum {(sums or [0])[-1]}"
    for entry, after in zip(book.entries, sums, strict=True):
        if entry.balance_after != after:
            yield f"entry {entry.id} says {entry.balance_after}, the sum so far is {after}"


def no_overdraft(book: Book, answers: Sequence[Answer]) -> Iterator[str]:
    """At no time is a balance below zero."""
    for entry, after in zip(
        book.entries, accumulate(entry.amount for entry in book.entries), strict=True
    ):
        if after < 0 or entry.balance_after < 0:
            yield f"after entry {entry.id} the balance is {min(after, entry.balance_after)}"
    if book.head.balance < 0:
        yield f"the balance is {book.head.balance}"


def exactly_once(book: Book, answers: Sequence[Answer]) -> Iterator[str]:
    """An owner has one entry under a nonce, and one client is told that it is new."""
    for nonce, times in Counter(entry.stored_nonce for entry in book.entries).items():
        if times > 1:
            yield f"{times} entries under the nonce {nonce}"
    for nonce, times in Counter(
        one.nonce for one in answers if one.outcome is Outcome.ACCEPTED
    ).items():
        if times > 1:
            yield f"{nonce} was accepted {times} times"


def gapless_ids(book: Book, answers: Sequence[Answer]) -> Iterator[str]:
    """Entries count 1, 2, 3 and so on, and the head has counted them."""
    ids = [entry.id for entry in book.entries]
    if ids != list(range(1, len(ids) + 1)):
        yield f"the ids are {ids}"
    if book.head.entry_count != len(ids):
        yield f"the head counts {book.head.entry_count} of {len(ids)} entries"


def increasing_time(book: Book, answers: Sequence[Answer]) -> Iterator[str]:
    """Each entry is later than the one before it, whatever the writers' clocks say."""
    for before, after in pairwise(sorted(book.entries, key=lambda entry: entry.id)):
        if before.created_at >= after.created_at:
            yield f"entry {after.id} is of {after.created_at}, entry {before.id} of {before.created_at}"


def chain_unbroken(book: Book, answers: Sequence[Answer]) -> Iterator[str]:
    """Each entry has the hash of the one before it, and its own."""
    known = GENESIS_HASH
    for entry in book.entries:
        if entry.prev_hash != known:
            yield f"entry {entry.id} does not follow the entry before it"
        if entry.hash != entry.computed_hash():
            yield f"entry {entry.id} is not what its hash is of"
        known = entry.hash


def head_is_last_entry(book: Book, answers: Sequence[Answer]) -> Iterator[str]:
    """The account's row is what its entries make it: their last one, the first one's time, the owner's last time."""
    account = book.head
    beginning = Head(owner_id=account.owner_id, unit=account.unit)
    last = Head.at(book.entries[-1]) if book.entries else beginning
    if account.head != last:
        yield f"the head is {account.head}, after the last entry it is {last}"
    if account.created_at and account.created_at not in [
        entry.created_at for entry in book.entries[:1]
    ]:
        yield f"the account was opened at {account.created_at}, which is not its first entry's time"
    posted = [
        entry.created_at
        for entry in book.entries
        if not entry.stored_nonce.startswith(NONCE_PREFIX_RESERVED)
    ]
    if account.active_at and posted and account.active_at < max(posted):
        yield f"the owner was active at {account.active_at}, and the last entry of a caller is of {max(posted)}"


def acknowledged_is_stored(book: Book, answers: Sequence[Answer]) -> Iterator[str]:
    """What a client was told is stored, as it asked for; and nothing is stored that nobody asked for."""
    stored = {entry.stored_nonce: entry for entry in book.entries}
    for one in answers:
        if one.outcome is Outcome.ACCEPTED:
            if one.entry is None or stored.get(one.nonce) != one.entry:
                yield f"{one.nonce} was accepted and is not stored as it was told"
            elif not _is_as_asked(one.entry, one):
                yield f"{one.nonce} is stored, and not as it was asked for"
    asked = {one.nonce for one in answers}
    for nonce in stored:
        if answers and nonce not in asked and not nonce.startswith(NONCE_PREFIX_RESERVED):
            yield f"nobody asked for {nonce}"


def refused_is_not_stored(book: Book, answers: Sequence[Answer]) -> Iterator[str]:
    """What was refused was not stored then, though it may have been later; and no balance is told of before a nonce."""
    stored, windows = {entry.stored_nonce: entry for entry in book.entries}, _Windows(answers)
    outcomes = defaultdict(set)
    for one in answers:
        outcomes[one.nonce].add(one.outcome)
    for one in answers:
        entry = stored.get(one.nonce)
        if (
            one.outcome is not Outcome.REFUSED
            or not entry
            or (one.balance is None and not _is_as_asked(entry, one))
        ):
            continue
        ids = range(windows.least(one), min(windows.most(one, len(book.entries)), entry.id - 1) + 1)
        if outcomes[one.nonce] == {Outcome.REFUSED} or not any(
            _may_say(one, book, known) for known in ids
        ):
            yield f"{one.nonce} was refused, and entry {entry.id} was stored already"


def replay_answers_the_original(book: Book, answers: Sequence[Answer]) -> Iterator[str]:
    """Who repeats a nonce is given the entry that is stored under it, and told whether it is what was asked for."""
    stored = {entry.stored_nonce: entry for entry in book.entries}
    for one in answers:
        if one.outcome is Outcome.DUPLICATE:
            original = stored.get(one.nonce)
            if original is None or one.entry != original:
                yield f"{one.nonce} was answered by an entry that is not the one under this nonce"
            elif one.replay and not _is_as_asked(original, one):
                yield f"{one.nonce} was wrongly told that it is the same request"
            elif (
                one.replay is False
                and one.request.amount is not None
                and _is_as_asked(original, one)
            ):
                yield f"{one.nonce} was wrongly told that it is not the same request"


def own_is_no_duplicate(book: Book, answers: Sequence[Answer]) -> Iterator[str]:
    """Who alone has asked so far is not told that it was somebody before."""
    begun = defaultdict(list)
    for one in answers:
        begun[one.nonce].append(one.begun)
    for one in answers:
        if one.outcome is Outcome.DUPLICATE:
            nonce = one.nonce
            if sum(time <= one.ended for time in begun[nonce]) < 2:
                yield f"{nonce} was answered as a duplicate, and nobody else had asked for it"


def one_order(book: Book, answers: Sequence[Answer]) -> Iterator[str]:
    """Linearizability: the ids are an order in which every answer is right, and who asked later comes later.

    Each answer is put where it can be at the earliest. An answer that fits nowhere then would fit nowhere else either.
    """
    stored = {entry.stored_nonce: entry.id for entry in book.entries}
    placed: list[
        tuple[float, int]
    ] = []  # when answers ended, and how many entries there were by then
    known, asked = 0, set[str]()
    for one in sorted(answers, key=lambda one: one.begun):
        while placed and placed[0][0] < one.begun:
            known = max(known, heappop(placed)[1])
        nonce, at = one.nonce, known
        new = one.outcome is Outcome.ACCEPTED or nonce not in asked
        asked.add(nonce)
        if new and stored.get(nonce, math.inf) <= known:
            yield f"{nonce} is entry {stored[nonce]} and was asked for when the ledger had {known} entries already"
        elif one.entry:
            at = max(known, one.entry.id)
        elif one.outcome is Outcome.REFUSED:
            fits = (
                count for count in range(known, len(book.entries) + 1) if _may_say(one, book, count)
            )
            at = next(fits, -1)
            if at < 0:
                yield f"{nonce} was refused for a balance of {one.balance}, which was none from entry {known} on"
        heappush(placed, (one.ended, at))


Invariant = Callable[[Book, Sequence[Answer]], Iterator[str]]

INVARIANTS: Sequence[Invariant] = (
    conservation,
    no_overdraft,
    exactly_once,
    gapless_ids,
    increasing_time,
    chain_unbroken,
    head_is_last_entry,
    acknowledged_is_stored,
    refused_is_not_stored,
    replay_answers_the_original,
    own_is_no_duplicate,
    one_order,
)


class Violation(NamedTuple):
    """An invariant that does not hold, of which account, and why."""

    invariant: str
    account: str
    what: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.account}: {self.what}"


def violations(book: Book, answers: Iterable[Answer] = ()) -> list[Violation]:
    """All that contradicts the invariants; `answers` about other accounts are left out."""
    of_account = [answer for answer in answers if answer.account_key == book.head.key]
    return [
        Violation(invariant.__name__, book.head.key, what)
        for invariant in INVARIANTS
        for what in invariant(book, of_account)
    ]


def check(book: Book, answers: Iterable[Answer] = ()) -> None:
    """Fail unless every invariant holds."""
    if found := violations(book, answers):
        raise AssertionError("\n".join(map(str, found)))


class _Windows:
    """Between which ids a ledger may have stood while an answer was made, by what other clients were told."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        told = [one for one in answers if one.entry is not None]
        ended = sorted((one.ended, one.entry.id) for one in told if one.entry)
        # Only an entry that is new is known not to have been there before it was asked for.
        begun = sorted(
            (one.begun, one.entry.id)
            for one in told
            if one.entry and one.outcome is Outcome.ACCEPTED
        )
        self._ended = [time for time, _ in ended]
        self._stored_by = [0, *accumulate((entry_id for _, entry_id in ended), max)]
        self._begun = [time for time, _ in begun]
        self._new_from = [*accumulate((entry_id for _, entry_id in reversed(begun)), min)][::-1]

    def least(self, answer: Answer) -> int:
        return self._stored_by[bisect_left(self._ended, answer.begun)]

    def most(self, answer: Answer, last: int) -> int:
        later = bisect_right(self._begun, answer.ended)
        return self._new_from[later] - 1 if later < len(self._new_from) else last


def _may_say(refused: Answer, book: Book, known: int) -> bool:
    """Whether a refusal is right of a ledger that has `known` entries."""
    if refused.balance is None:
        return True
    balance = book.entries[known - 1].balance_after if 0 < known <= len(book.entries) else 0
    return refused.balance == balance and (refused.required is None or refused.required > balance)


def _is_as_asked(entry: LedgerEntry, answer: Answer) -> bool:
    """Whether an entry is what was asked for; where no amount is, only the app knows which one was meant."""
    request = answer.request
    return (
        (entry.key, entry.operation, entry.app)
        == (entry_key(answer.account_key, answer.nonce), request.operation, answer.app)
        and entry.metadata == request.metadata
        and (request.amount is None or abs(entry.amount) == request.amount)
    )
