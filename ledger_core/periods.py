"""Days, weeks and months: which one of them a scheduled operation is for."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Self
from zoneinfo import ZoneInfo

from ledger_core.errors import InvalidRequestError

__all__ = ["DAYS_PAST_MAX", "Period", "PeriodKind"]

DAYS_PAST_MAX = 7
"""How many days ago a period may have ended for which something is posted without anybody
insisting."""


class PeriodKind(StrEnum):
    """How often a scheduled operation is posted to an owner: once in each of these."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


FORMATS = {PeriodKind.DAY: "%Y-%m-%d", PeriodKind.WEEK: "%G-W%V", PeriodKind.MONTH: "%Y-%m"}


@dataclass(frozen=True)
class Period:
    """One day, week or month; written as ISO 8601 does: `2026-11-22`, `2026-W47`, `2026-11`."""

    kind: PeriodKind
    first_day: date

    def __str__(self) -> str:
        return self.first_day.strftime(FORMATS[self.kind])

    @classmethod
    def parse(cls, text: str) -> Self:
        """The period that is written so.

        Raises:
            InvalidRequestError: it is none.
        """
        for kind, form in FORMATS.items():
            whole = text
            if kind == PeriodKind.WEEK:  # it begins on a Monday
                whole, form = f"{text}-1", f"{form}-%u"
            try:
                first_day = datetime.strptime(whole, form).date()  # noqa: DTZ007  # no zone
                period = cls(kind, first_day)
            except ValueError:
                continue
            if str(period) == text:
                return period
        raise InvalidRequestError(
            f"period: must be written as 2026-11-22, 2026-W47 or 2026-11: {text!r}"
        )

    @classmethod
    def at(cls, kind: PeriodKind, time: datetime, time_zone: str = "UTC") -> Self:
        """The period in which an instant lies, by the calendar of a time zone.

        Raises:
            InvalidRequestError: there is no such time zone.
        """
        try:
            return cls.of(kind, time.astimezone(ZoneInfo(time_zone)).date())
        except (ValueError, OSError, LookupError) as error:
            raise InvalidRequestError(f"time_zone: is not known: {time_zone!r}") from error

    @classmethod
    def of(cls, kind: PeriodKind, day: date) -> Self:
        """The period in which a day lies."""
        days_before = {
            PeriodKind.DAY: 0,
            PeriodKind.WEEK: day.weekday(),
            PeriodKind.MONTH: day.day - 1,
        }
        return cls(kind, day - timedelta(days=days_before[kind]))

    def before(self) -> Self:
        """The period that precedes it."""
        return self.of(self.kind, self.first_day - timedelta(days=1))

    @property
    def last_day(self) -> date:
        """The day before the next period."""
        longest = {PeriodKind.DAY: 1, PeriodKind.WEEK: 7, PeriodKind.MONTH: 31}[self.kind]
        return self.of(self.kind, self.first_day + timedelta(days=longest)).first_day - timedelta(
            days=1
        )

    def doubt(self, now: datetime, time_zone: str = "UTC") -> str | None:
        """Why somebody may have mistyped it: it is to come, or ended more than DAYS_PAST_MAX days
        ago; None: neither.

        Raises:
            InvalidRequestError: there is no such time zone.
        """
        today = self.at(PeriodKind.DAY, now, time_zone).first_day
        if self.first_day > today:
            return f"{self} is later than today, {today} in {time_zone}"
        if (today - self.last_day).days > DAYS_PAST_MAX:
            return (
                f"{self} ended more than {DAYS_PAST_MAX} days before today, {today} in {time_zone}"
            )
        return None
