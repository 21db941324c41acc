"""The record of runs: each complete run is reported at least once, with its first record."""

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


def refused(code: str) -> ClientError:
    """DynamoDB's refusal of a record."""
    return ClientError({"Error": {"Code": code, "Message": "no"}}, "UpdateItem")


def spent_budget() -> RetryBudget:
    return RetryBudget(0.0, lambda: 0.0, lambda _seconds: None, lambda: 1.0)


@pytest.fixture
def runs(cloud: Cloud) -> Runs:
    cloud.create_runs()
    return Runs(cloud.dynamodb, cloud.tables["LEDGER_RUNS_TABLE"])


def finished(number: int = 0, of: int = 1, *, begun_minutes: int = 0, **tally: float) -> Segment:
    """A finished segment of a run."""
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
def test_run_whose_last_worker_is_killed_is_reported(
    cloud: Cloud, after: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """The worker may be killed at any request; it or the next worker reports, at most twice."""
    cloud.seed(5)
    reports: list[list[dict[str, Any]]] = []
    days = 0
    life = Life(1)
    while life.ended or not days:
        days += 1
        cloud.function()({"period": f"2026-01-{days:02}", "segments": 1, "force": True}, Context())
        life = Life(days, after)
        with suppress(KilledError):
            cloud.drain(cloud.function(life))
        cloud.drain()
        reports.append([line for line in lines(capfd) if line["sweep"] == "complete"])
    assert days > 5
    for complete in reports:
        assert 1 <= len(complete) <= 2
        assert {line["rewarded"] for line in complete} == {5}
        assert {line["granted"] + line["already"] for line in complete} == {5}
        assert len({line["granted"] for line in complete}) == 1


def test_recorded_run_is_reported_as_it_was_recorded(
    cloud: Cloud, capfd: pytest.CaptureFixture[str]
) -> None:
    """A worker dies after the record; the next worker reports the counts of the record."""
    cloud.seed(5)
    cloud.function()({"period": DAY, "segments": 1}, Context())

    def update(real: Callable[..., Any], **arguments: Any) -> Any:
        real(**arguments)
        raise KilledError

    with patched(cloud.dynamodb, update_item=update), suppress(KilledError):
        cloud.drain()
    cloud.drain()
    (complete,) = [line for line in lines(capfd) if line["sweep"] == "complete"]
    assert (complete["granted"], complete["already"], complete["rewarded"]) == (5, 0, 5)
    assert complete["dynamodb_requests"] == 2  # the requests of the first worker only


def test_record_that_fails_is_made_again(cloud: Cloud, capfd: pytest.CaptureFixture[str]) -> None:
    """A failed mark that a run is reported may repeat the report, and fails no segment."""
    cloud.seed(3)
    updates: list[str] = []

    def update(real: Callable[..., Any], **arguments: Any) -> Any:
        updates.append(arguments["UpdateExpression"])
        if "reported" in updates[-1]:
            raise refused("AccessDeniedException")
        if len(updates) == 1:
            raise refused("ThrottlingException")
        return real(**arguments)

    with patched(cloud.dynamodb, update_item=update):
        cloud.run(DAY, segments=1)
    assert [line["sweep"] for line in lines(capfd)] == ["begun", "finished", "complete"]
    assert len(updates) == 3
    assert cloud.dead_letters() == []


def test_complete_run_is_reported_until_it_is_marked(runs: Runs) -> None:
    """The first record is reported until the run is marked as reported."""
    total = runs.finish("n", finished(granted=7, seconds=1.5))
    assert total == Tally(granted=7, seconds=1.5)
    again = finished(already=7, seconds=0.5)
    assert runs.finish("n", again) == total
    runs.mark_reported("n", again)
    assert runs.finish("n", again) is None
    assert runs.rewarded("n") == 7


def test_segment_that_is_finished_twice_counts_once(runs: Runs) -> None:
    """The first counts of a segment stay, and a second finish replaces no missing segment."""
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
    """Of two complete runs the later counts; a later run that is not complete does not."""
    cloud.seed(10)
    function = cloud.function()
    runs = Runs(cloud.dynamodb, cloud.tables["LEDGER_RUNS_TABLE"])
    before = "ledger:daily-reward:2026-11-21"
    # The second run began first, and is recorded last.
    for minutes, of, granted in ((10, 1, 8), (5, 1, 99), (20, 2, 7)):
        runs.finish(before, finished(0, of, begun_minutes=minutes, granted=granted))
    assert runs.rewarded(before) == 8
    cloud.run(DAY, function=function)
    complete = lines(capfd)[-1]
    assert (complete["rewarded"], complete["rewarded_before"]) == (10, 8)
    assert complete["RewardsDeviation"] == 25.0


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"ResponseMetadata": {"HTTPStatusCode": 200}},
        {"ResponseMetadata": {"RequestId": "1"}, "Items": []},
    ],
)
def test_answer_that_is_not_from_dynamodb_is_lost(cloud: Cloud, answer: dict[str, Any]) -> None:
    """A 200 without a request id or its capacity records nothing and gives no earlier run."""
    cloud.create_runs()
    runs = Runs(cloud.dynamodb, cloud.tables["LEDGER_RUNS_TABLE"], budget=spent_budget)

    def answered(_real: Callable[..., Any], **arguments: Any) -> Any:
        assert arguments["ReturnConsumedCapacity"] == "TOTAL"
        return answer

    with patched(cloud.dynamodb, update_item=answered, query=answered):
        for call in (
            lambda: runs.finish("n", finished(granted=1)),
            lambda: runs.mark_reported("n", finished(granted=1)),
            lambda: runs.rewarded("n"),
        ):
            with pytest.raises(UnavailableError):
                call()
    assert runs.rewarded("n") is None
