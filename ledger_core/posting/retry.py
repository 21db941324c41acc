"""How long and how often a request tries again, over all the calls that it makes."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from random import SystemRandom
from typing import Self, TypeVar

from ledger_core.errors import ContentionError, LedgerError, RequestState, UnavailableError
from ledger_core.observability import current_request_metrics

__all__ = ["PAUSES_MAX", "BudgetSpentError", "RetryBudget"]

PAUSES_MAX = 100
"""Times that one request may try again, however much time it has."""
PAUSE_SECONDS_BASE = 0.025
PAUSE_SECONDS_MAX = 1.0
"""Full jitter: the n-th pause is random below base * 2^n, and never longer than this."""

T = TypeVar("T")

_SYSTEM_RANDOM = SystemRandom()


class BudgetSpentError(UnavailableError):
    """The time was up before the next call, though the last call did not fail."""


@dataclass
class RetryBudget:
    """What a request has left of time and tries."""

    deadline: float
    monotonic: Callable[[], float]
    sleep: Callable[[float], None]
    random: Callable[[], float]
    pauses: int = 0
    has_called: bool = False

    @classmethod
    def lasting(
        cls,
        seconds: float,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        random: Callable[[], float] = _SYSTEM_RANDOM.random,
    ) -> Self:
        """A budget that begins now and lasts for `seconds`."""
        return cls(monotonic() + seconds, monotonic, sleep, random)

    @property
    def is_spent(self) -> bool:
        """Whether the time is up."""
        return self.monotonic() >= self.deadline

    @property
    def seconds_left(self) -> float:
        """How long a further call may take."""
        return self.deadline - self.monotonic()

    def pause(self, reason: LedgerError, *, cause: BaseException | None = None) -> None:
        """Wait with full jitter before the next try; raise `reason` when there is no time or try
        left."""
        seconds = self.random() * min(PAUSE_SECONDS_MAX, PAUSE_SECONDS_BASE * 2**self.pauses)
        self.pauses += 1
        if self.pauses >= PAUSES_MAX or self.monotonic() + seconds > self.deadline:
            raise reason from cause
        current_request_metrics().retries += 1
        self.sleep(seconds)

    def call(self, call: Callable[[], T], state: RequestState = RequestState.PROCESSING) -> T:
        """The answer of `call`, tried again while it may succeed; `state` is where the request
        fails otherwise."""
        while True:
            try:
                if self.has_called and self.is_spent:
                    raise BudgetSpentError("The time was up before all was done.")
                self.has_called = True
                return call()
            except (ContentionError, UnavailableError) as error:
                self.pause(error.in_state(state), cause=error.__cause__)
            except LedgerError as error:
                raise error.in_state(state) from error.__cause__
