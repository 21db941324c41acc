"""The clock that entries get their times by: held against DynamoDB's, and not written by when it is off."""

import logging
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from functions.example_app.app import create_app
from functions.example_app.operations import ExampleAppOperations
from ledger_core import UnavailableError
from ledger_core.account import Account
from ledger_core.dynamodb import SystemClock, dynamodb_request
from ledger_core.dynamodb.clock import CLOCK_OFF_SECONDS_MAX
from ledger_core.dynamodb.request import SIGNATURE_IS_OFF
from ledger_core.errors import StoreError
from ledger_core.http import create_handler
from ledger_core.periods import Period
from ledger_core.rewards import Reward, Segment, Sweep
from ledger_core.wiring import create_account_store, create_processor, create_store
from tests.support import NOON, LambdaApi, add, change_of, spend, wire

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

DAY = Reward.of(ExampleAppOperations, "DAILY_REWARD", Period.parse("2026-11-22"))
NEW = Account(owner_id="ada")
YEARS = timedelta(days=3653)
REFUSED = r"^The clock of the ledger's machine is off\.$"


class Machine:
    """A machine's two clocks, which stand still; one of them may be set."""

    def __init__(self) -> None:
        self.wall, self.monotonic = NOON.timestamp(), 5.0
        self.clock = SystemClock(wall=lambda: self.wall, monotonic=lambda: self.monotonic)

    def pass_by(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds

    def hold(self, ahead: float = 0, *, took: float = 0) -> None:
        """An answer of a DynamoDB whose clock is so much behind the machine's."""
        self.clock.hold(
            date(NOON + timedelta(seconds=self.wall - NOON.timestamp() - ahead)),
            since=self.wall - took,
        )


def date(time: datetime) -> str:
    """As HTTP has it."""
    return format_datetime(time, usegmt=True)


def dated(client: Any, change: Callable[[datetime], str | None]) -> None:
    """From now on DynamoDB's answers have another date; None: none."""

    def alter(parsed: dict[str, Any], **_: Any) -> None:
        headers = parsed["ResponseMetadata"]["HTTPHeaders"]
        del headers["date"]
        if text := change(datetime.now(UTC)):
            headers["date"] = text

    client.meta.events.unregister("after-call.dynamodb", unique_id="dated")
    client.meta.events.register("after-call.dynamodb", alter, unique_id="dated")


def behind(by: timedelta) -> Callable[[datetime], str]:
    """As if the machine's clock were ahead by so much."""
    return lambda now: date(now - by)


def test_constant_is_what_operators_are_told() -> None:
    """Half a minute, which no machine that asks for the time is off."""
    assert CLOCK_OFF_SECONDS_MAX == 30


@pytest.mark.parametrize(
    ("ahead", "is_off"),
    [
        (0, False),
        (30, False),
        (31, False),
        (32, True),
        (-30, False),
        (-31, True),
        (1e8, True),
        (-1e8, True),
    ],
)
def test_clock_is_off_when_it_is_certain_to_be(
    ahead: float, is_off: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """By more than half a minute, either way; what a date leaves out, up to a second, is in the clock's favour."""
    machine = Machine()
    machine.hold(ahead)
    if not is_off:
        assert machine.clock() == NOON
        assert caplog.messages == []
        return
    with pytest.raises(UnavailableError, match=REFUSED):
        machine.clock()
    off = ahead - 1 if ahead > 0 else ahead
    assert caplog.messages == [
        f"the clock is {off:+.0f} seconds off DynamoDB's: nothing is written until it is set"
    ]
    assert caplog.records[0].levelno == logging.ERROR


def test_each_answer_renews_the_measure() -> None:
    """A clock that was set is right with the next answer, and one that was set wrongly is off with it."""
    machine = Machine()
    for ahead, is_off in ((0, False), (99, True), (99, True), (0, False), (-99, True), (0, False)):
        machine.hold(ahead)
        if is_off:
            with pytest.raises(UnavailableError, match=REFUSED):
                machine.clock()
        else:
            assert machine.clock() == NOON


def test_clock_without_an_answer_is_not_written_by() -> None:
    """There is no entry by a clock that nobody has looked at."""
    with pytest.raises(
        UnavailableError, match=r"^The clock was not held against DynamoDB's yet\.$"
    ):
        SystemClock()()


@pytest.mark.parametrize("seconds", [31, -31, 1e9])
def test_clock_that_was_set_is_looked_at_before_it_is_written_by(seconds: float) -> None:
    """Since the last answer it has gone another way than the clock that nobody sets."""
    machine = Machine()
    machine.hold()
    machine.pass_by(1e6)
    assert machine.clock() == NOON + timedelta(seconds=1e6)
    machine.wall += seconds
    with pytest.raises(
        UnavailableError, match=r"^The clock was set, and not held against DynamoDB's since\.$"
    ):
        machine.clock()
    machine.hold()
    assert machine.clock().timestamp() == machine.wall


def test_what_it_was_off_and_what_it_was_set_by_add_up() -> None:
    """Twice a little is too much, unless the second makes good the first."""
    for set_by, is_off in ((20, True), (-20, False)):
        machine = Machine()
        machine.hold(21)
        machine.wall += set_by
        if is_off:
            with pytest.raises(UnavailableError):
                machine.clock()
        else:
            assert machine.clock().timestamp() == machine.wall


def test_frozen_process_is_not_off() -> None:
    """An answer may have been on its way for minutes: its date lies between the request and now."""
    machine = Machine()
    for ahead, took in ((600, 600), (0, 600), (300, 600)):
        machine.hold(ahead, took=took)
        assert machine.clock() == NOON


@pytest.mark.parametrize(
    "text", [None, "", "now", "Sun, 22 Nov 99999 12:00:00 GMT", "Sun, 31 Feb 2026 12:00:00 GMT"]
)
def test_answer_without_a_date_is_held_against_nothing(text: str | None) -> None:
    """Nor does it leave in place what an earlier one said."""
    machine = Machine()
    machine.hold(99)
    machine.clock.hold(text, since=machine.wall)
    assert machine.clock() == NOON


@pytest.mark.parametrize("ahead", [YEARS, timedelta(seconds=40), -YEARS, timedelta(seconds=-40)])
def test_nothing_is_written_by_a_clock_that_is_off(
    client: "DynamoDBClient", ahead: timedelta, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the first entry of an owner nor the next: each request looks again, and writes once it may."""
    processor = create_processor(ExampleAppOperations, client)
    assert processor.process(add(1, "known", owner_id="bob")).id == 1
    dated(client, behind(ahead))
    sent = wire(client)
    for owner_id in ("ada", "bob", "bob"):
        with pytest.raises(UnavailableError):
            processor.process(add(1, "n", owner_id=owner_id))
    assert sent == ["GetItem"] * 3
    assert len([one for one in caplog.messages if "nothing is written" in one]) >= 3
    dated(client, date)
    assert processor.process(add(1, "n", owner_id="ada")).id == 1
    assert processor.process(add(1, "n", owner_id="bob")).id == 2
    sent.clear()
    assert processor.process(add(1, "m", owner_id="bob")).id == 3
    assert sent == ["TransactWriteItems"]


def test_last_answer_tells_of_the_clock_whatever_it_was(client: "DynamoDBClient") -> None:
    """The answer to a write, a cancelled one's and a refused one's have dates too."""
    store = create_account_store(client)
    entry = NEW.next_entry(add(1, "n"), amount=1, now=NOON)
    calls: list[Callable[[], Any]] = [
        lambda: store.account("ada", consistent=True),
        lambda: store.transact([change_of(NEW, entry)], token="done"),  # and then cancelled
        lambda: store.transact([change_of(NEW, entry)], token="again"),
        lambda: store.look_up("ada", "n"),
        lambda: store.owners_with("n", ["ada"]),
        lambda: store.latest("ada"),
        lambda: store.accounts(segment=0, segments=1, start=None, limit=1),
    ]
    for call in calls:
        for change, is_off in ((behind(YEARS), True), (date, False)):
            dated(client, change)
            call()
            with pytest.raises(UnavailableError, match=REFUSED) if is_off else nullcontext():
                store.clock()


def test_error_tells_of_the_clock_if_it_is_dynamodb_s(client: "DynamoDBClient") -> None:
    """An answer of something in between has no request id, and may have any date."""
    store = create_store(client)
    dated(client, behind(YEARS))
    store.account("ada", consistent=True)
    headers = {"date": date(datetime.now(UTC))}
    for metadata, is_off in (
        ({"HTTPHeaders": headers}, True),
        ({"HTTPHeaders": headers, "RequestId": "r"}, False),
    ):
        answer: Any = {"Error": {"Code": "Refused"}, "ResponseMetadata": metadata}
        with pytest.raises(StoreError), dynamodb_request(store.clock):
            raise ClientError(answer, "GetItem")
        if is_off:
            with pytest.raises(UnavailableError):
                store.clock()
        else:
            store.clock()


@pytest.mark.parametrize("code", sorted(SIGNATURE_IS_OFF))
def test_signature_that_is_too_old_is_the_clock_s_fault_if_it_is_off(code: str) -> None:
    """Then it is another 503; else the key is wrong, and stays so."""
    for ahead, raised in ((0, StoreError), (600, UnavailableError)):
        machine = Machine()
        headers = {"date": date(NOON - timedelta(seconds=ahead))}
        answer: Any = {
            "Error": {"Code": code},
            "ResponseMetadata": {"RequestId": "r", "HTTPHeaders": headers},
        }
        with pytest.raises(raised), dynamodb_request(machine.clock):
            raise ClientError(answer, "GetItem")


def test_request_without_an_answer_leaves_the_measure_as_it_is() -> None:
    """A lost answer says nothing."""
    machine = Machine()
    machine.hold(99)
    with pytest.raises(UnavailableError), dynamodb_request(machine.clock):
        raise EndpointConnectionError(endpoint_url="dynamodb")
    with pytest.raises(UnavailableError, match=REFUSED):
        machine.clock()


def test_clock_that_is_passed_in_is_not_held_against_any_other(client: "DynamoDBClient") -> None:
    """The caller has a reason to bring one, as a test or an import has."""
    dated(client, behind(YEARS))
    processor = create_processor(ExampleAppOperations, client, clock=lambda: NOON)
    assert processor.process(add(1, "n")).created_at == NOON


def test_refusal_needs_the_time_too(client: "DynamoDBClient") -> None:
    """What an account can pay depends on the time, so a clock that is off refuses nothing."""
    dated(client, behind(YEARS))
    with pytest.raises(UnavailableError):
        create_processor(ExampleAppOperations, client).process(spend(1, "n"))


def test_answer_is_503_and_the_log_says_why(
    client: "DynamoDBClient", caplog: pytest.LogCaptureFixture
) -> None:
    """The client is to come back; the operator is told which clock it is."""
    dated(client, behind(YEARS))
    api = LambdaApi(create_handler(create_app(client)))
    answer = api(
        "POST", "/ledger/entry", {"owner_id": "ada", "operation": "SIGNUP_CREDIT", "nonce": "n"}
    )
    assert (answer.status, answer.body["code"], answer.headers["retry-after"]) == (
        503,
        "unavailable",
        "1",
    )
    assert any(message.startswith("the clock is +3156") for message in caplog.messages)
    dated(client, date)
    assert (
        api(
            "POST", "/ledger/entry", {"owner_id": "ada", "operation": "SIGNUP_CREDIT", "nonce": "n"}
        ).status
        == 200
    )


def test_sweep_writes_nothing_by_a_clock_that_is_off(client: "DynamoDBClient") -> None:
    """It fails, so that its message comes again; it counts without writing all the same, and goes on once it may."""
    create_processor(ExampleAppOperations, client).process(add(1, "n"))
    store = create_account_store(client)
    (segment,) = Segment.all_of(DAY, 1, NOON)
    dated(client, behind(YEARS))
    sent = wire(client)
    with pytest.raises(UnavailableError):
        Sweep(store, DAY).run(segment, seconds=60)
    assert sent == ["Scan"]
    assert Sweep(store, DAY, dry_run=True).run(segment, seconds=60).tally.granted == 1
    dated(client, date)
    assert Sweep(store, DAY).run(segment, seconds=60).tally.granted == 1
    dated(client, behind(YEARS))
    assert (
        Sweep(store, DAY).run(segment, seconds=60).tally.already == 1
    )  # for whom nothing is to be written


def test_sweep_whose_clock_is_set_meanwhile_reads_the_page_again(
    client: "DynamoDBClient", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those who wait are written to by a clock that was looked at, or by none."""
    processor = create_processor(ExampleAppOperations, client)
    for owner_id in ("ada", "bob", "eve"):
        processor.process(add(1, "n", owner_id=owner_id))
    monkeypatch.setattr("ledger_core.rewards.batch_writer.WRITES_MAX", 1)
    monkeypatch.setattr("ledger_core.rewards.batch_writer.TRANSACTIONS_MAX", 1)
    store = create_account_store(client)
    (segment,) = Segment.all_of(DAY, 1, NOON)
    sweep, told = Sweep(store, DAY), iter([True, True, True, False])

    def clock() -> datetime:
        if not next(told, True):
            raise UnavailableError("The clock was set, and not held against DynamoDB's since.")
        return store.clock()

    monkeypatch.setattr(sweep._writer, "_clock", clock)
    sent = wire(client)
    after = sweep.run(segment, seconds=60)
    assert sent == [
        "Scan",
        "TransactWriteItems",
        "TransactWriteItems",
        "Scan",
        "TransactWriteItems",
    ]
    assert (after.finished, after.tally.rewarded) == (True, 3)
