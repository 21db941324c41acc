"""The cost of a reward at the first touch, and what it does not change."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from functions.example_app.operations import ExampleAppOperations, ExampleAppOperationType
from ledger_core import BaseLedgerOperations, LedgerOperationType
from ledger_core.account import Account
from ledger_core.fields import BALANCE_MAX
from ledger_core.http import LedgerRouter, create_api, create_handler
from ledger_core.operations import every_owner
from ledger_core.posting import OperationProcessor
from ledger_core.rewards import GrantOnAccess
from ledger_core.settings import AuthMode
from ledger_core.wiring import create_account_store, load_settings
from tests.fakes.cloud import patched
from tests.fakes.on_access import grant_on_access
from tests.support import NOON, LambdaApi, add, operation, spend, wire

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

NONCE = "ledger:daily-reward:2026-11-22"


class PickyOperations(BaseLedgerOperations):
    """A reward for owners with 9 credits, and a fee."""

    APP_CONFIG = dict(ExampleAppOperations.APP_CONFIG)
    SCHEDULED = {
        LedgerOperationType.DAILY_REWARD: lambda account, _day: account.balance >= 9,
        ExampleAppOperationType.CONTENT_CREATION: every_owner,
    }


def another(processor: OperationProcessor) -> OperationProcessor:
    """A processor of another process, which remembers no account."""
    return OperationProcessor(processor.store, PickyOperations)


def api_of(processor: OperationProcessor, here: GrantOnAccess) -> LambdaApi:
    return LambdaApi(
        create_handler(create_api("Test", LedgerRouter(processor, here), auth=AuthMode.JWT))
    )


@pytest.mark.parametrize("is_remembered", [True, False])
@pytest.mark.parametrize("stale_reads", [1, 9])
def test_stale_read_sets_no_mark_back(
    processor: OperationProcessor, is_remembered: bool, stale_reads: int
) -> None:
    """If the next day was granted meanwhile, this day is granted too, and the mark stays."""
    processor.process(operation())
    before = processor.store.account("ada", consistent=True)
    assert grant_on_access(another(processor), day=1).touch("ada") is not None
    here = grant_on_access(processor if is_remembered else another(processor))
    stale = iter([before] * stale_reads)
    real = processor.store.account

    def read(owner_id: str, *, consistent: bool) -> Account:
        return next(stale, None) or real(owner_id, consistent=consistent)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processor.store, "account", read)
        entry = here.touch("ada")
    assert entry is not None
    assert (entry.nonce, entry.id) == (NONCE, 3)
    account = processor.store.account("ada", consistent=True)
    assert account.marks == {"DAILY_REWARD:day": "2026-11-23"}


@pytest.mark.parametrize("is_remembered", [True, False])
def test_touch_opens_no_account(
    processor: OperationProcessor, client: "DynamoDBClient", is_remembered: bool
) -> None:
    """An account that is erased after the read is not opened again."""
    processor.process(operation())
    before = processor.store.account("ada", consistent=True)
    key: Any = {"account": {"S": "ada"}}
    client.delete_item(TableName=load_settings().accounts_table, Key=key)
    here = grant_on_access(processor if is_remembered else another(processor))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processor.store, "account", lambda _owner, consistent: before)
        assert here.touch("ada") is None
    assert processor.store.account("ada", consistent=True).entry_count == 0
    assert create_account_store(client).accounts_with(NONCE, ["ada"]) == set()


@pytest.mark.parametrize(
    ("posted", "name", "reads"),
    [
        ([], "DAILY_REWARD", ["GetItem"]),
        ([operation()], "DAILY_REWARD", ["GetItem"]),
        ([operation()], "CONTENT_CREATION", ["GetItem", "TransactGetItems"]),
    ],
    ids=["no entry", "not by the rule", "too few credits"],
)
def test_owner_who_is_not_eligible_is_checked_once_a_period(
    processor: OperationProcessor,
    client: "DynamoDBClient",
    posted: list[Any],
    name: str,
    reads: list[str],
) -> None:
    """Only the first touch in a period sends requests to DynamoDB."""
    for request in posted:
        processor.process(request)
    now = [NOON]
    here = GrantOnAccess(processor, PickyOperations, operation=name, clock=lambda: now[0])
    sent = wire(client)
    for _ in range(3):
        assert here.touch("ada") is None
        assert here.has_nothing_for("ada")
    assert sorted(sent) == sorted(reads)
    now[0] += timedelta(days=1)
    assert not here.has_nothing_for("ada")
    assert here.touch("ada") is None
    assert sent == reads * 2


def test_owner_with_a_full_balance_is_checked_once_a_period(
    processor: OperationProcessor, client: "DynamoDBClient"
) -> None:
    """The reward is granted once the balance is below its limit."""
    processor.process(operation())
    client.update_item(
        TableName=load_settings().accounts_table,
        Key={"account": {"S": "ada"}},
        UpdateExpression="SET balance = :full",
        ExpressionAttributeValues={":full": {"N": str(BALANCE_MAX)}},
    )
    other = another(processor)
    here = grant_on_access(other)
    assert here.touch("ada") is None
    sent = wire(client)
    assert here.touch("ada") is None
    assert sent == []
    other.process(spend(1, "room"))
    assert here.touch("ada") is not None


@pytest.mark.parametrize("elsewhere", [True, False])
def test_owner_who_becomes_eligible_is_rewarded(
    processor: OperationProcessor, client: "DynamoDBClient", elsewhere: bool
) -> None:
    """The process sees its own entries, and the balances that it reads for a caller."""
    processor.process(operation())
    here = GrantOnAccess(processor, PickyOperations, clock=lambda: NOON)
    api = api_of(processor, here)
    api.claims = {"sub": "ada"}
    sent = wire(client)
    assert [api("GET", "/ledger/ada/balance").body["balance"] for _ in range(2)] == [3, 3]
    assert sent == ["GetItem"] * 3  # the touch and two balances
    (another(processor) if elsewhere else processor).process(add(6, "rich"))
    balances = [api("GET", "/ledger/ada/balance").body["balance"] for _ in range(3)]
    assert balances == ([9, 10, 10] if elsewhere else [10, 10, 10])


@pytest.mark.parametrize(
    ("time_zone", "day"),
    [
        ("UTC", "2026-11-22"),
        ("Asia/Tokyo", "2026-11-23"),
        ("America/New_York", "2026-11-22"),
        (None, "2026-11-22"),
    ],
)
def test_day_is_that_of_the_time_zone(
    processor: OperationProcessor, time_zone: str | None, day: str
) -> None:
    """16:00 UTC is the next day in Tokyo; the rule gets the day of the time zone."""
    asked: set[str] = set()

    def rule(_account: Account, first_day: date) -> bool:
        asked.add(str(first_day))
        return True

    class Operations(BaseLedgerOperations):
        SCHEDULED = {LedgerOperationType.DAILY_REWARD: rule}

    processor.process(operation())
    zone: Any = {"time_zone": time_zone} if time_zone else {}
    here = GrantOnAccess(
        processor, Operations, clock=lambda: datetime(2026, 11, 22, 16, tzinfo=UTC), **zone
    )
    entry = here.touch("ada")
    assert entry is not None
    assert (entry.nonce, asked) == (f"ledger:daily-reward:{day}", {day})
    assert processor.store.account("ada", consistent=True).marks == {"DAILY_REWARD:day": day}


@pytest.mark.parametrize(("method", "balance"), [("GET", 3), ("POST", 4)])
def test_failing_reward_leaves_time_to_the_request(
    processor: OperationProcessor, client: "DynamoDBClient", method: str, balance: int
) -> None:
    """The reward takes at most half of the time, so the request can retry for 3 seconds."""
    processor.process(operation())
    now = [0.0]
    own: list[float] = []
    slow = OperationProcessor(
        processor.store,
        ExampleAppOperations,
        monotonic=lambda: now[0],
        sleep=lambda seconds: now.__setitem__(0, now[0] + seconds),
        random=lambda: 1.0,
    )

    class Context:
        """The context of Lambda: 10 seconds for the request, and 3 seconds for a last call."""

        def get_remaining_time_in_millis(self) -> float:
            return (13.0 - now[0]) * 1000

    def fails(real: Callable[..., Any], **arguments: Any) -> Any:
        if "TransactItems" in arguments:
            nonce = arguments["TransactItems"][0]["Put"]["Item"]["nonce"]["S"]
            if nonce != NONCE:
                own.append(now[0])
        elif arguments["ConsistentRead"]:
            own.append(now[0])
        else:
            return real(**arguments)
        if own and now[0] > own[0] + 3.0:
            return real(**arguments)
        raise ClientError({"Error": {"Code": "ThrottlingException", "Message": "no"}}, "any")

    api = api_of(slow, grant_on_access(slow))
    api.claims = {"sub": "shop", "scope": "ledger/read ledger/write"}
    api.context = Context()
    with patched(client, transact_write_items=fails, get_item=fails):
        if method == "GET":
            answer = api("GET", "/ledger/ada/balance")
        else:
            answer = api("POST", "/ledger/entry", add(1, "own").model_dump(exclude_none=True))
    shown = answer.body.get("balance", answer.body.get("balance_after"))
    assert (answer.status, shown) == (200, balance)
    assert 4.0 < now[0] < 10.0
