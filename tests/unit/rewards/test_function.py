"""The scheduled function: what it is sent, what it puts on the queue, what it tells."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from functions.daily_reward.events import SegmentQueue, SweepEvent
from functions.daily_reward.function import STOP_SECONDS, create_function
from functions.example_app.operations import ExampleAppOperations
from ledger_core import InvalidRequestError, UnavailableError, UnknownOperationError
from ledger_core.observability.metric_lines import METRICS_NAMESPACE
from ledger_core.periods import Period
from ledger_core.rewards import Reward, Segment, Tally
from tests.fakes.cloud import RECEIVES_MAX, Cloud, Context, patched
from tests.fakes.log_lines import lines
from tests.support import NOON, ROOT

EVENT = json.loads((ROOT / "infra/events/schedule.json").read_text())
DAY = "2026-11-22"


def metrics(line: dict[str, Any]) -> set[str]:
    """What CloudWatch reads out of a line."""
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    assert (directive["Namespace"], directive["Dimensions"]) == (
        METRICS_NAMESPACE,
        [["service"], ["service", "operation"]],
    )
    assert line["operation"] == "DAILY_REWARD"
    return {metric["Name"] for metric in directive["Metrics"]}


def test_handler_of_the_environment_does_the_job(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The function that Lambda gets, made from variables only, takes the event and what it put on the queue."""
    monkeypatch.setenv("LEDGER_REWARDS_QUEUE_URL", cloud.url)
    owners = cloud.seed(30)
    cloud.create_runs()
    handler = create_function(ExampleAppOperations)
    assert handler(EVENT, Context()) == {"operation": "DAILY_REWARD", "period": DAY, "segments": 4}
    cloud.drain(handler)
    cloud.check(owners, [DAY])


def test_event_of_the_schedule_becomes_segments(cloud: Cloud) -> None:
    """Each message has all that somebody needs to go on with its segment."""
    cloud.function()({**EVENT, "segments": 25}, Context())
    found: list[dict[str, Any]] = []
    while len(found) < 25:
        found += cloud.records()
        for record in found:
            cloud.sqs.delete_message(QueueUrl=cloud.url, ReceiptHandle=record["receiptHandle"])
    segments = [SegmentQueue.read(record) for record in found]
    assert sorted(one.segment for one in segments) == list(range(25))
    assert {
        (one.operation, one.period, one.segments, one.start, one.finished) for one in segments
    } == {("DAILY_REWARD", DAY, 25, None, False)}


@pytest.mark.parametrize(
    ("event", "period"),
    [
        ({}, None),
        ({"time": "2026-11-22T04:00:00Z"}, "2026-11-22"),
        ({"time": "2026-11-22T23:30:00Z", "time_zone": "Asia/Tokyo"}, "2026-11-23"),
        ({"time": "2026-11-22T04:00:00Z", "period": "week"}, "2026-W47"),
        ({"time": "2026-11-22T04:00:00Z", "period": "month"}, "2026-11"),
        ({"period": "2026-11-15"}, "2026-11-15"),
        ({"period": "2026-W40", "time": "2026-11-22T04:00:00Z"}, "2026-W40"),
    ],
)
def test_period_is_the_scheduled_time_s_or_a_certain_one(
    event: dict[str, Any], period: str | None
) -> None:
    """Never the clock's: an event that does not tell is refused."""
    read = SweepEvent.read(event)
    if period is None:
        with pytest.raises(InvalidRequestError, match="time: is missing"):
            read.sought_period()
    else:
        assert str(read.sought_period()) == period


@pytest.mark.parametrize(
    "event",
    [
        None,
        [],
        {"segmnets": 4},
        {"segments": 0},
        {"segments": 1001},
        {"segments": "4"},
        {"time": "today"},
        {"time": "2026-11-22T04:00:00"},
        {"operation": 1},
        {"period": DAY, "force": "yes"},
        {"body": "{}", "requestContext": {}},
    ],
)
def test_event_that_is_none_is_refused(cloud: Cloud, event: Any) -> None:
    """With an error that says what is wrong, and nothing on the queue."""
    with pytest.raises(InvalidRequestError, match="invalid schedule event: "):
        cloud.function()(event, Context())
    assert cloud.records() == []


@pytest.mark.parametrize(
    ("time_zone", "in_doubt"),
    [
        ("UTC", ["2026-11-14", "2026-11-23", "2031-01-01", "2026-W45", "2026-12"]),
        ("Asia/Tokyo", ["2026-11-15", "2026-11-24"]),  # where it is the 23rd already
        ("America/New_York", ["2026-11-14", "2026-11-23"]),
    ],
)
def test_period_to_come_or_long_over_takes_force(
    cloud: Cloud, time_zone: str, in_doubt: list[str]
) -> None:
    """Without it the event is refused, says why, and nothing is on the queue; with it, it is an event as any other."""
    cloud.clock = lambda: datetime(2026, 11, 22, 16, tzinfo=UTC)
    function = cloud.function()
    for period in in_doubt:
        event = {"period": period, "segments": 1, "time_zone": time_zone}
        with pytest.raises(
            InvalidRequestError, match=f'^period: {period} .* in {time_zone}; set "force": true to'
        ):
            function(event, Context())
        assert cloud.records() == []
        assert function({**event, "force": True}, Context())["period"] == period
        cloud.drain(function)


@pytest.mark.parametrize(("time_zone", "days"), [("UTC", (15, 22)), ("Asia/Tokyo", (16, 23))])
def test_periods_of_the_last_days_take_no_force(
    cloud: Cloud, time_zone: str, days: tuple[int, int]
) -> None:
    """Today and seven days ago, by the calendar of the zone."""
    cloud.clock = lambda: datetime(2026, 11, 22, 16, tzinfo=UTC)
    for day in days:
        begun = cloud.function()(
            {"period": f"2026-11-{day}", "segments": 1, "time_zone": time_zone}, Context()
        )
        assert begun["period"] == f"2026-11-{day}"


def test_time_of_an_event_is_no_way_around_it(cloud: Cloud) -> None:
    """An event that says it was due in five years is refused as well."""
    with pytest.raises(InvalidRequestError, match="period: 2031-01-01 is later than today"):
        cloud.function()({"period": "day", "time": "2031-01-01T04:00:00Z"}, Context())
    assert cloud.records() == []


def test_operation_that_is_not_scheduled_is_refused(cloud: Cloud) -> None:
    """Nobody gives a signup credit to everybody by a slip."""
    with pytest.raises(UnknownOperationError):
        cloud.function()({**EVENT, "operation": "SIGNUP_CREDIT"}, Context())
    assert cloud.records() == []


def test_queue_that_does_not_take_all_is_a_failure(cloud: Cloud) -> None:
    """The schedule's event is then tried again as a whole, and what comes twice does no harm."""
    owners, sends = cloud.seed(10), iter(range(100))

    def send(real: Callable[..., Any], **arguments: Any) -> Any:
        if next(sends) == 2:
            raise ClientError(
                {"Error": {"Code": "ServiceUnavailable", "Message": "no"}}, "SendMessage"
            )
        return real(**arguments)

    with patched(cloud.sqs, send_message=send):
        with pytest.raises(ClientError):
            cloud.function()(EVENT, Context())
        cloud.function()(EVENT, Context())
    cloud.drain()
    cloud.check(owners, [DAY])


@pytest.mark.parametrize("answer", [{}, {"ResponseMetadata": {"HTTPStatusCode": 200}}])
def test_segment_is_on_the_queue_only_when_sqs_says_so(answer: dict[str, Any]) -> None:
    """A 200 without a message id is not SQS's: what was sent may be nowhere, and the event fails and comes again."""
    (segment,) = Segment.all_of(
        Reward.of(ExampleAppOperations, "DAILY_REWARD", Period.parse("2026-11-22")), 1, NOON
    )
    client: Any = SimpleNamespace(send_message=lambda **_: answer)
    with pytest.raises(UnavailableError):
        SegmentQueue(client, "http://queue").send(segment)


def test_only_failed_messages_come_again(cloud: Cloud) -> None:
    """Of a batch with one that is no segment, the others are seen to and it alone is reported."""
    owners, function = cloud.seed(10), cloud.function()
    function({**EVENT, "segments": 2}, Context())
    records = [*cloud.records(), {"messageId": "bad", "body": "{}"}, {"messageId": "worse"}]
    answer = function({"Records": records}, Context())
    assert answer == {"batchItemFailures": [{"itemIdentifier": "bad"}, {"itemIdentifier": "worse"}]}
    cloud.check(owners, [DAY])


def test_segment_that_goes_on_failing_is_a_dead_letter_and_can_be_resumed(cloud: Cloud) -> None:
    """After its tries it is kept, with its place; put back, it goes on from there."""
    owners = cloud.seed(20)
    tries = []

    def scan(real: Callable[..., Any], **arguments: Any) -> Any:
        if arguments["Segment"] == 1:
            tries.append(arguments["TotalSegments"])
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "Scan")
        return real(**arguments)

    with patched(cloud.dynamodb, scan=scan):
        cloud.run(DAY, segments=2)
    (dead,) = cloud.dead_letters()
    assert (dead["segment"], dead["segments"], dead["period"], len(tries)) == (
        1,
        2,
        DAY,
        RECEIVES_MAX,
    )
    cloud.redrive()
    cloud.drain()
    cloud.check(owners, [DAY])
    assert cloud.dead_letters() == []


def test_worker_without_time_fails_and_loses_nothing(cloud: Cloud) -> None:
    """A segment that got no further is not put back as if it had."""
    owners, function = cloud.seed(5), cloud.function()
    function({**EVENT, "segments": 1}, Context())
    (record,) = cloud.records()
    failed = function({"Records": [record]}, Context(STOP_SECONDS - 1))["batchItemFailures"]
    assert failed == [{"itemIdentifier": record["messageId"]}]
    cloud.drain()
    cloud.check(owners, [DAY])


def test_lines_and_metrics_of_a_run(cloud: Cloud, capfd: pytest.CaptureFixture[str]) -> None:
    """A line when it begins, one for each segment, one for the whole when the last segment is done; no owner's id."""
    cloud.seed(20)
    cloud.run(DAY, segments=2)
    begun, *finished, complete = lines(capfd)
    assert (begun["sweep"], begun["period"], begun["segments"]) == ("begun", DAY, 2)
    assert [one["sweep"] for one in finished] == ["finished"] * 2
    assert (
        sum(one["granted"] for one in finished) == complete["granted"] == complete["rewarded"] == 20
    )
    assert complete["dynamodb_requests"] == sum(one["dynamodb_requests"] for one in finished) >= 4
    assert complete["owners_per_second"] > 0
    assert (complete["sweep"], complete["failed"], complete["already"]) == ("complete", 0, 0)
    assert {
        "RewardsGranted",
        "RewardsRequests",
        "RewardsWriteUnits",
        "RewardsPerSecond",
        "RewardsRunTime",
    } <= {name for one in finished for name in metrics(one)}
    assert metrics(complete) == {"RewardsRunsComplete"}  # there is no day before to compare with


def test_deviation_from_the_period_before(cloud: Cloud, capfd: pytest.CaptureFixture[str]) -> None:
    """A complete run tells how far it is from the last complete one of the day before, by any worker."""
    cloud.seed(8)
    cloud.run("2026-11-21")
    cloud.run("2026-11-21")  # which grants nothing, but all have it
    cloud.function()({"period": "2026-11-21"}, Context())  # which nobody completes
    while records := cloud.records():
        for record in records:
            cloud.sqs.delete_message(QueueUrl=cloud.url, ReceiptHandle=record["receiptHandle"])
    cloud.seed(2, first=8)
    lines(capfd)
    cloud.run("2026-11-22")
    complete = lines(capfd)[-1]
    assert (complete["rewarded"], complete["rewarded_before"], complete["RewardsDeviation"]) == (
        10,
        8,
        25.0,
    )
    cloud.run("2026-11-23")
    assert lines(capfd)[-1]["RewardsDeviation"] == 0.0


def test_run_before_that_cannot_be_read_is_left_out(
    cloud: Cloud, capfd: pytest.CaptureFixture[str]
) -> None:
    """The line of the run is written all the same."""
    cloud.seed(3)

    def query(_real: Callable[..., Any], **arguments: Any) -> Any:
        raise ClientError({"Error": {"Code": "ThrottlingException", "Message": "no"}}, "Query")

    with patched(cloud.dynamodb, query=query):
        cloud.run(DAY, segments=1)
    complete = lines(capfd)[-1]
    assert (complete["sweep"], complete["rewarded"], "rewarded_before" in complete) == (
        "complete",
        3,
        False,
    )
    assert cloud.records() == []


def test_segment_that_is_finished_twice_counts_once(
    cloud: Cloud, capfd: pytest.CaptureFixture[str]
) -> None:
    """A message that comes again after the run was complete makes no second line of it."""
    cloud.seed(5)
    function = cloud.function()
    function({**EVENT, "segments": 1}, Context())
    (record,) = cloud.records()
    for _ in range(2):
        function({"Records": [record]}, Context())
    told = [one for one in lines(capfd) if one["sweep"] == "complete"]
    assert [(one["granted"], one["already"]) for one in told] == [(5, 0)]


def test_metrics_of_a_segment_that_is_put_back_count_once(
    cloud: Cloud, capfd: pytest.CaptureFixture[str]
) -> None:
    """A line has all that was done for a segment, its metrics only what was done since the last one."""
    (owner,) = cloud.seed(1)
    segment = Segment(
        operation="DAILY_REWARD",
        period=DAY,
        segment=0,
        segments=1,
        started_at=NOON,
        tally=Tally(granted=7),
    )
    cloud.sqs.send_message(QueueUrl=cloud.url, MessageBody=segment.model_dump_json())
    cloud.drain()
    finished, complete = lines(capfd)
    assert (finished["granted"], finished["RewardsGranted"], complete["granted"]) == (8, 1, 8)
    cloud.check([owner], [DAY])
