"""This machine's clock, held against DynamoDB's. An entry's time stays, and so would that of a
clock years ahead."""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from ledger_core.errors import UnavailableError

__all__ = ["CLOCK_OFF_SECONDS_MAX", "SystemClock"]

CLOCK_OFF_SECONDS_MAX = 30.0
"""How far the clock may be from DynamoDB's; if it is farther, nothing is written."""
DATE_SECONDS = 1.0
"""What the `Date` of an answer leaves out at most: it is in whole seconds."""

logger = logging.getLogger(__name__)


class SystemClock:
    """Tells the time of this machine, unless DynamoDB's last answer had another one. Threads may
    share it.

    An answer without a `Date` is held against nothing.

    Args:
        wall: seconds since 1970, as the machine has them.
        monotonic: seconds on a clock that nobody sets.
    """

    def __init__(
        self,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.wall = wall
        self._monotonic = monotonic
        self._held: tuple[float, float] | None = None
        """By the last answer: how many seconds the clock was ahead, and how far it was from the
        monotonic one."""
        self._read: tuple[str | None, float | None] = (None, None)
        """The last `Date`, and what it says: many answers have the same one."""

    def hold(self, date: str | None, *, since: float) -> None:
        """Hold the clock against the `Date` of an answer to a request that was sent when `wall`
        said `since`."""
        now = self.wall()
        self._held = self._seconds_ahead(date, since, now), now - self._monotonic()

    def __call__(self) -> datetime:
        """The time, in UTC.

        Raises:
            UnavailableError: the clock is off, or was set since the last answer, or there was no
                answer yet. The next answer may tell otherwise.
        """
        now = self.wall()
        if self._held is None:
            raise UnavailableError("The clock was not held against DynamoDB's yet.")
        ahead, distance = self._held
        if abs(ahead) > CLOCK_OFF_SECONDS_MAX:
            logger.error(
                "the clock is %+.0f seconds off DynamoDB's: nothing is written until it is set",
                ahead,
            )
            raise UnavailableError("The clock of the ledger's machine is off.")
        if abs(ahead + now - self._monotonic() - distance) > CLOCK_OFF_SECONDS_MAX:
            raise UnavailableError("The clock was set, and not held against DynamoDB's since.")
        return datetime.fromtimestamp(now, UTC)

    def _seconds_ahead(self, date: str | None, since: float, now: float) -> float:
        """By how much the clock is ahead of DynamoDB's, at least; negative when it is behind.

        DynamoDB wrote the date between `since` and `now`. A process may be frozen in between, and
        is not off for it.
        """
        text, theirs = self._read
        if text != date:
            theirs = _seconds(date)
            self._read = (date, theirs)
        if theirs is None:
            return 0.0
        return max(since - theirs - DATE_SECONDS, 0.0) + min(now - theirs, 0.0)


def _seconds(date: str | None) -> float | None:
    """The seconds since 1970 that a `Date` says; None if it says nothing."""
    try:
        return parsedate_to_datetime(date).timestamp() if date else None
    except (OverflowError, ValueError):
        return None
