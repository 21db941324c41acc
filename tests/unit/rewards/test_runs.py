"""The record of runs: what came of a run is told, once at least, and as it was recorded first."""

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from functions.daily_reward.runs import Runs
from ledger_core import UnavailableError
from ledger_core.posting import RetryBudget
from ledger_core.rewards import Segment, Tally
from tests.fakes.cloud import Cloud, Context, KilledError, Life, patched
from tests.fakes.log_lines import lines
from tests.support import NOON

DAY = "2026-11-22"


def no_patience() -> RetryBudget:
    return RetryBudget(0.0, lambda: 0.0, lambda _seconds: None, lambda: 1.0)


@pytest.fixture
def runs(cloud: Cloud) -> Runs:
    cloud.create_runs()
    return Runs(cloud.dynamodb, cloud.tables["LEDGER_RUNS_TABLE"])


def finished(number: int = 0, of: int = 1, *, begun_minutes: int = 0, **tally: float) -> Segment:
    """One segment of a run, and what came of it."""
    return Segment.model_validate(
        {
            "operation": "DAILY_REWARD",
            "period": DAY,
            "segment": number,
            "segments": of,
            "started_at": NOON + timedelta(minutes=begun_minutes),
            "tally": tally,
        }
    )


@pytest.mark.parametrize("after", [True, False], ids=["after it is answered", "before it is sent"])
def test_run_is_told_of_whenever_its_last_worker_is_killed(
    cloud: Cloud, after: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whichever request is the worker's last, it or the one that is given the message again tells; twice at most."""
    cloud.seed(5)
    told, days, life = list[list[dict[str, Any]]](), 0, Life(1)
    while life.ended or not days:
        days += 1
        cloud.function()({"period": f"2026-01-{days:02}", "segments": 1, "force": True}, Context())
        life = Life(days, after)
        with suppress(KilledError):
            cloud.drain(cloud.function(life))
        cloud.drain()
        told.append([one for one in lines(capfd) if one["sweep"] == "complete"])
    assert days > 5
    for complete in told:
        assert 1 <= len(complete) <= 2
        assert {(one["rewarded"], one["granted"] + one["already"]) for one in complete} == {(5, 5)}
        assert len({one["granted"] for one in complete}) == 1


def test_run_that_was_recorded_is_told_of_as_it_was_recorded(
    cloud: Cloud, capfd: pytest.CaptureFixture[str]
) -> None:
    """A worker dies between record and line; the next one finds other counts, and tells those of the record."""
    cloud.seed(5)
    cloud.function()({"period": DAY, "segments": 1}, Context())

    def update(real: Callable[..., Any], **arguments: Any) -> Any:
        real(**arguments)
        raise KilledError

    with patched(cloud.dynamodb, update_item=update), suppress(KilledError):
        cloud.drain()
    cloud.drain()
    (complete,) = [one for one in lines(capfd) if one["sweep"] == "complete"]
    assert (complete["granted"], complete["already"], complete["rewarded"]) == (5, 0, 5)
    assert (
        complete["dynamodb_requests"] == 2
    )  # of the worker that granted; the other one sent another


def test_record_that_is_not_answered_is_made_again(
    cloud: Cloud, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is a matter of the runs' table whether somebody may be told twice, and no failure of the segment."""
    cloud.seed(3)
    updates = list[str]()

    def update(real: Callable[..., Any], **arguments: Any) -> Any:
        updates.append(arguments["UpdateExpression"])
        if "reported" in updates[-1]:
            raise ClientError(
                {"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "UpdateItem"
            )
        if len(updates) == 1:
            raise ClientError(
                {"Error": {"Code": "ThrottlingException", "Message": "no"}}, "UpdateItem"
            )
        return real(**arguments)

    with patched(cloud.dynamodb, update_item=update):
        cloud.run(DAY, segments=1)
    assert [one["sweep"] for one in lines(capfd)] == ["begun", "finished", "complete"]
    assert len(updates) == 3
    assert cloud.dead_letters() == []


def test_complete_run_is_told_again_until_somebody_was_told(runs: Runs) -> None:
    """What is recorded is what was told first; once somebody was told of it, nobody is again."""
    total = runs.finish("n", finished(granted=7, seconds=1.5))
    assert total == Tally(granted=7, seconds=1.5)
    again = finished(already=7, seconds=0.5)
    assert runs.finish("n", again) == total
    runs.mark_reported("n", again)
    assert runs.finish("n", again) is None
    assert runs.rewarded("n") == 7


def test_segment_that_is_finished_twice_counts_the_first_time(runs: Runs) -> None:
    """Whatever a second worker found, and although it does not stand for a segment that is missing."""
    assert runs.finish("n", finished(0, 3, granted=4)) is None
    assert runs.finish("n", finished(2, 3, granted=2)) is None
    assert runs.finish("n", finished(0, 3, already=9, failed=1)) is None
    assert runs.rewarded("n") is None
    assert runs.finish("n", finished(1, 3, granted=1)) == Tally(granted=7)
    assert runs.finish("n", finished(0, 3, already=9)) == Tally(granted=7)
    assert runs.rewarded("n") == 7


def test_last_complete_run_of_the_period_before_is_compared(
    cloud: Cloud, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of two that are complete the later one, and not one that was begun after both and stopped halfway."""
    cloud.seed(10)
    function = cloud.function()
    runs = Runs(cloud.dynamodb, cloud.tables["LEDGER_RUNS_TABLE"])
    before = "ledger:daily-reward:2026-11-21"
    for minutes, of, granted in (
        (10, 1, 8),
        (5, 1, 99),
        (20, 2, 7),
    ):  # the second was recorded late
        runs.finish(before, finished(0, of, begun_minutes=minutes, granted=granted))
    assert runs.rewarded(before) == 8
    cloud.run(DAY, function=function)
    complete = lines(capfd)[-1]
    assert (complete["rewarded"], complete["rewarded_before"], complete["RewardsDeviation"]) == (
        10,
        8,
        25.0,
    )


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"ResponseMetadata": {"HTTPStatusCode": 200}},
        {"ResponseMetadata": {"RequestId": "1"}, "Items": []},
    ],
)
def test_answer_that_is_not_dynamodb_s_is_a_lost_one(cloud: Cloud, answer: dict[str, Any]) -> None:
    """A 200 without a request id and the capacity that was asked for records nothing, and tells of no run before."""
    cloud.create_runs()
    runs = Runs(cloud.dynamodb, cloud.tables["LEDGER_RUNS_TABLE"], budget=no_patience)

    def another(_real: Callable[..., Any], **arguments: Any) -> Any:
        assert arguments["ReturnConsumedCapacity"] == "TOTAL"
        return answer

    with patched(cloud.dynamodb, update_item=another, query=another):
        for call in (
            lambda: runs.finish("n", finished(granted=1)),
            lambda: runs.mark_reported("n", finished(granted=1)),
            lambda: runs.rewarded("n"),
        ):
            with pytest.raises(UnavailableError):
                call()
    assert runs.rewarded("n") is None
