"""The scheduled function: its events, its messages and its lines."""

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
    """The names of the metrics of a line."""
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == METRICS_NAMESPACE
    assert directive["Dimensions"] == [["service"], ["service", "operation"]]
    assert line["operation"] == "DAILY_REWARD"
    return {metric["Name"] for metric in directive["Metrics"]}


def test_handler_is_made_from_the_environment(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function that is made from variables only handles the event and its messages."""
    monkeypatch.setenv("LEDGER_REWARDS_QUEUE_URL", cloud.url)
    owners = cloud.seed(30)
    cloud.create_runs()
    handler = create_function(ExampleAppOperations)
    assert handler(EVENT, Context()) == {"operation": "DAILY_REWARD", "period": DAY, "segments": 4}
    cloud.drain(handler)
    cloud.check(owners, [DAY])


def test_event_of_the_schedule_becomes_segments(cloud: Cloud) -> None:
    """Each message has everything that a worker needs for its segment."""
    cloud.function()({**EVENT, "segments": 25}, Context())
    found: list[dict[str, Any]] = []
    while len(found) < 25:
        found += cloud.records()
        for record in found:
            cloud.sqs.delete_message(QueueUrl=cloud.url, ReceiptHandle=record["receiptHandle"])
    segments = [SegmentQueue.read(record) for record in found]
    assert sorted(segment.segment for segment in segments) == list(range(25))
    for segment in segments:
        assert (segment.operation, segment.period) == ("DAILY_REWARD", DAY)
        assert (segment.segments, segment.start, segment.finished) == (25, None, False)


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
def test_period_is_named_or_that_of_the_scheduled_time(
    event: dict[str, Any], period: str | None
) -> None:
    """The clock gives no period: an event without a time and a period is refused."""
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
def test_invalid_event_is_refused(cloud: Cloud, event: Any) -> None:
    """The error says what is wrong, and no message is sent."""
    with pytest.raises(InvalidRequestError, match="invalid schedule event: "):
        cloud.function()(event, Context())
    assert cloud.records() == []


@pytest.mark.parametrize(
    ("time_zone", "in_doubt"),
    [
        ("UTC", ["2026-11-14", "2026-11-23", "2031-01-01", "2026-W45", "2026-12"]),
        ("Asia/Tokyo", ["2026-11-15", "2026-11-24"]),  # where the 23rd has begun
        ("America/New_York", ["2026-11-14", "2026-11-23"]),
    ],
)
def test_later_or_old_period_needs_force(cloud: Cloud, time_zone: str, in_doubt: list[str]) -> None:
    """Without `force` the event is refused and no message is sent; with `force` it is accepted."""
    cloud.clock = lambda: datetime(2026, 11, 22, 16, tzinfo=UTC)
    function = cloud.function()
    for period in in_doubt:
        event = {"period": period, "segments": 1, "time_zone": time_zone}
        message = f'^period: {period} .* in {time_zone}; set "force": true to'
        with pytest.raises(InvalidRequestError, match=message):
            function(event, Context())
        assert cloud.records() == []
        assert function({**event, "force": True}, Context())["period"] == period
        cloud.drain(function)


@pytest.mark.parametrize(("time_zone", "days"), [("UTC", (15, 22)), ("Asia/Tokyo", (16, 23))])
def test_period_of_the_last_days_needs_no_force(
    cloud: Cloud, time_zone: str, days: tuple[int, int]
) -> None:
    """Today and seven days ago, in the time zone, are accepted without `force`."""
    cloud.clock = lambda: datetime(2026, 11, 22, 16, tzinfo=UTC)
    for day in days:
        event = {"period": f"2026-11-{day}", "segments": 1, "time_zone": time_zone}
        begun = cloud.function()(event, Context())
        assert begun["period"] == f"2026-11-{day}"


def test_event_with_a_later_time_is_refused(cloud: Cloud) -> None:
    """A scheduled time in five years is refused, as its period is."""
    with pytest.raises(InvalidRequestError, match="period: 2031-01-01 is later than today"):
        cloud.function()({"period": "day", "time": "2031-01-01T04:00:00Z"}, Context())
    assert cloud.records() == []


def test_operation_that_is_not_scheduled_is_refused(cloud: Cloud) -> None:
    """An event for an operation that is not scheduled sends no message."""
    with pytest.raises(UnknownOperationError):
        cloud.function()({**EVENT, "operation": "SIGNUP_CREDIT"}, Context())
    assert cloud.records() == []


def test_event_fails_if_a_message_is_not_sent(cloud: Cloud) -> None:
    """The event is tried again as a whole, and a repeated message does no harm."""
    owners = cloud.seed(10)
    sends = iter(range(100))

    def send(real: Callable[..., Any], **arguments: Any) -> Any:
        if next(sends) == 2:
            error: Any = {"Error": {"Code": "ServiceUnavailable", "Message": "no"}}
            raise ClientError(error, "SendMessage")
        return real(**arguments)

    with patched(cloud.sqs, send_message=send):
        with pytest.raises(ClientError):
            cloud.function()(EVENT, Context())
        cloud.function()(EVENT, Context())
    cloud.drain()
    cloud.check(owners, [DAY])


@pytest.mark.parametrize("answer", [{}, {"ResponseMetadata": {"HTTPStatusCode": 200}}])
def test_message_is_sent_only_if_sqs_gives_its_id(answer: dict[str, Any]) -> None:
    """A 200 without a message id is not from SQS, so the event fails and comes again."""
    reward = Reward.of(ExampleAppOperations, "DAILY_REWARD", Period.parse("2026-11-22"))
    (segment,) = Segment.all_of(reward, 1, NOON)
    client: Any = SimpleNamespace(send_message=lambda **_: answer)
    with pytest.raises(UnavailableError):
        SegmentQueue(client, "http://queue").send(segment)


def test_only_failed_messages_come_again(cloud: Cloud) -> None:
    """The handler reports only the messages of a batch that are no segment."""
    owners = cloud.seed(10)
    function = cloud.function()
    function({**EVENT, "segments": 2}, Context())
    records = [*cloud.records(), {"messageId": "bad", "body": "{}"}, {"messageId": "worse"}]
    answer = function({"Records": records}, Context())
    assert answer == {"batchItemFailures": [{"itemIdentifier": "bad"}, {"itemIdentifier": "worse"}]}
    cloud.check(owners, [DAY])


def test_segment_that_keeps_failing_is_a_dead_letter(cloud: Cloud) -> None:
    """The dead letter keeps the place of the segment, and goes on from it when it is put back."""
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
    assert (dead["segment"], dead["segments"], dead["period"]) == (1, 2, DAY)
    assert len(tries) == RECEIVES_MAX
    cloud.redrive()
    cloud.drain()
    cloud.check(owners, [DAY])
    assert cloud.dead_letters() == []


def test_worker_without_time_fails_and_loses_nothing(cloud: Cloud) -> None:
    """A segment without progress fails, and its message comes again."""
    owners = cloud.seed(5)
    function = cloud.function()
    function({**EVENT, "segments": 1}, Context())
    (record,) = cloud.records()
    failed = function({"Records": [record]}, Context(STOP_SECONDS - 1))["batchItemFailures"]
    assert failed == [{"itemIdentifier": record["messageId"]}]
    cloud.drain()
    cloud.check(owners, [DAY])


def test_lines_and_metrics_of_a_run(cloud: Cloud, capfd: pytest.CaptureFixture[str]) -> None:
    """A run has a line at its begin, a line for each segment, and a line when it is complete."""
    cloud.seed(20)
    cloud.run(DAY, segments=2)
    begun, *finished, complete = lines(capfd)
    assert (begun["sweep"], begun["period"], begun["segments"]) == ("begun", DAY, 2)
    assert [line["sweep"] for line in finished] == ["finished"] * 2
    granted = sum(line["granted"] for line in finished)
    assert granted == complete["granted"] == complete["rewarded"] == 20
    requests = sum(line["dynamodb_requests"] for line in finished)
    assert complete["dynamodb_requests"] == requests >= 4
    assert complete["owners_per_second"] > 0
    assert (complete["sweep"], complete["failed"], complete["already"]) == ("complete", 0, 0)
    assert {
        "RewardsGranted",
        "RewardsRequests",
        "RewardsWriteUnits",
        "RewardsPerSecond",
        "RewardsRunTime",
    } <= {name for line in finished for name in metrics(line)}
    assert metrics(complete) == {"RewardsRunsComplete"}  # no run before to compare with


def test_deviation_from_the_period_before(cloud: Cloud, capfd: pytest.CaptureFixture[str]) -> None:
    """A complete run is compared with the last complete run of the day before."""
    cloud.seed(8)
    cloud.run("2026-11-21")
    cloud.run("2026-11-21")  # grants nothing, and counts all owners as rewarded
    cloud.function()({"period": "2026-11-21"}, Context())  # is never completed
    while records := cloud.records():
        for record in records:
            cloud.sqs.delete_message(QueueUrl=cloud.url, ReceiptHandle=record["receiptHandle"])
    cloud.seed(2, first=8)
    lines(capfd)
    cloud.run("2026-11-22")
    complete = lines(capfd)[-1]
    assert (complete["rewarded"], complete["rewarded_before"]) == (10, 8)
    assert complete["RewardsDeviation"] == 25.0
    cloud.run("2026-11-23")
    assert lines(capfd)[-1]["RewardsDeviation"] == 0.0


def test_unreadable_run_before_is_left_out(cloud: Cloud, capfd: pytest.CaptureFixture[str]) -> None:
    """The line of the run is written without the comparison."""
    cloud.seed(3)

    def query(_real: Callable[..., Any], **arguments: Any) -> Any:
        raise ClientError({"Error": {"Code": "ThrottlingException", "Message": "no"}}, "Query")

    with patched(cloud.dynamodb, query=query):
        cloud.run(DAY, segments=1)
    complete = lines(capfd)[-1]
    assert (complete["sweep"], complete["rewarded"]) == ("complete", 3)
    assert "rewarded_before" not in complete
    assert cloud.records() == []


def test_segment_that_is_finished_twice_counts_once(
    cloud: Cloud, capfd: pytest.CaptureFixture[str]
) -> None:
    """A message that comes again after the run is complete writes no second line of the run."""
    cloud.seed(5)
    function = cloud.function()
    function({**EVENT, "segments": 1}, Context())
    (record,) = cloud.records()
    for _ in range(2):
        function({"Records": [record]}, Context())
    (complete,) = [line for line in lines(capfd) if line["sweep"] == "complete"]
    assert (complete["granted"], complete["already"]) == (5, 0)


def test_metrics_of_a_segment_that_is_put_back_count_once(
    cloud: Cloud, capfd: pytest.CaptureFixture[str]
) -> None:
    """The line has the counts of the whole segment, and the metrics only the new counts."""
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
