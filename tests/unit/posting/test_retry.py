"""How long and how often is tried again: the pauses, and where they end."""

from collections.abc import Callable
from typing import Any

import pytest

from ledger_core import ContentionError, LedgerError, UnavailableError
from ledger_core.errors import RequestState, StoreError
from ledger_core.observability import measure_request
from ledger_core.posting import RetryBudget
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

    def patience(self, seconds: float, *, random: float = 1.0, pauses: int = 0) -> RetryBudget:
        return RetryBudget(self.now + seconds, lambda: self.now, self.sleep, lambda: random, pauses)


def answering(*answers: Any) -> Callable[[], Any]:
    """A call that raises or answers what comes next, and fails the test when it is made once too often."""
    left = iter(answers)

    def call() -> Any:
        answer = next(left)
        if isinstance(answer, LedgerError):
            raise answer
        return answer

    return call


def test_constants_are_what_operators_are_told() -> None:
    """A first pause of 25 ms at most, none above a second, a hundred tries."""
    assert (PAUSE_SECONDS_BASE, PAUSE_SECONDS_MAX, PAUSES_MAX) == (0.025, 1.0, 100)


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_pauses_double_up_to_their_limit(chance: float) -> None:
    """Full jitter: each is a part, which chance gives, of one that doubles until it is a second."""
    clock = Clock()
    patience = clock.patience(1e6, random=chance)
    for _ in range(8):
        patience.pause(BUSY)
    assert clock.slept == [chance * seconds for seconds in (0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0)]


def test_a_pause_may_end_at_the_deadline_and_not_after_it() -> None:
    """At the last instant one more try is made; later none, and nobody has slept for it."""
    clock = Clock()
    clock.patience(PAUSE_SECONDS_BASE).pause(BUSY)
    assert clock.slept == [PAUSE_SECONDS_BASE]
    with pytest.raises(ContentionError) as failure:
        clock.patience(PAUSE_SECONDS_BASE * 0.99).pause(BUSY)
    assert failure.value is BUSY
    assert clock.slept == [PAUSE_SECONDS_BASE]


def test_pauses_are_counted_to_their_limit() -> None:
    """The last that is allowed is waited for; the next is the end, however much time is left."""
    clock = Clock()
    patience = clock.patience(1e6, pauses=PAUSES_MAX - 2)
    patience.pause(BUSY)
    with pytest.raises(ContentionError):
        patience.pause(BUSY)
    assert clock.slept == [PAUSE_SECONDS_MAX]


def test_pauses_are_told_as_retries() -> None:
    """Every pause that was made, of all calls, and not the one that was not."""
    clock = Clock()
    patience = clock.patience(0.2)
    with measure_request() as usage:
        for _ in range(3):
            patience.pause(BUSY)
        with pytest.raises(ContentionError):
            patience.pause(BUSY)
    assert usage.retries == len(clock.slept) == 3


@pytest.mark.parametrize("state", [RequestState.CHECKING_BALANCE, RequestState.PROCESSING])
def test_a_call_is_tried_again_until_it_answers(state: RequestState) -> None:
    """What may succeed later is tried again; what it ends in says in which state."""
    clock = Clock()
    assert clock.patience(1).retry(answering(BUSY, UnavailableError("lost"), 7), state) == 7
    assert clock.slept == [0.025, 0.05]
    for last in (StoreError("no such table"), UnavailableError("lost")):
        with pytest.raises(LedgerError) as failure:
            clock.patience(0).retry(answering(last), state)
        assert (type(failure.value), str(failure.value)) == (type(last), str(last))
        assert failure.value.state == state


def test_what_will_not_succeed_is_not_tried_again() -> None:
    """However much time there is."""
    clock = Clock()
    with pytest.raises(StoreError):
        clock.patience(1e6).retry(answering(StoreError("no such table"), 7), RequestState.PROCESSING)
    assert clock.slept == []


def test_calls_have_their_time_in_common() -> None:
    """The first is made however little time there is; none begins at the deadline or after it."""
    clock = Clock()
    patience = clock.patience(1)
    clock.now = 2
    assert patience.read(answering(1)) == 1
    with pytest.raises(UnavailableError, match=r"^The time was up before all was done\.$") as failure:
        patience.read(answering())
    assert failure.value.state == RequestState.PROCESSING
    patience = clock.patience(1)
    assert (patience.is_over, patience.seconds_left) == (False, 1)
    patience.read(answering(1))
    clock.sleep(0.99)
    assert (patience.read(answering(2)), patience.is_over) == (2, False)
    clock.now = patience.deadline
    assert (patience.is_over, patience.seconds_left) == (True, 0)
    with pytest.raises(UnavailableError):
        patience.read(answering())
