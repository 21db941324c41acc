"""The system clock is compared with DynamoDB's, and an entry is not written if it is off."""

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
    """The two clocks of a machine, which move only when a test moves them."""

    def __init__(self) -> None:
        self.wall = NOON.timestamp()
        self.monotonic = 5.0
        self.clock = SystemClock(wall=lambda: self.wall, monotonic=lambda: self.monotonic)

    def pass_by(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds

    def hold(self, ahead: float = 0, *, took: float = 0) -> None:
        """Compare the clock with an answer; the machine is `ahead` of DynamoDB."""
        passed = self.wall - NOON.timestamp()
        answered = NOON + timedelta(seconds=passed - ahead)
        self.clock.hold(date(answered), since=self.wall - took)


def date(time: datetime) -> str:
    """A time as HTTP spells it."""
    return format_datetime(time, usegmt=True)


def dated(client: Any, change: Callable[[datetime], str | None]) -> None:
    """Change the date of each answer of DynamoDB; `None` removes it."""

    def alter(parsed: dict[str, Any], **_: Any) -> None:
        headers = parsed["ResponseMetadata"]["HTTPHeaders"]
        del headers["date"]
        if text := change(datetime.now(UTC)):
            headers["date"] = text

    client.meta.events.unregister("after-call.dynamodb", unique_id="dated")
    client.meta.events.register("after-call.dynamodb", alter, unique_id="dated")


def behind(by: timedelta) -> Callable[[datetime], str]:
    """A date that is behind the machine's clock."""
    return lambda now: date(now - by)


def test_constant_is_what_operators_read() -> None:
    """A clock may be 30 seconds off."""
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
def test_clock_is_off_only_beyond_doubt(
    ahead: float, is_off: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A clock is off by more than 30 seconds; a date is rounded down by up to 1 second."""
    machine = Machine()
    machine.hold(ahead)
    if not is_off:
        assert machine.clock() == NOON
        assert caplog.messages == []
        return
    with pytest.raises(UnavailableError, match=REFUSED):
        machine.clock()
    rounding_seconds = 1 if ahead > 0 else 0
    off = ahead - rounding_seconds
    assert caplog.messages == [
        f"the clock is {off:+.0f} seconds off DynamoDB's: nothing is written until it is set"
    ]
    assert caplog.records[0].levelno == logging.ERROR


def test_each_answer_renews_the_measure() -> None:
    """The next answer shows whether a clock that was set is now right or off."""
    machine = Machine()
    for ahead, is_off in ((0, False), (99, True), (99, True), (0, False), (-99, True), (0, False)):
        machine.hold(ahead)
        if is_off:
            with pytest.raises(UnavailableError, match=REFUSED):
                machine.clock()
        else:
            assert machine.clock() == NOON


def test_clock_without_an_answer_gives_no_time() -> None:
    """A clock that was not compared with an answer fails."""
    message = r"^The clock was not held against DynamoDB's yet\.$"
    with pytest.raises(UnavailableError, match=message):
        SystemClock()()


@pytest.mark.parametrize("seconds", [31, -31, 1e9])
def test_clock_that_was_set_gives_no_time_before_an_answer(seconds: float) -> None:
    """After the last answer the wall clock moved and the monotonic clock did not."""
    machine = Machine()
    machine.hold()
    machine.pass_by(1e6)
    assert machine.clock() == NOON + timedelta(seconds=1e6)
    machine.wall += seconds
    message = r"^The clock was set, and not held against DynamoDB's since\.$"
    with pytest.raises(UnavailableError, match=message):
        machine.clock()
    machine.hold()
    assert machine.clock().timestamp() == machine.wall


def test_offset_and_later_change_add_up() -> None:
    """Two small errors are too much together, unless the second corrects the first."""
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
    """An answer may take minutes: its date lies between the request and now."""
    machine = Machine()
    for ahead, took in ((600, 600), (0, 600), (300, 600)):
        machine.hold(ahead, took=took)
        assert machine.clock() == NOON


@pytest.mark.parametrize(
    "text", [None, "", "now", "Sun, 22 Nov 99999 12:00:00 GMT", "Sun, 31 Feb 2026 12:00:00 GMT"]
)
def test_answer_without_a_date_clears_the_offset(text: str | None) -> None:
    """A clock that was off is trusted again after an answer without a readable date."""
    machine = Machine()
    machine.hold(99)
    machine.clock.hold(text, since=machine.wall)
    assert machine.clock() == NOON


@pytest.mark.parametrize("ahead", [YEARS, timedelta(seconds=40), -YEARS, timedelta(seconds=-40)])
def test_nothing_is_written_while_the_clock_is_off(
    client: "DynamoDBClient", ahead: timedelta, caplog: pytest.LogCaptureFixture
) -> None:
    """Each request reads again, and an entry is written as soon as the clock is right."""
    processor = create_processor(ExampleAppOperations, client)
    assert processor.process(add(1, "known", owner_id="bob")).id == 1
    dated(client, behind(ahead))
    sent = wire(client)
    for owner_id in ("ada", "bob", "bob"):
        with pytest.raises(UnavailableError):
            processor.process(add(1, "n", owner_id=owner_id))
    assert sent == ["GetItem"] * 3
    assert len([line for line in caplog.messages if "nothing is written" in line]) >= 3
    dated(client, date)
    assert processor.process(add(1, "n", owner_id="ada")).id == 1
    assert processor.process(add(1, "n", owner_id="bob")).id == 2
    sent.clear()
    assert processor.process(add(1, "m", owner_id="bob")).id == 3
    assert sent == ["TransactWriteItems"]


def test_each_answer_shows_whether_the_clock_is_off(client: "DynamoDBClient") -> None:
    """The answers to reads, to writes and to cancelled writes have a date."""
    store = create_account_store(client)
    entry = NEW.next_entry(add(1, "n"), amount=1, now=NOON)
    calls: list[Callable[[], Any]] = [
        lambda: store.account("ada", consistent=True),
        lambda: store.transact([change_of(NEW, entry)], token="done"),  # cancelled the second time
        lambda: store.transact([change_of(NEW, entry)], token="again"),
        lambda: store.look_up("ada", "n"),
        lambda: store.accounts_with("n", ["ada"]),
        lambda: store.latest("ada"),
        lambda: store.accounts(segment=0, segments=1, start=None, limit=1),
    ]
    for call in calls:
        for change, is_off in ((behind(YEARS), True), (date, False)):
            dated(client, change)
            call()
            expected = pytest.raises(UnavailableError, match=REFUSED) if is_off else nullcontext()
            with expected:
                store.clock()


def test_error_of_dynamodb_shows_whether_the_clock_is_off(client: "DynamoDBClient") -> None:
    """The date of an error counts only if the error has a request id, so comes from DynamoDB."""
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
def test_expired_signature_is_temporary_if_the_clock_is_off(code: str) -> None:
    """With a right clock, an expired signature is a permanent error."""
    for ahead, raised in ((0, StoreError), (600, UnavailableError)):
        machine = Machine()
        headers = {"date": date(NOON - timedelta(seconds=ahead))}
        answer: Any = {
            "Error": {"Code": code},
            "ResponseMetadata": {"RequestId": "r", "HTTPHeaders": headers},
        }
        with pytest.raises(raised), dynamodb_request(machine.clock):
            raise ClientError(answer, "GetItem")


def test_lost_answer_leaves_the_offset_as_it_is() -> None:
    """A request without an answer does not change whether the clock is off."""
    machine = Machine()
    machine.hold(99)
    with pytest.raises(UnavailableError), dynamodb_request(machine.clock):
        raise EndpointConnectionError(endpoint_url="dynamodb")
    with pytest.raises(UnavailableError, match=REFUSED):
        machine.clock()


def test_clock_that_is_passed_in_is_not_checked(client: "DynamoDBClient") -> None:
    """A test or an import may pass in a clock that differs from DynamoDB's."""
    dated(client, behind(YEARS))
    processor = create_processor(ExampleAppOperations, client, clock=lambda: NOON)
    assert processor.process(add(1, "n")).created_at == NOON


def test_refusal_needs_the_time_too(client: "DynamoDBClient") -> None:
    """The balance that an account can spend depends on the time, so the answer is unavailable."""
    dated(client, behind(YEARS))
    with pytest.raises(UnavailableError):
        create_processor(ExampleAppOperations, client).process(spend(1, "n"))


def test_answer_is_503_and_the_log_says_why(
    client: "DynamoDBClient", caplog: pytest.LogCaptureFixture
) -> None:
    """The client gets Retry-After, and the operator gets the offset of the clock."""
    dated(client, behind(YEARS))
    api = LambdaApi(create_handler(create_app(client)))
    body = {"owner_id": "ada", "operation": "SIGNUP_CREDIT", "nonce": "n"}
    answer = api("POST", "/ledger/entry", body)
    assert (answer.status, answer.body["code"]) == (503, "unavailable")
    assert answer.headers["retry-after"] == "1"
    assert any(message.startswith("the clock is +3156") for message in caplog.messages)
    dated(client, date)
    assert api("POST", "/ledger/entry", body).status == 200


def test_sweep_writes_nothing_while_the_clock_is_off(client: "DynamoDBClient") -> None:
    """The sweep fails, so that its message comes again; a dry run only counts and succeeds."""
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
    # The reward is written already, so the clock is not needed.
    assert Sweep(store, DAY).run(segment, seconds=60).tally.already == 1


def test_sweep_whose_clock_is_set_meanwhile_reads_the_page_again(
    client: "DynamoDBClient", monkeypatch: pytest.MonkeyPatch
) -> None:
    """The waiting rewards are written only after the clock was compared again."""
    processor = create_processor(ExampleAppOperations, client)
    for owner_id in ("ada", "bob", "eve"):
        processor.process(add(1, "n", owner_id=owner_id))
    monkeypatch.setattr("ledger_core.rewards.batch_writer.WRITES_MAX", 1)
    monkeypatch.setattr("ledger_core.rewards.batch_writer.TRANSACTIONS_MAX", 1)
    store = create_account_store(client)
    (segment,) = Segment.all_of(DAY, 1, NOON)
    sweep = Sweep(store, DAY)
    is_known = iter([True, True, True, False])

    def clock() -> datetime:
        if not next(is_known, True):
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
