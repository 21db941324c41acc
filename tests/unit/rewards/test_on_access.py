"""A reward at the first touch: once with the sweep, for the eligible, and never in the way."""

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


def test_first_touch_of_a_day_grants_the_day_s_reward(
    processor: OperationProcessor, client: "DynamoDBClient"
) -> None:
    """Under the sweep's nonce, with the sweep's mark; the next touch asks nobody, another process asks once."""
    processor.process(operation())
    here = grant_on_access(processor)
    entry = here.touch("ada")
    assert entry is not None
    assert (entry.nonce, entry.operation, entry.balance_after) == (
        "ledger:daily-reward:2026-11-22",
        "DAILY_REWARD",
        4,
    )
    assert processor.store.account("ada", consistent=True).marks == {
        "DAILY_REWARD:day": "2026-11-22"
    }
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
    """Whichever comes first: the other one finds it, by the mark."""
    for owner_id in ("ada", "eve"):
        processor.process(operation(owner_id=owner_id))
    assert grant_on_access(processor).touch("ada") is not None
    done = sweep(client)
    assert (done.tally.granted, done.tally.already) == (1, 1)
    assert (grant_on_access(processor).touch("ada"), grant_on_access(processor).touch("eve")) == (
        None,
        None,
    )
    assert [
        processor.store.account(owner, consistent=True).balance for owner in ("ada", "eve")
    ] == [4, 4]


def test_touch_in_a_race_with_the_sweep(
    processor: OperationProcessor, client: "DynamoDBClient"
) -> None:
    """A sweep between the look at the mark and the write is met as a duplicate, and remembered."""
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
    """Until the first entry there is nobody to reward; after it there is."""
    here = grant_on_access(processor)
    assert here.touch("ada") is None
    processor.process(operation())
    assert here.touch("ada") is not None


def test_rule_of_the_app_decides(processor: OperationProcessor) -> None:
    """Who has been away is not eligible, until an entry shows that it is back."""

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


def test_what_cannot_be_granted_now_is_in_nobody_s_way(
    processor: OperationProcessor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A failure is logged, without the owner's id, and the next touch tries again."""
    processor.process(operation())
    here = grant_on_access(processor)
    monkeypatch.setenv("LEDGER_ACCOUNTS_TABLE", "x")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processor.store, "_accounts_table", "not-there")
        assert here.touch("ada") is None
    (told,) = caplog.records
    assert "gets no reward at this touch" in told.getMessage()
    assert "ada" not in told.getMessage()
    assert here.touch("ada") is not None


def test_rule_that_fails_is_in_nobody_s_way(
    processor: OperationProcessor, caplog: pytest.LogCaptureFixture
) -> None:
    """The request that touches the owner is about something else."""

    class Operations(BaseLedgerOperations):
        SCHEDULED = {LedgerOperationType.DAILY_REWARD: lambda _account, _day: bool(1 // 0)}

    processor.process(operation())
    assert GrantOnAccess(processor, Operations).touch("ada") is None
    assert "gets no reward at this touch" in caplog.text


def test_memory_of_owners_is_bounded(
    processor: OperationProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process remembers so many owners at most; one that it forgot costs a read."""
    monkeypatch.setattr("ledger_core.rewards.on_access.ACCOUNTS_MAX", 2)
    here = grant_on_access(processor)
    for owner_id in ("ada", "eve", "joe"):
        processor.process(operation(owner_id=owner_id))
        assert here.touch(owner_id) is not None
    assert [here.touch(owner_id) for owner_id in ("ada", "eve", "joe")] == [None] * 3
    assert ACCOUNTS_MAX > 2


def test_operation_that_is_not_scheduled_fails_at_start(processor: OperationProcessor) -> None:
    """Not at the first request."""
    with pytest.raises(UnknownOperationError):
        grant_on_access(processor, operation="SIGNUP_CREDIT")


@pytest.fixture
def api(processor: OperationProcessor) -> LambdaApi:
    router = LedgerRouter(processor, grant_on_access(processor))
    return LambdaApi(create_handler(create_api("Test", router, auth=AuthMode.JWT)))


def test_owner_s_request_grants_it_first(api: LambdaApi, processor: OperationProcessor) -> None:
    """A spend may use the reward of the day; a look at the balance shows it."""
    processor.process(operation())
    api.claims = {"sub": "ada"}
    assert api("GET", "/ledger/ada/balance").body["balance"] == 4
    processor.process(operation(owner_id="eve"))
    api.claims = {"sub": "eve"}
    answer = api(
        "POST", "/ledger/entry", spend(4, "all", owner_id="eve").model_dump(exclude_none=True)
    )
    assert (answer.status, answer.body["balance_after"]) == (200, 0)


@pytest.mark.parametrize(
    ("scope", "balance"), [("ledger/read", 3), ("ledger/read ledger/write", 4)]
)
def test_others_look_without_granting(
    api: LambdaApi, processor: OperationProcessor, scope: str, balance: int
) -> None:
    """A caller that may only read changes nothing; an app that may post acts for the owner."""
    processor.process(operation())
    api.claims = {"sub": "support", "scope": scope}
    assert api("GET", "/ledger/ada/balance").body["balance"] == balance
