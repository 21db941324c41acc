"""The retry budget: how long a request pauses, and how often."""

from collections.abc import Callable
from typing import Any

import pytest

from ledger_core import ContentionError, LedgerError, UnavailableError
from ledger_core.errors import RequestState, StoreError
from ledger_core.observability import measure_request
from ledger_core.posting import BudgetSpentError, RetryBudget
from ledger_core.posting.retry import PAUSE_SECONDS_BASE, PAUSE_SECONDS_MAX, PAUSES_MAX

BUSY = ContentionError("busy")


class Clock:
    """A time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def budget(self, seconds: float, *, random: float = 1.0, pauses: int = 0) -> RetryBudget:
        deadline = self.now + seconds
        return RetryBudget(deadline, lambda: self.now, self.sleep, lambda: random, pauses)


def answering(*answers: Any) -> Callable[[], Any]:
    """A function that raises or gives the next answer, and fails the test after the last."""
    left = iter(answers)

    def call() -> Any:
        answer = next(left)
        if isinstance(answer, LedgerError):
            raise answer
        return answer

    return call


def test_constants_are_what_operators_read() -> None:
    """The first pause takes at most 25 ms, each at most 1 s, and a request makes at most 100."""
    assert (PAUSE_SECONDS_BASE, PAUSE_SECONDS_MAX, PAUSES_MAX) == (0.025, 1.0, 100)


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_pauses_double_up_to_their_limit(chance: float) -> None:
    """A pause is a random part of a length that doubles up to 1 s."""
    clock = Clock()
    budget = clock.budget(1e6, random=chance)
    for _ in range(8):
        budget.pause(BUSY)
    lengths = (0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0)
    assert clock.slept == [chance * seconds for seconds in lengths]


def test_pause_may_end_at_the_deadline_and_not_after_it() -> None:
    """If a pause would end after the deadline, its reason is raised at once."""
    clock = Clock()
    clock.budget(PAUSE_SECONDS_BASE).pause(BUSY)
    assert clock.slept == [PAUSE_SECONDS_BASE]
    cause = ValueError("the cause")
    with pytest.raises(ContentionError) as failure:
        clock.budget(PAUSE_SECONDS_BASE * 0.99).pause(BUSY, cause=cause)
    assert failure.value is BUSY
    assert failure.value.__cause__ is cause
    assert clock.slept == [PAUSE_SECONDS_BASE]


def test_pauses_are_limited() -> None:
    """After the last allowed pause, the next raises even if time is left."""
    clock = Clock()
    budget = clock.budget(1e6, pauses=PAUSES_MAX - 2)
    budget.pause(BUSY)
    with pytest.raises(ContentionError):
        budget.pause(BUSY)
    assert clock.slept == [PAUSE_SECONDS_MAX]


def test_pauses_are_counted_as_retries() -> None:
    """The metrics count each pause that was made."""
    clock = Clock()
    budget = clock.budget(0.2)
    with measure_request() as metrics:
        for _ in range(3):
            budget.pause(BUSY)
        with pytest.raises(ContentionError):
            budget.pause(BUSY)
    assert metrics.retries == len(clock.slept) == 3


@pytest.mark.parametrize("state", [RequestState.CHECKING_BALANCE, RequestState.PROCESSING])
def test_call_is_tried_again_until_it_answers(state: RequestState) -> None:
    """A call that may succeed later is made again; a failure names the request's state."""
    clock = Clock()
    assert clock.budget(1).call(answering(BUSY, UnavailableError("lost"), 7), state) == 7
    assert clock.slept == [0.025, 0.05]
    for last in (StoreError("no such table"), UnavailableError("lost"), ContentionError("busy")):
        last.__cause__ = ValueError("the cause")
        with pytest.raises(LedgerError) as failure:
            clock.budget(0).call(answering(last), state)
        assert type(failure.value) is type(last)
        assert str(failure.value) == str(last)
        assert failure.value.state == state
        assert failure.value.__cause__ is last.__cause__


def test_call_changes_no_error_that_another_holds() -> None:
    """The error with the new state is a copy; the error that the call raised keeps its state."""
    last = UnavailableError("lost")
    with pytest.raises(UnavailableError):
        Clock().budget(0).call(answering(last), RequestState.CHECKING_NONCE)
    assert last.state == RequestState.PROCESSING


def test_call_fails_in_processing_unless_it_says_otherwise() -> None:
    """The default state of a call is Processing."""
    with pytest.raises(UnavailableError) as failure:
        Clock().budget(0).call(answering(UnavailableError("x", state=RequestState.RECEIVED)))
    assert failure.value.state == RequestState.PROCESSING


def test_call_with_a_permanent_error_is_not_tried_again() -> None:
    """A permanent error of DynamoDB ends the call, even if time is left."""
    clock = Clock()
    with pytest.raises(StoreError):
        clock.budget(1e6).call(answering(StoreError("no such table"), 7))
    assert clock.slept == []


def test_calls_share_their_time() -> None:
    """The first call is always made; no other call begins at the deadline or later."""
    clock = Clock()
    budget = clock.budget(1)
    clock.now = 2
    assert budget.call(answering(1)) == 1
    spent = r"^The time was up before all was done\.$"
    with pytest.raises(BudgetSpentError, match=spent) as failure:
        budget.call(answering())
    assert failure.value.state == RequestState.PROCESSING
    assert clock.slept == []


def test_budget_is_spent_at_its_deadline() -> None:
    """Time is left just before the deadline, and no longer at it."""
    clock = Clock()
    budget = clock.budget(1)
    assert (budget.is_spent, budget.seconds_left) == (False, 1)
    budget.call(answering(1))
    clock.sleep(0.99)
    assert budget.call(answering(2)) == 2
    assert not budget.is_spent
    clock.now = budget.deadline
    assert (budget.is_spent, budget.seconds_left) == (True, 0)
    with pytest.raises(UnavailableError):
        budget.call(answering())
