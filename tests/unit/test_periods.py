"""Days, weeks and months."""

from datetime import UTC, datetime

import pytest

from ledger_core import InvalidRequestError
from ledger_core.periods import DAYS_PAST_MAX, Period, PeriodKind


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
def test_periods_are_written_as_iso_8601_does(
    text: str, kind: str, first_day: str, before: str
) -> None:
    """A period is written as it is read, and has a kind, a first day and a period before it."""
    period = Period.parse(text)
    assert (str(period), period.kind) == (text, kind)
    assert period.first_day.isoformat() == first_day
    assert str(period.before()) == before


@pytest.mark.parametrize(
    "text",
    [
        "",
        "today",
        "2026",
        "2026-1-2",
        "2026-13",
        "2026-02-30",
        "2027-W53",
        "2026-W00",
        "2026-W7",
        "2026-11-22 ",
    ],
)
def test_malformed_period_is_refused(text: str) -> None:
    """A text that is not the spelling of a period is refused."""
    with pytest.raises(InvalidRequestError, match="period: must be written as"):
        Period.parse(text)


@pytest.mark.parametrize(
    ("kind", "time", "zone", "text"),
    [
        ("day", "2026-11-22T23:30:00Z", "UTC", "2026-11-22"),
        ("day", "2026-11-22T23:30:00Z", "Europe/Berlin", "2026-11-23"),
        ("day", "2026-11-22T02:00:00Z", "America/New_York", "2026-11-21"),
        # A minute before the clocks go forward, and the last second of a day of 25 hours.
        ("day", "2026-03-29T00:59:00Z", "Europe/Berlin", "2026-03-29"),
        ("day", "2026-10-25T22:59:59Z", "Europe/Berlin", "2026-10-25"),
        ("day", "2026-10-25T23:00:00Z", "Europe/Berlin", "2026-10-26"),
        ("week", "2027-01-03T12:00:00Z", "UTC", "2026-W53"),
        ("week", "2027-01-03T12:00:00Z", "Pacific/Kiritimati", "2027-W01"),
        ("month", "2026-12-31T23:00:00Z", "Europe/Berlin", "2027-01"),
    ],
)
def test_period_of_an_instant_is_that_of_the_time_zone(
    kind: str, time: str, zone: str, text: str
) -> None:
    """The day, week or month of an instant depends on the time zone."""
    assert str(Period.at(PeriodKind(kind), datetime.fromisoformat(time), zone)) == text


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "/etc/localtime", "../UTC", "Europe"])
def test_unknown_zone_is_refused(zone: str) -> None:
    """An unknown time zone and a path are refused."""
    with pytest.raises(InvalidRequestError, match="time_zone: is not known"):
        Period.at(PeriodKind.DAY, datetime(2026, 11, 22, tzinfo=UTC), zone)


@pytest.mark.parametrize(
    ("text", "doubt"),
    [
        ("2026-11-23", "later than today, 2026-11-22"),
        ("2026-11-22", None),
        ("2026-11-15", None),
        ("2026-11-14", f"ended more than {DAYS_PAST_MAX} days before today"),
        ("2026-W48", "later than today"),
        ("2026-W47", None),
        ("2026-W46", None),  # ended on the 15th
        ("2026-W45", "ended more than 7 days before today"),
        ("2026-12", "later than today"),
        ("2026-11", None),
        ("2026-10", "ended more than 7 days before today"),
        ("9999-12-31", "later than today"),
    ],
)
def test_later_or_old_period_is_in_doubt(text: str, doubt: str | None) -> None:
    """A period that has not begun, or ended more than 7 days ago, is in doubt."""
    found = Period.parse(text).doubt(datetime(2026, 11, 22, 12, tzinfo=UTC))
    if doubt is None:
        assert found is None
    else:
        assert found is not None
        assert doubt in found


@pytest.mark.parametrize(
    ("text", "time", "in_doubt"),
    [
        ("2026-11-23", "2026-11-22T14:59:59Z", True),
        ("2026-11-23", "2026-11-22T15:00:00Z", False),  # it begins in Tokyo
        ("2026-11-15", "2026-11-22T14:59:59Z", False),
        ("2026-11-15", "2026-11-22T15:00:00Z", True),
    ],
)
def test_doubt_depends_on_the_time_zone(text: str, time: str, in_doubt: bool) -> None:
    """Today is the day in the time zone."""
    doubt = Period.parse(text).doubt(datetime.fromisoformat(time), "Asia/Tokyo")
    assert (doubt is not None) == in_doubt


@pytest.mark.parametrize(
    ("text", "last_day"),
    [
        ("2026-11-22", "2026-11-22"),
        ("2026-W47", "2026-11-22"),
        ("2026-02", "2026-02-28"),
        ("2026-12", "2026-12-31"),
    ],
)
def test_last_day(text: str, last_day: str) -> None:
    """The last day of a period is the day before the next period."""
    assert Period.parse(text).last_day.isoformat() == last_day
