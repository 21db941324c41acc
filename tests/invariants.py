"""The invariants of every ledger, in spite of races, failures and crashes: a function each.

An invariant reads a `Book`, which is an account as it is stored, and the `Answer`s of the requests
about that account. It yields each contradiction. `violations` runs all invariants.
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
    """The nonce was used before; the answer holds the original entry."""
    REFUSED = "refused"
    """The ledger stored no entry."""
    IN_DOUBT = "in doubt"
    """A 503, or no answer at all."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A client's request and its answer, with the times of both by the same clock."""

    request: OperationRequest
    outcome: Outcome
    entry: LedgerEntry | None = None
    replay: bool | None = None
    """For a duplicate: whether the request is the same as the accepted one."""
    balance: int | None = None
    required: int | None = None
    """For a refusal by the balance: the balance, and the credits that the request needs."""
    begun: float = -math.inf
    ended: float = math.inf
    unit: str = CREDIT
    app: str | None = None
    """The unit of the operation, and the app that got the request."""

    @property
    def account_key(self) -> str:
        """The key of the account that the request is about."""
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
        """Post a request by `OperationProcessor.process`, or by the function under test."""
        begun = now()
        result: dict[str, Any]
        try:
            result = {"outcome": Outcome.ACCEPTED, "entry": process(request)}
        except DuplicateNonceError as error:
            result = {"outcome": Outcome.DUPLICATE, "entry": error.entry, "replay": error.replay}
        except InsufficientBalanceError as error:
            result = {
                "outcome": Outcome.REFUSED,
                "balance": error.balance,
                "required": error.required,
            }
        except (ContentionError, UnavailableError):
            result = {"outcome": Outcome.IN_DOUBT}
        except LedgerError:
            result = {"outcome": Outcome.REFUSED}
        return cls(request=request, begun=begun, ended=now(), unit=unit, app=app, **result)

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
        """Read an HTTP answer.

        Args:
            request: the request.
            status: the status; None if no answer came.
            body: the body.
            replayed: whether the answer has the header `Idempotency-Replayed`.
            begun: the time of the request.
            ended: the time of the answer.
        """
        result: dict[str, Any] = {"outcome": Outcome.REFUSED}
        if status is None or status >= 500 or status == 429:
            result = {"outcome": Outcome.IN_DOUBT}
        elif status == 200:
            result = {
                "outcome": Outcome.DUPLICATE if replayed else Outcome.ACCEPTED,
                "entry": LedgerEntry(**body),
            }
        elif body.get("code") == "duplicate_nonce":
            result = {
                "outcome": Outcome.DUPLICATE,
                "entry": LedgerEntry(**body["entry"]),
                "replay": body["replay"],
            }
        elif body.get("code") == "insufficient_balance":
            result |= {"balance": body["balance"], "required": body["required"]}
        return cls(request=request, begun=begun, ended=ended, **result)


@dataclass(frozen=True)
class Book:
    """An account as it is stored, and its entries as the index orders them, the oldest first."""

    head: Account
    """The account. A book that is read by HTTP lacks `created_at` and `active_at`."""
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
    """The balance is the sum of the entries, and each entry has the sum up to it."""
    sums = list(accumulate(entry.amount for entry in book.entries))
    total = sums[-1] if sums else 0
    if book.head.balance != total:
        yield f"the balance is {book.head.balance}, the entries' sum {total}"
    for entry, after in zip(book.entries, sums, strict=True):
        if entry.balance_after != after:
            yield f"entry {entry.id} says {entry.balance_after}, the sum so far is {after}"


def no_overdraft(book: Book, answers: Sequence[Answer]) -> Iterator[str]:
    """A balance is never below zero."""
    sums = accumulate(entry.amount for entry in book.entries)
    for entry, after in zip(book.entries, sums, strict=True):
        if after < 0 or entry.balance_after < 0:
            yield f"after entry {entry.id} the balance is {min(after, entry.balance_after)}"
    if book.head.balance < 0:
        yield f"the balance is {book.head.balance}"


def exactly_once(book: Book, answers: Sequence[Answer]) -> Iterator[str]:
    """A nonce has one entry, and one answer that accepts it."""
    stored = Counter(entry.stored_nonce for entry in book.entries)
    for nonce, times in stored.items():
        if times > 1:
            yield f"{times} entries under the nonce {nonce}"
    accepted = Counter(answer.nonce for answer in answers if answer.outcome is Outcome.ACCEPTED)
    for nonce, times in accepted.items():
        if times > 1:
            yield f"{nonce} was accepted {times} times"


def gapless_ids(book: Book, answers: Sequence[Answer]) -> Iterator[str]:
    """The ids count 1, 2, 3 and so on, and the account counts the entries."""
    ids = [entry.id for entry in book.entries]
    if ids != list(range(1, len(ids) + 1)):
        yield f"the ids are {ids}"
    if book.head.entry_count != len(ids):
        yield f"the head counts {book.head.entry_count} of {len(ids)} entries"


def increasing_time(book: Book, answers: Sequence[Answer]) -> Iterator[str]:
    """Each entry is later than the entry before it, also if a writer's clock is wrong."""
    for before, after in pairwise(sorted(book.entries, key=lambda entry: entry.id)):
        if before.created_at >= after.created_at:
            yield (
                f"entry {after.id} is of {after.created_at}, "
                f"entry {before.id} of {before.created_at}"
            )


def chain_unbroken(book: Book, answers: Sequence[Answer]) -> Iterator[str]:
    """Each entry has its own hash and the hash of the entry before it."""
    known = GENESIS_HASH
    for entry in book.entries:
        if entry.prev_hash != known:
            yield f"entry {entry.id} does not follow the entry before it"
        if entry.hash != entry.computed_hash():
            yield f"entry {entry.id} has not the hash of its fields"
        known = entry.hash


def head_is_last_entry(book: Book, answers: Sequence[Answer]) -> Iterator[str]:
    """The account fits its entries: the last entry, the first time and the owner's last time."""
    account = book.head
    beginning = Head(owner_id=account.owner_id, unit=account.unit)
    last = Head.at(book.entries[-1]) if book.entries else beginning
    if account.head != last:
        yield f"the head is {account.head}, after the last entry it is {last}"
    first_times = [entry.created_at for entry in book.entries[:1]]
    if account.created_at and account.created_at not in first_times:
        yield f"the account was opened at {account.created_at}, which is not its first entry's time"
    posted = [
        entry.created_at
        for entry in book.entries
        if not entry.stored_nonce.startswith(NONCE_PREFIX_RESERVED)
    ]
    if account.active_at and posted and account.active_at < max(posted):
        yield (
            f"the owner was active at {account.active_at}, "
            f"and the last entry of a caller is of {max(posted)}"
        )


def acknowledged_is_stored(book: Book, answers: Sequence[Answer]) -> Iterator[str]:
    """The ledger stores each accepted entry as requested, and no entry without a request."""
    stored = {entry.stored_nonce: entry for entry in book.entries}
    for answer in answers:
        if answer.outcome is Outcome.ACCEPTED:
            if answer.entry is None or stored.get(answer.nonce) != answer.entry:
                yield f"{answer.nonce} was accepted, and is not stored as the answer says"
            elif not _fits_request(answer.entry, answer):
                yield f"{answer.nonce} is stored, and not as the request says"
    requested = {answer.nonce for answer in answers}
    for nonce in stored:
        if answers and nonce not in requested and not nonce.startswith(NONCE_PREFIX_RESERVED):
            yield f"no client requested {nonce}"


def refused_is_not_stored(book: Book, answers: Sequence[Answer]) -> Iterator[str]:
    """A refused request has no entry then, and a used nonce is never refused for the balance."""
    stored = {entry.stored_nonce: entry for entry in book.entries}
    windows = _Windows(answers)
    outcomes = defaultdict(set)
    for answer in answers:
        outcomes[answer.nonce].add(answer.outcome)
    for answer in answers:
        entry = stored.get(answer.nonce)
        if answer.outcome is not Outcome.REFUSED or not entry:
            continue
        if answer.balance is None and not _fits_request(entry, answer):
            continue
        last = min(windows.most(answer, len(book.entries)), entry.id - 1)
        counts = range(windows.least(answer), last + 1)
        is_possible = any(_may_refuse(answer, book, count) for count in counts)
        if outcomes[answer.nonce] == {Outcome.REFUSED} or not is_possible:
            yield f"{answer.nonce} was refused, and entry {entry.id} was stored already"


def replay_answers_the_original(book: Book, answers: Sequence[Answer]) -> Iterator[str]:
    """A repeated nonce gets its stored entry, and whether the request is the same."""
    stored = {entry.stored_nonce: entry for entry in book.entries}
    for answer in answers:
        if answer.outcome is not Outcome.DUPLICATE:
            continue
        original = stored.get(answer.nonce)
        if original is None or answer.entry != original:
            yield f"the answer to {answer.nonce} holds another entry than the one of this nonce"
            continue
        is_same = _fits_request(original, answer)
        if answer.replay and not is_same:
            yield f"{answer.nonce} was answered as the same request, which it is not"
        elif answer.replay is False and answer.request.amount is not None and is_same:
            yield f"{answer.nonce} was answered as another request, but is the same"


def own_is_no_duplicate(book: Book, answers: Sequence[Answer]) -> Iterator[str]:
    """The first request of a nonce is not answered as a duplicate."""
    begun = defaultdict(list)
    for answer in answers:
        begun[answer.nonce].append(answer.begun)
    for answer in answers:
        if answer.outcome is Outcome.DUPLICATE:
            earlier = sum(time <= answer.ended for time in begun[answer.nonce])
            if earlier < 2:
                yield f"{answer.nonce} was answered as a duplicate, and it was the first request"


def one_order(book: Book, answers: Sequence[Answer]) -> Iterator[str]:
    """Linearizability: in the order of the ids each answer is right, and later requests come later.

    Each answer takes its earliest possible place. If it fits nowhere, no other order helps.
    """
    stored = {entry.stored_nonce: entry.id for entry in book.entries}
    # The end of each answer, and the number of entries at its place.
    placed: list[tuple[float, int]] = []
    known = 0
    requested = set[str]()
    for answer in sorted(answers, key=lambda answer: answer.begun):
        while placed and placed[0][0] < answer.begun:
            known = max(known, heappop(placed)[1])
        nonce = answer.nonce
        place = known
        is_new = answer.outcome is Outcome.ACCEPTED or nonce not in requested
        requested.add(nonce)
        if is_new and stored.get(nonce, math.inf) <= known:
            yield f"{nonce} is entry {stored[nonce]}, but was requested after entry {known}"
        elif answer.entry:
            place = max(known, answer.entry.id)
        elif answer.outcome is Outcome.REFUSED:
            counts = range(known, len(book.entries) + 1)
            place = next((count for count in counts if _may_refuse(answer, book, count)), -1)
            if place < 0:
                yield (
                    f"{nonce} was refused for a balance of {answer.balance}, "
                    f"which the account never had from entry {known} on"
                )
        heappush(placed, (answer.ended, place))


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
    """An invariant that an account breaks, and the reason."""

    invariant: str
    account: str
    what: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.account}: {self.what}"


def violations(book: Book, answers: Iterable[Answer] = ()) -> list[Violation]:
    """All contradictions to the invariants; `answers` about other accounts are left out."""
    of_account = [answer for answer in answers if answer.account_key == book.head.key]
    return [
        Violation(invariant.__name__, book.head.key, what)
        for invariant in INVARIANTS
        for what in invariant(book, of_account)
    ]


def check(book: Book, answers: Iterable[Answer] = ()) -> None:
    """Fail if an invariant does not hold."""
    if found := violations(book, answers):
        raise AssertionError("\n".join(map(str, found)))


class _Windows:
    """The least and the most entries that the account had during an answer, by other answers."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        ended = sorted((answer.ended, answer.entry.id) for answer in answers if answer.entry)
        # Only an accepted entry certainly did not exist before its request.
        begun = sorted(
            (answer.begun, answer.entry.id)
            for answer in answers
            if answer.entry and answer.outcome is Outcome.ACCEPTED
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


def _may_refuse(refused: Answer, book: Book, count: int) -> bool:
    """Whether a refusal is right when the account has `count` entries."""
    if refused.balance is None:
        return True
    balance = book.entries[count - 1].balance_after if 0 < count <= len(book.entries) else 0
    return refused.balance == balance and (refused.required is None or refused.required > balance)


def _fits_request(entry: LedgerEntry, answer: Answer) -> bool:
    """Whether an entry has the fields of the request; without an amount only the app knows it."""
    request = answer.request
    if request.amount is not None and abs(entry.amount) != request.amount:
        return False
    return (
        entry.key == entry_key(answer.account_key, answer.nonce)
        and entry.operation == request.operation
        and entry.app == answer.app
        and entry.metadata == request.metadata
    )
