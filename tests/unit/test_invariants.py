"""The invariants have teeth: each reports what breaks its rule, and is silent about what does not."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest

from ledger_core import LedgerEntry, OperationRequest
from ledger_core.account import Account
from ledger_core.posting import OperationProcessor
from tests.invariants import INVARIANTS, Answer, Book, Outcome, check, violations
from tests.support import NOON, account_after, add, spend

Case = tuple[Book, list[Answer]]
THREADS = 4


def entry(account: Account, request: OperationRequest, amount: int) -> LedgerEntry:
    return account.next_entry(request, amount=amount, now=NOON)


def account_of(*entries: LedgerEntry) -> Account:
    """The account that has these entries."""
    account = NOBODY
    for each in entries:
        account = account.after(each)
    return account


NOBODY = Account(owner_id="ada")
ADD, SPEND, DEAR = add(5, "add"), spend(3, "spend"), spend(9, "dear")
FIRST = entry(NOBODY, ADD, 5)
SECOND = entry(account_of(FIRST), SPEND, -3)


def book(*entries: LedgerEntry) -> Book:
    return Book(account_of(*entries), entries)


def after_first(request: OperationRequest = SPEND, amount: int = -3, **changes: Any) -> Book:
    """A book of two entries, the second made upon an account that is not quite as the first leaves it."""
    return book(FIRST, entry(replace(account_of(FIRST), **changes), request, amount))


def told(
    request: OperationRequest, outcome: Outcome, of: LedgerEntry | None = None, **more: Any
) -> Answer:
    return Answer(request=request, outcome=outcome, entry=of, **more)


GOOD = book(FIRST, SECOND)
ACCEPTED = [
    told(ADD, Outcome.ACCEPTED, FIRST, begun=1, ended=3),
    told(SPEND, Outcome.ACCEPTED, SECOND, begun=2, ended=4),
]
REWARD = SPEND.model_copy(update={"nonce": "ledger:daily-reward:2026-11-22"})
REFUSED = told(DEAR, Outcome.REFUSED, balance=2, required=9, begun=5, ended=6)
IN_DOUBT = [
    told(one.request, Outcome.IN_DOUBT, begun=one.begun, ended=one.ended) for one in ACCEPTED
]
SOONER = told(SPEND, Outcome.DUPLICATE, SECOND, replay=True, begun=0, ended=1)
RIGHT: dict[str, Case] = {
    "nothing": (Book(NOBODY, []), []),
    "without answers": (GOOD, []),
    "read over HTTP": (Book(account_after(SECOND), GOOD.entries), []),
    "each asked for once": (GOOD, ACCEPTED),
    "the other answer ends first": (GOOD, [replace(ACCEPTED[0], ended=9), ACCEPTED[1]]),
    "a duplicate, a refusal": (
        GOOD,
        [*ACCEPTED, told(ADD, Outcome.DUPLICATE, FIRST, replay=True, begun=0, ended=9), REFUSED],
    ),
    "another request under the nonce": (
        GOOD,
        [*ACCEPTED, told(add(6, "add"), Outcome.DUPLICATE, FIRST, replay=False)],
    ),
    "the answer was lost": (GOOD, [ACCEPTED[0], told(SPEND, Outcome.IN_DOUBT)]),
    "refused, then accepted": (
        GOOD,
        [*ACCEPTED, told(SPEND, Outcome.REFUSED, balance=0, required=3, begun=0, ended=1)],
    ),
    "a reward, which no client asks for": (after_first(REWARD, 1), ACCEPTED[:1]),
    "a reward, which is no sign of life": (
        Book(
            replace(after_first(REWARD, 1).head, active_at=FIRST.created_at),
            after_first(REWARD, 1).entries,
        ),
        ACCEPTED[:1],
    ),
    "somebody else's answer": (GOOD, [told(add(1, "n", owner_id="bob"), Outcome.ACCEPTED)]),
}
WRONG: list[tuple[str, Case]] = [
    ("conservation", (after_first(balance=6), [])),
    ("no_overdraft", (after_first(DEAR, -9), [])),
    ("exactly_once", (after_first(ADD, 5), [])),
    ("exactly_once", (GOOD, [*ACCEPTED, ACCEPTED[0]])),
    ("gapless_ids", (after_first(entry_count=2), [])),
    ("gapless_ids", (after_first(entry_count=0), [])),
    ("increasing_time", (after_first(updated_at=None), [])),
    ("chain_unbroken", (after_first(head_hash="0" * 64), [])),
    (
        "chain_unbroken",
        (book(FIRST.model_copy(update={"metadata": {"forged": "yes"}}), SECOND), []),
    ),
    ("head_is_last_entry", (Book(replace(GOOD.head, updated_at=NOON), GOOD.entries), [])),
    ("head_is_last_entry", (Book(replace(GOOD.head, head_hash=FIRST.hash), GOOD.entries), [])),
    (
        "head_is_last_entry",
        (Book(replace(GOOD.head, created_at=SECOND.created_at), GOOD.entries), []),
    ),
    (
        "head_is_last_entry",
        (Book(replace(GOOD.head, active_at=FIRST.created_at), GOOD.entries), []),
    ),
    ("head_is_last_entry", (Book(replace(NOBODY, created_at=NOON), []), [])),
    (
        "acknowledged_is_stored",
        (after_first(SPEND.model_copy(update={"metadata": {"order": "1"}})), ACCEPTED),
    ),
    (
        "acknowledged_is_stored",
        (GOOD, [ACCEPTED[0], replace(ACCEPTED[1], request=spend(2, "spend"))]),
    ),
    ("acknowledged_is_stored", (GOOD, ACCEPTED[:1])),
    ("refused_is_not_stored", (GOOD, [ACCEPTED[0], told(SPEND, Outcome.REFUSED)])),
    ("refused_is_not_stored", (GOOD, [*ACCEPTED, replace(REFUSED, request=SPEND)])),
    (
        "replay_answers_the_original",
        (GOOD, [*ACCEPTED, told(ADD, Outcome.DUPLICATE, SECOND, replay=True)]),
    ),
    (
        "replay_answers_the_original",
        (GOOD, [*ACCEPTED, told(ADD, Outcome.DUPLICATE, FIRST, replay=False)]),
    ),
    (
        "replay_answers_the_original",
        (GOOD, [*ACCEPTED, told(add(6, "add"), Outcome.DUPLICATE, FIRST, replay=True)]),
    ),
    ("one_order", (GOOD, [replace(ACCEPTED[0], begun=5, ended=6), ACCEPTED[1]])),
    (
        "own_is_no_duplicate",
        (GOOD, [ACCEPTED[0], told(SPEND, Outcome.DUPLICATE, SECOND, replay=True)]),
    ),
    (
        "own_is_no_duplicate",
        (GOOD, [ACCEPTED[0], SOONER, told(SPEND, Outcome.IN_DOUBT, begun=2, ended=9)]),
    ),
    ("one_order", (GOOD, [*ACCEPTED, SOONER, told(SPEND, Outcome.IN_DOUBT, begun=0, ended=9)])),
    ("one_order", (GOOD, [*ACCEPTED, replace(REFUSED, balance=5)])),
    ("one_order", (GOOD, [*ACCEPTED, replace(REFUSED, required=2)])),
    ("one_order", (GOOD, [*IN_DOUBT, REFUSED, replace(REFUSED, balance=5, begun=7, ended=8)])),
    ("one_order", (GOOD, [IN_DOUBT[0], replace(IN_DOUBT[1], begun=7, ended=8), REFUSED])),
]


@pytest.mark.parametrize("case", RIGHT.values(), ids=RIGHT)
def test_what_is_right_is_not_reported(case: Case) -> None:
    """No invariant says anything of a ledger that is in order, and of answers that fit it."""
    assert violations(*case) == []
    check(*case)


@pytest.mark.parametrize(("name", "case"), WRONG)
def test_what_is_wrong_is_reported_by_its_rule_alone(name: str, case: Case) -> None:
    """A ledger, or an answer, that breaks one rule is reported under the name of that rule, and no other."""
    assert {found.invariant for found in violations(*case)} == {name}
    with pytest.raises(AssertionError, match=rf"^{name}: ada: "):
        check(*case)


def test_no_rule_is_without_a_case() -> None:
    """Each invariant is seen to report something."""
    assert {name for name, _ in WRONG} == {invariant.__name__ for invariant in INVARIANTS}


History = list[Answer]
Change = Callable[[History], Iterator[History]]


def altered(history: History, one: Answer, **changes: Any) -> History:
    return [replace(one, **changes) if other is one else other for other in history]


def of(history: History, outcome: Outcome) -> History:
    return [one for one in history if one.outcome is outcome]


def two_change_places(history: History) -> Iterator[History]:
    """Two that were accepted, the one after the other, each in the time of the other."""
    for one, other in permutations(of(history, Outcome.ACCEPTED), 2):
        if one.ended < other.begun:
            swapped = altered(history, one, begun=other.begun, ended=other.ended)
            yield altered(swapped, other, begun=one.begun, ended=one.ended)


def begun_later(history: History) -> Iterator[History]:
    """One that was accepted is said to be begun when the next entry had been told of."""
    last = max(one.ended for one in history)
    for one in of(history, Outcome.ACCEPTED):
        if one.entry and any(other.entry and other.entry.id > one.entry.id for other in history):
            yield altered(history, one, begun=last + 1, ended=last + 2)


def ended_before_it_began(history: History) -> Iterator[History]:
    """One that was accepted, or a duplicate, is said to be answered before anything was asked."""
    first = min(one.begun for one in history)
    for one in history:
        if one.entry and (one.entry.id > 1 or one.outcome is Outcome.DUPLICATE):
            yield altered(history, one, begun=first - 2, ended=first - 1)


def refused_for_another_balance(history: History) -> Iterator[History]:
    """A refusal tells of a balance that never was."""
    most = max(one.entry.balance_after for one in history if one.entry)
    for one in of(history, Outcome.REFUSED):
        yield altered(history, one, balance=most + 1, required=most + 2)


def refused_for_an_old_balance(history: History) -> Iterator[History]:
    """A refusal comes at the end, and tells of a balance that was."""
    end = max(one.ended for one in history)
    final = max(
        (one.entry for one in history if one.entry), key=lambda entry: entry.id
    ).balance_after
    for one in of(history, Outcome.REFUSED):
        if one.balance != final:
            yield altered(history, one, begun=end + 1, ended=end + 2)


def refused_what_could_be_paid(history: History) -> Iterator[History]:
    """A refusal tells of a balance that is enough."""
    for one in of(history, Outcome.REFUSED):
        yield altered(history, one, required=one.balance)


@pytest.fixture
def recorded(processor: OperationProcessor) -> Case:
    """What threads were told that raced for one owner: entries, duplicates and refusals."""

    def client(number: int) -> History:
        requests = [
            add(2, f"add-{number}"),
            spend(3, f"spend-{number}"),
            spend(99, f"dear-{number}"),
        ]
        requests += [
            add(2, "shared"),
            spend(1, "shared-spend"),
            add(2, f"add-{number}"),
            add(1, f"more-{number}"),
        ]
        return [Answer.of(request, processor.process) for request in requests]

    with ThreadPoolExecutor(THREADS) as threads:
        history = [one for answers in threads.map(client, range(THREADS)) for one in answers]
    return Book.of(processor.store, "ada"), history


@pytest.mark.parametrize(
    "change",
    [
        two_change_places,
        begun_later,
        ended_before_it_began,
        refused_for_another_balance,
        refused_for_an_old_balance,
        refused_what_could_be_paid,
    ],
)
def test_recorded_race_that_is_altered_is_caught(
    recorded: Case, change: Callable[[History], Iterator[History]]
) -> None:
    """A history of real threads is linearizable; the same with one thing altered is not, wherever it is altered."""
    stored, history = recorded
    check(stored, history)
    changed = list(change(history))
    assert changed
    for false in changed:
        assert "one_order" in {found.invariant for found in violations(stored, false)}
