"""How long and how often a request tries again, over all the calls that it makes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from ledger_core.errors import ContentionError, LedgerError, RequestState, UnavailableError
from ledger_core.observability import current_request_metrics

__all__ = ["PAUSES_MAX", "BudgetSpentError", "RetryBudget"]

PAUSES_MAX = 100
"""Times that one request may try again, however much time it has."""
PAUSE_SECONDS_BASE = 0.025
PAUSE_SECONDS_MAX = 1.0
"""Full jitter: the n-th pause is random below base * 2^n, and never longer than this."""

T = TypeVar("T")


class BudgetSpentError(UnavailableError):
    """The time was up before the next call, though the last one did not fail."""


@dataclass
class RetryBudget:
    """What is left of a request's time and tries."""

    deadline: float
    monotonic: Callable[[], float]
    sleep: Callable[[float], None]
    random: Callable[[], float]
    pauses: int = 0
    begun: bool = False

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        return self.monotonic() >= self.deadline

    @property
    def seconds_left(self) -> float:
        """How long that is."""
        return self.deadline - self.monotonic()

    def pause(self, reason: LedgerError) -> None:
        """Wait with full jitter before the next try; raise `reason` when there is no time or try left."""
        seconds = self.random() * min(PAUSE_SECONDS_MAX, PAUSE_SECONDS_BASE * 2**self.pauses)
        self.pauses += 1
        if self.pauses >= PAUSES_MAX or self.monotonic() + seconds > self.deadline:
            raise reason
        current_request_metrics().retries += 1
        self.sleep(seconds)

    def retry(self, call: Callable[[], T], state: RequestState) -> T:
        """What `call` answers, once it does; `state` is where the request failed if it never does."""
        while True:
            try:
                if self.begun and self.is_over:
                    raise BudgetSpentError("The time was up before all was done.")
                self.begun = True
                return call()
            except LedgerError as error:
                failure = error.in_state(state)
                if not isinstance(error, (ContentionError, UnavailableError)):
                    raise failure from error.__cause__
                self.pause(failure)

    def read(self, call: Callable[[], T], /) -> T:
        """`retry` for a call that is not part of posting."""
        return self.retry(call, RequestState.PROCESSING)
