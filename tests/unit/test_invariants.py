"""Each invariant reports a ledger that breaks its rule, and only such a ledger."""

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
    account = EMPTY
    for following in entries:
        account = account.after(following)
    return account


EMPTY = Account(owner_id="ada")
ADD = add(5, "add")
SPEND = spend(3, "spend")
DEAR = spend(9, "dear")
FIRST = entry(EMPTY, ADD, 5)
SECOND = entry(account_of(FIRST), SPEND, -3)


def book(*entries: LedgerEntry) -> Book:
    return Book(account_of(*entries), entries)


def after_first(request: OperationRequest = SPEND, amount: int = -3, **changes: Any) -> Book:
    """A book of two entries, the second of which is made on a changed account."""
    return book(FIRST, entry(replace(account_of(FIRST), **changes), request, amount))


def answered(
    request: OperationRequest, outcome: Outcome, of: LedgerEntry | None = None, **fields: Any
) -> Answer:
    return Answer(request=request, outcome=outcome, entry=of, **fields)


GOOD = book(FIRST, SECOND)
ACCEPTED = [
    answered(ADD, Outcome.ACCEPTED, FIRST, begun=1, ended=3),
    answered(SPEND, Outcome.ACCEPTED, SECOND, begun=2, ended=4),
]
REWARD = SPEND.model_copy(update={"nonce": "ledger:daily-reward:2026-11-22"})
REFUSED = answered(DEAR, Outcome.REFUSED, balance=2, required=9, begun=5, ended=6)
IN_DOUBT = [
    answered(answer.request, Outcome.IN_DOUBT, begun=answer.begun, ended=answer.ended)
    for answer in ACCEPTED
]
SOONER = answered(SPEND, Outcome.DUPLICATE, SECOND, replay=True, begun=0, ended=1)
RIGHT: dict[str, Case] = {
    "nothing": (Book(EMPTY, []), []),
    "without answers": (GOOD, []),
    "read over HTTP": (Book(account_after(SECOND), GOOD.entries), []),
    "each asked for once": (GOOD, ACCEPTED),
    "the other answer ends first": (GOOD, [replace(ACCEPTED[0], ended=9), ACCEPTED[1]]),
    "a duplicate, a refusal": (
        GOOD,
        [
            *ACCEPTED,
            answered(ADD, Outcome.DUPLICATE, FIRST, replay=True, begun=0, ended=9),
            REFUSED,
        ],
    ),
    "another request under the nonce": (
        GOOD,
        [*ACCEPTED, answered(add(6, "add"), Outcome.DUPLICATE, FIRST, replay=False)],
    ),
    "the answer was lost": (GOOD, [ACCEPTED[0], answered(SPEND, Outcome.IN_DOUBT)]),
    "refused, then accepted": (
        GOOD,
        [*ACCEPTED, answered(SPEND, Outcome.REFUSED, balance=0, required=3, begun=0, ended=1)],
    ),
    "a reward, which no client asks for": (after_first(REWARD, 1), ACCEPTED[:1]),
    "a reward, which does not move active_at": (
        Book(
            replace(after_first(REWARD, 1).head, active_at=FIRST.created_at),
            after_first(REWARD, 1).entries,
        ),
        ACCEPTED[:1],
    ),
    "an answer to another owner": (GOOD, [answered(add(1, "n", owner_id="bob"), Outcome.ACCEPTED)]),
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
    ("head_is_last_entry", (Book(replace(EMPTY, created_at=NOON), []), [])),
    (
        "acknowledged_is_stored",
        (after_first(SPEND.model_copy(update={"metadata": {"order": "1"}})), ACCEPTED),
    ),
    (
        "acknowledged_is_stored",
        (GOOD, [ACCEPTED[0], replace(ACCEPTED[1], request=spend(2, "spend"))]),
    ),
    ("acknowledged_is_stored", (GOOD, ACCEPTED[:1])),
    ("refused_is_not_stored", (GOOD, [ACCEPTED[0], answered(SPEND, Outcome.REFUSED)])),
    ("refused_is_not_stored", (GOOD, [*ACCEPTED, replace(REFUSED, request=SPEND)])),
    (
        "replay_answers_the_original",
        (GOOD, [*ACCEPTED, answered(ADD, Outcome.DUPLICATE, SECOND, replay=True)]),
    ),
    (
        "replay_answers_the_original",
        (GOOD, [*ACCEPTED, answered(ADD, Outcome.DUPLICATE, FIRST, replay=False)]),
    ),
    (
        "replay_answers_the_original",
        (GOOD, [*ACCEPTED, answered(add(6, "add"), Outcome.DUPLICATE, FIRST, replay=True)]),
    ),
    ("one_order", (GOOD, [replace(ACCEPTED[0], begun=5, ended=6), ACCEPTED[1]])),
    (
        "own_is_no_duplicate",
        (GOOD, [ACCEPTED[0], answered(SPEND, Outcome.DUPLICATE, SECOND, replay=True)]),
    ),
    (
        "own_is_no_duplicate",
        (GOOD, [ACCEPTED[0], SOONER, answered(SPEND, Outcome.IN_DOUBT, begun=2, ended=9)]),
    ),
    ("one_order", (GOOD, [*ACCEPTED, SOONER, answered(SPEND, Outcome.IN_DOUBT, begun=0, ended=9)])),
    ("one_order", (GOOD, [*ACCEPTED, replace(REFUSED, balance=5)])),
    ("one_order", (GOOD, [*ACCEPTED, replace(REFUSED, required=2)])),
    ("one_order", (GOOD, [*IN_DOUBT, REFUSED, replace(REFUSED, balance=5, begun=7, ended=8)])),
    ("one_order", (GOOD, [IN_DOUBT[0], replace(IN_DOUBT[1], begun=7, ended=8), REFUSED])),
]


@pytest.mark.parametrize("case", RIGHT.values(), ids=RIGHT)
def test_right_ledger_is_not_reported(case: Case) -> None:
    """No invariant reports a right ledger with answers that fit it."""
    assert violations(*case) == []
    check(*case)


@pytest.mark.parametrize(("name", "case"), WRONG)
def test_wrong_ledger_is_reported_by_its_invariant_alone(name: str, case: Case) -> None:
    """A ledger or an answer that breaks a rule is reported by that rule only."""
    assert {found.invariant for found in violations(*case)} == {name}
    with pytest.raises(AssertionError, match=rf"^{name}: ada: "):
        check(*case)


def test_every_invariant_has_a_case() -> None:
    """Each invariant reports at least one of the cases."""
    assert {name for name, _ in WRONG} == {invariant.__name__ for invariant in INVARIANTS}


History = list[Answer]
Change = Callable[[History], Iterator[History]]


def altered(history: History, answer: Answer, **changes: Any) -> History:
    return [replace(kept, **changes) if kept is answer else kept for kept in history]


def of(history: History, outcome: Outcome) -> History:
    return [answer for answer in history if answer.outcome is outcome]


def two_change_places(history: History) -> Iterator[History]:
    """Two accepted answers, one after the other, swap their times."""
    for first, second in permutations(of(history, Outcome.ACCEPTED), 2):
        if first.ended < second.begun:
            swapped = altered(history, first, begun=second.begun, ended=second.ended)
            yield altered(swapped, second, begun=first.begun, ended=first.ended)


def begun_later(history: History) -> Iterator[History]:
    """An accepted request begins after the answer of a later entry."""
    last = max(answer.ended for answer in history)
    last_id = max(answer.entry.id for answer in history if answer.entry)
    for answer in of(history, Outcome.ACCEPTED):
        if answer.entry and answer.entry.id < last_id:
            yield altered(history, answer, begun=last + 1, ended=last + 2)


def ended_before_it_began(history: History) -> Iterator[History]:
    """An accepted request or a duplicate ends before the first request begins."""
    first = min(answer.begun for answer in history)
    for answer in history:
        if answer.entry and (answer.entry.id > 1 or answer.outcome is Outcome.DUPLICATE):
            yield altered(history, answer, begun=first - 2, ended=first - 1)


def refused_for_another_balance(history: History) -> Iterator[History]:
    """A refusal has a balance that the account never had."""
    most = max(answer.entry.balance_after for answer in history if answer.entry)
    for refusal in of(history, Outcome.REFUSED):
        yield altered(history, refusal, balance=most + 1, required=most + 2)


def refused_for_an_old_balance(history: History) -> Iterator[History]:
    """A refusal at the end has an earlier balance."""
    end = max(answer.ended for answer in history)
    stored = [answer.entry for answer in history if answer.entry]
    final = max(stored, key=lambda entry: entry.id).balance_after
    for refusal in of(history, Outcome.REFUSED):
        if refusal.balance != final:
            yield altered(history, refusal, begun=end + 1, ended=end + 2)


def refused_what_could_be_paid(history: History) -> Iterator[History]:
    """A refusal has a balance that is enough."""
    for refusal in of(history, Outcome.REFUSED):
        yield altered(history, refusal, required=refusal.balance)


@pytest.fixture
def recorded(processor: OperationProcessor) -> Case:
    """The answers of threads that race for an owner: entries, duplicates and refusals."""

    def client(number: int) -> History:
        requests = [
            add(2, f"add-{number}"),
            spend(3, f"spend-{number}"),
            spend(99, f"dear-{number}"),
            add(2, "shared"),
            spend(1, "shared-spend"),
            add(2, f"add-{number}"),
            add(1, f"last-{number}"),
        ]
        return [Answer.of(request, processor.process) for request in requests]

    history: History = []
    with ThreadPoolExecutor(THREADS) as threads:
        for answers in threads.map(client, range(THREADS)):
            history += answers
    return Book.of(processor.store, "ada"), history


@pytest.mark.slow
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
def test_altered_race_is_reported(
    recorded: Case, change: Callable[[History], Iterator[History]]
) -> None:
    """A history of threads is linearizable, and is not after a change of an answer."""
    stored, history = recorded
    check(stored, history)
    changed = list(change(history))
    assert changed
    for false in changed:
        assert "one_order" in {found.invariant for found in violations(stored, false)}
