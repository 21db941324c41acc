"""Days, weeks and months."""

from datetime import UTC, datetime

import pytest

from ledger_core import InvalidRequestError
from ledger_core.periods import Period, PeriodKind


@pytest.mark.parametrize(
    ("text", "kind", "first_day", "before"),
    [
        ("2026-11-22", "day", "2026-11-22", "2026-11-21"),
        ("2026-03-01", "day", "2026-03-01", "2026-02-28"),
        ("2026-W47", "week", "2026-11-16", "2026-W46"),
        ("2026-W53", "week", "2026-12-28", "2026-W52"),
        ("2027-W01", "week", "2027-01-04", "2026-W53"),
        ("2026-01", "month", "2026-01-01", "2025-12"),
    ],
)
def test_periods_are_written_as_iso_8601_does(text: str, kind: str, first_day: str, before: str) -> None:
    """A period is read as it is written, knows its first day, and the one before it."""
    period = Period.parse(text)
    assert (str(period), period.kind, period.first_day.isoformat(), str(period.before())) == (
        text,
        kind,
        first_day,
        before,
    )


@pytest.mark.parametrize(
    "text",
    ["", "today", "2026", "2026-1-2", "2026-13", "2026-02-30", "2027-W53", "2026-W00", "2026-W7", "2026-11-22 "],
)
def test_what_is_no_period_is_refused(text: str) -> None:
    """A period has one spelling."""
    with pytest.raises(InvalidRequestError, match="period: must be written as"):
        Period.parse(text)


@pytest.mark.parametrize(
    ("kind", "time", "zone", "text"),
    [
        ("day", "2026-11-22T23:30:00Z", "UTC", "2026-11-22"),
        ("day", "2026-11-22T23:30:00Z", "Europe/Berlin", "2026-11-23"),
        ("day", "2026-11-22T02:00:00Z", "America/New_York", "2026-11-21"),
        ("day", "2026-03-29T00:59:00Z", "Europe/Berlin", "2026-03-29"),  # a minute before the clocks go forward
        ("day", "2026-10-25T22:59:59Z", "Europe/Berlin", "2026-10-25"),  # the last second of a day of 25 hours
        ("day", "2026-10-25T23:00:00Z", "Europe/Berlin", "2026-10-26"),
        ("week", "2027-01-03T12:00:00Z", "UTC", "2026-W53"),
        ("week", "2027-01-03T12:00:00Z", "Pacific/Kiritimati", "2027-W01"),
        ("month", "2026-12-31T23:00:00Z", "Europe/Berlin", "2027-01"),
    ],
)
def test_period_of_an_instant_is_by_the_calendar_of_the_zone(kind: str, time: str, zone: str, text: str) -> None:
    """One instant lies in different days, weeks and months in different zones."""
    assert str(Period.at(PeriodKind(kind), datetime.fromisoformat(time), zone)) == text


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "/etc/localtime", "../UTC", "Europe"])
def test_unknown_zone_is_refused(zone: str) -> None:
    """Also one that would be a path."""
    with pytest.raises(InvalidRequestError, match="time_zone: is none that is known"):
        Period.at(PeriodKind.DAY, datetime(2026, 11, 22, tzinfo=UTC), zone)
