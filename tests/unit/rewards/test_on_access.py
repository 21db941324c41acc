"""A reward at the first touch of an owner: granted once, and no request fails for it."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from functions.example_app.operations import ExampleAppOperations
from ledger_core import BaseLedgerOperations, LedgerOperationType, UnknownOperationError
from ledger_core.http import LedgerRouter, create_api, create_handler
from ledger_core.operations import active_within
from ledger_core.periods import Period
from ledger_core.posting import ACCOUNTS_MAX, OperationProcessor
from ledger_core.rewards import GrantOnAccess, Reward, Segment, Sweep
from ledger_core.settings import AuthMode
from ledger_core.wiring import create_account_store
from tests.fakes.on_access import grant_on_access
from tests.support import NOON, LambdaApi, add, operation, spend, wire

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

REWARD = Reward.of(ExampleAppOperations, "DAILY_REWARD", Period.parse("2026-11-22"))


def sweep(client: "DynamoDBClient") -> Segment:
    (segment,) = Segment.all_of(REWARD, 1, NOON)
    return Sweep(create_account_store(client), REWARD).run(segment, seconds=60)


def test_first_touch_grants_the_reward_of_the_day(
    processor: OperationProcessor, client: "DynamoDBClient"
) -> None:
    """The reward has the nonce and the mark of a sweep; the next touch sends no request."""
    processor.process(operation())
    here = grant_on_access(processor)
    entry = here.touch("ada")
    assert entry is not None
    assert entry.nonce == "ledger:daily-reward:2026-11-22"
    assert (entry.operation, entry.balance_after) == ("DAILY_REWARD", 4)
    account = processor.store.account("ada", consistent=True)
    assert account.marks == {"DAILY_REWARD:day": "2026-11-22"}
    sent = wire(client)
    assert here.touch("ada") is None
    assert sent == []
    there = grant_on_access(processor)
    assert (there.touch("ada"), there.touch("ada")) == (None, None)
    assert sent == ["GetItem"]
    assert grant_on_access(processor, day=1).touch("ada") is not None


def test_touch_and_sweep_grant_it_once(
    processor: OperationProcessor, client: "DynamoDBClient"
) -> None:
    """The touch finds the mark of a sweep, and the sweep finds the mark of a touch."""
    for owner_id in ("ada", "eve"):
        processor.process(operation(owner_id=owner_id))
    assert grant_on_access(processor).touch("ada") is not None
    done = sweep(client)
    assert (done.tally.granted, done.tally.already) == (1, 1)
    for owner_id in ("ada", "eve"):
        assert grant_on_access(processor).touch(owner_id) is None
        assert processor.store.account(owner_id, consistent=True).balance == 4


def test_touch_in_a_race_with_the_sweep(
    processor: OperationProcessor, client: "DynamoDBClient"
) -> None:
    """A reward of a sweep between the read and the write is a duplicate, and is remembered."""
    processor.process(operation())
    here = grant_on_access(processor)
    account = processor.store.account("ada", consistent=True)
    sweep(client)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processor.store, "account", lambda _owner, consistent: account)
        assert here.touch("ada") is None
    sent = wire(client)
    assert here.touch("ada") is None
    assert sent == []
    assert processor.store.account("ada", consistent=True).balance == 4


def test_owner_without_an_entry_is_not_eligible(processor: OperationProcessor) -> None:
    """An owner gets the reward only after the first entry."""
    here = grant_on_access(processor)
    assert here.touch("ada") is None
    processor.process(operation())
    assert here.touch("ada") is not None


def test_rule_of_the_app_decides(processor: OperationProcessor) -> None:
    """An inactive owner is not eligible until the next entry."""

    class Operations(BaseLedgerOperations):
        SCHEDULED = {LedgerOperationType.DAILY_REWARD: active_within(days=2)}

    past = OperationProcessor(
        processor.store, ExampleAppOperations, clock=lambda: NOON - timedelta(days=9)
    )
    past.process(operation())
    here = GrantOnAccess(processor, Operations, clock=lambda: datetime.now(UTC))
    assert here.touch("ada") is None
    processor.process(add(1, "back"))
    assert here.touch("ada") is not None


def test_failed_reward_does_not_fail_the_touch(
    processor: OperationProcessor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The failure is logged without the owner's id, and the next touch tries again."""
    processor.process(operation())
    here = grant_on_access(processor)
    monkeypatch.setenv("LEDGER_ACCOUNTS_TABLE", "x")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processor.store, "_accounts_table", "missing")
        assert here.touch("ada") is None
    (message,) = caplog.messages
    assert "gets no reward at this touch" in message
    assert "ada" not in message
    assert here.touch("ada") is not None


def test_failed_rule_does_not_fail_the_touch(
    processor: OperationProcessor, caplog: pytest.LogCaptureFixture
) -> None:
    """The failure of the app's rule is logged, and the touch grants no reward."""

    class Operations(BaseLedgerOperations):
        SCHEDULED = {LedgerOperationType.DAILY_REWARD: lambda _account, _day: bool(1 // 0)}

    processor.process(operation())
    assert GrantOnAccess(processor, Operations).touch("ada") is None
    assert "gets no reward at this touch" in caplog.text


def test_memory_of_owners_is_bounded(
    processor: OperationProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process remembers at most `ACCOUNTS_MAX` owners; a forgotten owner costs a read."""
    monkeypatch.setattr("ledger_core.rewards.on_access.ACCOUNTS_MAX", 2)
    here = grant_on_access(processor)
    for owner_id in ("ada", "eve", "joe"):
        processor.process(operation(owner_id=owner_id))
        assert here.touch(owner_id) is not None
    assert [here.touch(owner_id) for owner_id in ("ada", "eve", "joe")] == [None] * 3
    assert ACCOUNTS_MAX > 2


def test_operation_that_is_not_scheduled_fails_at_start(processor: OperationProcessor) -> None:
    """The error comes at the start, and not at the first request."""
    with pytest.raises(UnknownOperationError):
        grant_on_access(processor, operation="SIGNUP_CREDIT")


@pytest.fixture
def api(processor: OperationProcessor) -> LambdaApi:
    router = LedgerRouter(processor, grant_on_access(processor))
    return LambdaApi(create_handler(create_api("Test", router, auth=AuthMode.JWT)))


def test_request_of_an_owner_grants_the_reward_first(
    api: LambdaApi, processor: OperationProcessor
) -> None:
    """A spend may use the reward of the day, and a balance includes it."""
    processor.process(operation())
    api.claims = {"sub": "ada"}
    assert api("GET", "/ledger/ada/balance").body["balance"] == 4
    processor.process(operation(owner_id="eve"))
    api.claims = {"sub": "eve"}
    body = spend(4, "all", owner_id="eve").model_dump(exclude_none=True)
    answer = api("POST", "/ledger/entry", body)
    assert (answer.status, answer.body["balance_after"]) == (200, 0)


@pytest.mark.parametrize(
    ("scope", "balance"), [("ledger/read", 3), ("ledger/read ledger/write", 4)]
)
def test_request_of_a_reader_grants_nothing(
    api: LambdaApi, processor: OperationProcessor, scope: str, balance: int
) -> None:
    """A request of a reader grants no reward; a request of a writer grants it."""
    processor.process(operation())
    api.claims = {"sub": "support", "scope": scope}
    assert api("GET", "/ledger/ada/balance").body["balance"] == balance
