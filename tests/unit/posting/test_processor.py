"""The rules of posting: precedence, retries, pauses, deadlines, the state in which a request fails."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from functions.example_app.operations import ExampleAppOperations, ExampleAppOperationType
from ledger_core import (
    ContentionError,
    DuplicateNonceError,
    InsufficientBalanceError,
    InvalidRequestError,
    LedgerEntry,
    LedgerError,
    LedgerOperationType,
    OperationRequest,
    UnavailableError,
    UnknownOperationError,
)
from ledger_core.account import Head, Mark, entry_after
from ledger_core.dynamodb import Cancelled, SystemClock
from ledger_core.errors import RequestState, StoreError
from ledger_core.fields import BALANCE_MAX
from ledger_core.posting import OperationProcessor
from ledger_core.posting.retry import PAUSE_SECONDS_BASE, PAUSE_SECONDS_MAX, PAUSES_MAX
from tests.support import NOON, add, operation, spend

AnyOperation = ExampleAppOperationType | LedgerOperationType
SIGNUP, DAILY = LedgerOperationType.SIGNUP_CREDIT, LedgerOperationType.DAILY_REWARD
SPEND, ADD = LedgerOperationType.CREDIT_SPEND, LedgerOperationType.CREDIT_ADD
CREATE, ACCESS = ExampleAppOperationType.CONTENT_CREATION, ExampleAppOperationType.CONTENT_ACCESS


@pytest.mark.parametrize(
    ("balance", "name", "amount", "code", "balance_after"),
    [
        # balance  operation  amount  answer                  balance after
        (0,        DAILY,     None,   "accepted",             1),
        (0,        SIGNUP,    None,   "accepted",             3),
        (0,        ADD,       None,   "accepted",             10),
        (0,        ADD,       25,     "accepted",             25),
        (0,        ADD,       10**6,  "accepted",             10**6),
        (0,        ADD,       10**6 + 1, "invalid",           0),
        (0,        SIGNUP,    3,      "invalid",              0),
        (0,        DAILY,     1,      "invalid",              0),
        (0,        SPEND,     None,   "insufficient_balance", 0),
        (1,        SPEND,     None,   "accepted",             0),
        (7,        SPEND,     7,      "accepted",             0),
        (7,        SPEND,     8,      "insufficient_balance", 7),
        (4,        CREATE,    None,   "insufficient_balance", 4),
        (5,        CREATE,    None,   "accepted",             0),
        (5,        CREATE,    5,      "invalid",              5),
        (0,        ACCESS,    None,   "accepted",             0),
    ],
)  # fmt: skip
def test_answers(
    processor: OperationProcessor, balance: int, name: AnyOperation, amount: int | None, code: str, balance_after: int
) -> None:
    """The literal table: a balance, a request, the answer, the balance after."""
    if balance:
        processor.process(add(balance, "before"))
    answer = "accepted"
    try:
        processor.process(operation(name, amount=amount))
    except LedgerError as error:
        answer = error.code
    assert answer == code
    assert processor.store.head("ada", consistent=True).balance == balance_after


def test_operation_of_another_app_is_unknown() -> None:
    """What the app did not declare is refused before anything is read, and the message lists what there is."""
    names = ", ".join((*LedgerOperationType, *ExampleAppOperationType))
    with pytest.raises(UnknownOperationError, match=f"^operation: must be one of {names}$") as refusal:
        Bench().processor.config_of("LEVEL_UP")
    assert refusal.value.state == RequestState.VALIDATING


class ScriptedStore:
    """A store that answers as told, call by call, and remembers what it was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.clock = SystemClock()
        self.clock.hold(None, since=0)

    def _answer(self, name: str, **arguments: Any) -> Any:
        self.calls.append((name, arguments))
        answer = self.answers.pop(0)
        if isinstance(answer, LedgerError):
            raise answer
        return answer

    def head(self, owner_id: str, *, consistent: bool) -> Any:
        return self._answer("head", owner_id=owner_id, consistent=consistent)

    def append(self, entries: Sequence[LedgerEntry], *, head: Head, token: str, mark: Mark | None = None) -> Any:
        return self._answer("append", entries=list(entries), head=head, token=token, mark=mark)

    def look_up(self, owner_id: str, nonce: str) -> Any:
        return self._answer("look_up", owner_id=owner_id, nonce=nonce)


class Bench:
    """A processor over a scripted store, in a time that passes only by sleeping; chance is always just below 1."""

    def __init__(self, *answers: Any) -> None:
        self.store = ScriptedStore(*answers)
        self.pauses: list[float] = []
        self.now = NOON
        self.processor = OperationProcessor(
            self.store,  # type: ignore[arg-type]  # stands in
            ExampleAppOperations,
            clock=lambda: self.now,
            monotonic=lambda: sum(self.pauses),
            sleep=self.pauses.append,
            random=lambda: 1.0,
        )

    def appended(self, field: str) -> list[Any]:
        return [arguments[field] for name, arguments in self.store.calls if name == "append"]


NEW = Head(owner_id="ada")


def head(balance: int, entry_count: int) -> Head:
    return Head(
        owner_id="ada", balance=balance, entry_count=entry_count, head_hash=f"{entry_count:064}", updated_at=NOON
    )


def moved(balance: int, entry_count: int, *, contended: bool = False) -> Cancelled:
    return Cancelled(stored=(), head=head(balance, entry_count), contended=contended)


def stored(request: OperationRequest, amount: int) -> LedgerEntry:
    return entry_after(NEW, request, amount=amount, now=NOON)


def test_stale_head_is_recomputed_from_the_reason_without_a_read() -> None:
    """The fresh head in the reason is enough: the entry is made anew on it and sent at once, under a new token."""
    bench = Bench(NEW, moved(7, 3), None)
    entry = bench.processor.process(add(1, "n"))
    assert [name for name, _ in bench.store.calls] == ["head", "append", "append"]
    assert (entry.id, entry.balance_after, entry.prev_hash) == (4, 8, f"{3:064}")
    assert len(set(bench.appended("token"))) == 2
    assert bench.pauses == []


def test_pauses_begin_at_the_second_lost_race_and_grow() -> None:
    """One loss is bad luck; from the second on, writers spread out, and look before they try again."""
    bench = Bench(NEW, moved(0, 1), moved(0, 2), head(0, 3), moved(0, 4), head(0, 5), moved(0, 6), head(0, 7), None)
    assert bench.processor.process(add(1, "n")).id == 8
    assert bench.pauses == [PAUSE_SECONDS_BASE * factor for factor in (1, 2, 4)]
    assert [name for name, _ in bench.store.calls] == ["head", "append", "append", *["head", "append"] * 3]
    assert [asked["consistent"] for name, asked in bench.store.calls if name == "head"] == [False, True, True, True]


def test_conflict_beside_a_stale_head_pauses_before_the_first_resend() -> None:
    """With conflict in the list of reasons even the first resend waits."""
    bench = Bench(NEW, moved(7, 3, contended=True), head(8, 4), None)
    assert bench.processor.process(add(1, "n")).id == 5
    assert len(bench.pauses) == 1


def test_duplicate_takes_precedence_over_a_stale_head() -> None:
    """Both conditions fail: it is a duplicate, and the fresh head is remembered for the next one."""
    original = stored(add(1, "n"), 1)
    bench = Bench(NEW, Cancelled(stored=(original,), head=head(9, 5), contended=True), None)
    with pytest.raises(DuplicateNonceError) as duplicate:
        bench.processor.process(add(1, "n"))
    assert (duplicate.value.entry, duplicate.value.replay) == (original, True)
    assert duplicate.value.state == RequestState.CHECKING_NONCE
    assert bench.processor.process(add(1, "n2")).id == 6
    assert [name for name, _ in bench.store.calls] == ["head", "append", "append"]


def test_unknown_outcome_is_asked_again_under_the_same_token() -> None:
    """A lost answer may hide a success: the very same entry goes out again under the same token."""
    bench = Bench(NEW, UnavailableError("lost"), ContentionError("conflict"), None)
    entry = bench.processor.process(add(1, "n"))
    assert len(set(bench.appended("token"))) == 1
    assert bench.appended("entries") == [[entry]] * 3
    assert len(bench.pauses) == 2


def test_head_is_forgotten_after_an_unknown_outcome() -> None:
    """Once a write ended in doubt, the next one reads the head again instead of trusting the one before it."""
    bench = Bench(NEW, None, UnavailableError("lost"), head(2, 2), None)
    assert bench.processor.process(add(1, "n1")).id == 1
    with pytest.raises(UnavailableError):
        bench.processor.process(add(1, "n2"), timeout_seconds=0)
    assert bench.processor.process(add(1, "n3")).id == 3
    assert [name for name, _ in bench.store.calls] == ["head", "append", "append", "head", "append"]


@pytest.mark.parametrize("cause", [UnavailableError, ContentionError])
def test_retries_end_inside_the_deadline(cause: Callable[[str], LedgerError]) -> None:
    """No pause begins that would end after the deadline; the last cause is the answer."""
    bench = Bench(NEW, *[cause("busy")] * 50)
    with pytest.raises(LedgerError) as failure:
        bench.processor.process(add(1, "n"), timeout_seconds=5)
    assert isinstance(failure.value, cause)  # type: ignore[arg-type]  # a class
    assert failure.value.state == RequestState.PROCESSING
    assert 5 - PAUSE_SECONDS_MAX < sum(bench.pauses) <= 5
    assert max(bench.pauses) <= PAUSE_SECONDS_MAX


def test_first_call_is_made_even_when_there_is_no_time_left() -> None:
    """A deadline in the past leaves one call, and no pause."""
    bench = Bench(NEW, None)
    with pytest.raises(UnavailableError) as failure:
        bench.processor.process(add(1, "n"), timeout_seconds=-1)
    assert ([name for name, _ in bench.store.calls], bench.pauses) == (["head"], [])
    assert failure.value.state == RequestState.PROCESSING


@pytest.mark.parametrize("answered", range(1, 5))
def test_no_call_begins_after_the_deadline(monkeypatch: pytest.MonkeyPatch, answered: int) -> None:
    """Calls that succeed slowly use up the time too: the one after the deadline is not made, whichever it is."""
    bench = Bench(NEW, moved(0, 1), moved(0, 2), head(0, 2), None)
    answer = bench.store._answer

    def answer_slowly(name: str, **arguments: Any) -> Any:
        bench.pauses.append(3)
        return answer(name, **arguments)

    monkeypatch.setattr(bench.store, "_answer", answer_slowly)
    with pytest.raises(LedgerError):
        bench.processor.process(add(1, "n"), timeout_seconds=3 * answered)
    assert len(bench.store.calls) == answered


def test_tries_are_bounded_however_much_time_there_is() -> None:
    """An owner that others keep moving ends in contention, not in an endless loop."""
    lost = itertools.chain.from_iterable([moved(0, count), head(0, count)] for count in range(2, 2 * PAUSES_MAX))
    bench = Bench(NEW, moved(0, 1), *lost)
    with pytest.raises(ContentionError, match=r"^Other writers kept moving this owner's balance\.$"):
        bench.processor.process(add(1, "n"), timeout_seconds=1e6)
    assert len(bench.appended("entries")) == PAUSES_MAX + 1


def test_head_that_cannot_be_read_fails_while_checking_the_balance() -> None:
    """The state of a failure is where the request was."""
    bench = Bench(UnavailableError("down"))
    with pytest.raises(UnavailableError) as failure:
        bench.processor.process(add(1, "n"), timeout_seconds=0)
    assert failure.value.state == RequestState.CHECKING_BALANCE


def test_store_error_is_not_tried_again() -> None:
    """What DynamoDB refuses once it refuses always."""
    bench = Bench(StoreError("no such table"))
    with pytest.raises(StoreError):
        bench.processor.process(add(1, "n"))
    assert len(bench.store.calls) == 1


def test_confirmation_may_find_the_entry_or_enough() -> None:
    """Before a refusal one read tells: a duplicate after all, enough after all, or really too little."""
    original = stored(spend(5, "n"), -5)
    bench = Bench(NEW, (original, head(0, 2)))
    with pytest.raises(DuplicateNonceError) as duplicate:
        bench.processor.process(spend(5, "n"))
    assert (duplicate.value.entry, duplicate.value.replay) == (original, True)
    bench = Bench(NEW, (None, head(5, 2)), None)
    assert bench.processor.process(spend(5, "n")).balance_after == 0
    bench = Bench(NEW, (None, head(4, 2)))
    with pytest.raises(InsufficientBalanceError) as refusal:
        bench.processor.process(spend(5, "n"))
    assert (refusal.value.balance, refusal.value.required) == (4, 5)
    assert refusal.value.state == RequestState.CHECKING_BALANCE


def test_replay_of_a_fixed_amount_is_the_same_request_whatever_it_is_now() -> None:
    """An app may change what an operation costs; a retry from before is still told that it is one."""
    original = stored(operation(CREATE), -4)
    bench = Bench(head(9, 1), Cancelled(stored=(original,), head=None, contended=False))
    with pytest.raises(DuplicateNonceError) as duplicate:
        bench.processor.process(operation(CREATE))
    assert duplicate.value.replay


def test_balance_stops_at_its_limit() -> None:
    """BALANCE_MAX can be reached and not exceeded."""
    bench = Bench(head(BALANCE_MAX - 1, 1), None)
    assert bench.processor.process(add(1, "n")).balance_after == BALANCE_MAX
    bench = Bench(head(BALANCE_MAX, 1), (None, head(BALANCE_MAX, 1)))
    full = f"^amount: the balance is {BALANCE_MAX} and cannot exceed {BALANCE_MAX}$"
    with pytest.raises(InvalidRequestError, match=full) as refusal:
        bench.processor.process(add(1, "n"))
    assert refusal.value.state == RequestState.CHECKING_BALANCE
    bench = Bench(head(BALANCE_MAX, 1), (None, head(BALANCE_MAX - 1, 2)), None)
    assert bench.processor.process(add(1, "n")).balance_after == BALANCE_MAX


def test_waiting_for_another_write_of_the_owner_ends_at_the_deadline() -> None:
    """A caller that waits in line longer than it wanted is told so."""
    processor = Bench().processor
    with processor._lane_of("ada").lock, pytest.raises(ContentionError):
        processor.process(operation(), timeout_seconds=0.01)


def test_read_is_tried_again() -> None:
    """Reads have the same patience as writes."""
    bench = Bench(UnavailableError("busy"), head(3, 1))
    assert bench.processor.read(lambda: bench.processor.store.head("ada", consistent=True)).balance == 3
    assert len(bench.pauses) == 1
