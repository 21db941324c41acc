"""Several units and several apps in one pair of tables: nothing of one is taken for the other's."""

import json
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from functions.example_app.operations import ExampleAppOperations
from ledger_core import (
    BaseLedgerOperations,
    DuplicateNonceError,
    InsufficientBalanceError,
    LedgerOperationType,
    OperationConfig,
    every_owner,
)
from ledger_core.audit import Report, audit_export, audit_store, export
from ledger_core.dynamodb import SweepStore
from ledger_core.http import LedgerRouter, create_api, create_handler
from ledger_core.keys import account_key
from ledger_core.periods import Period
from ledger_core.posting import GroupCommit, OperationProcessor
from ledger_core.rewards import GrantOnAccess, Reward, Segment, Sweep
from ledger_core.settings import AuthMode
from ledger_core.wiring import create_account_store
from tests.support import NOON, LambdaApi, add, operation

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


class Game(StrEnum):
    FIND_GEM = "FIND_GEM"
    SELL_GEM = "SELL_GEM"
    WEEKLY_GEM = "WEEKLY_GEM"


class GameOperations(BaseLedgerOperations):
    """An app with a name, whose own operations count gems."""

    APP = "game"
    APP_CONFIG = {
        Game.FIND_GEM: OperationConfig(amount=2, unit="GEMS"),
        Game.SELL_GEM: OperationConfig(amount=-1, unit="GEMS", self_service=True),
        Game.WEEKLY_GEM: OperationConfig(amount=7, unit="GEMS"),
    }
    SCHEDULED = {LedgerOperationType.DAILY_REWARD: every_owner, Game.WEEKLY_GEM: every_owner}


class ClubOperations(GameOperations):
    """Another app, whose operations have the same names."""

    APP = "club"


GEMS = account_key("ada", "GEMS")


@pytest.fixture
def store(client: "DynamoDBClient") -> SweepStore:
    return create_account_store(client)


@pytest.fixture
def game(store: SweepStore) -> OperationProcessor:
    return OperationProcessor(store, GameOperations)


@pytest.fixture
def plain(store: SweepStore) -> OperationProcessor:
    return OperationProcessor(store, ExampleAppOperations)


def audited(store: SweepStore, key: str) -> Report:
    """The report on an account, which the store and an export have to give alike."""
    read: Any = lambda call: call()  # noqa: E731
    report = audit_store(store, key, read=read)
    assert list(audit_export([f"{line}\n" for line in export(store, key, read=read)])) == [report]
    return report


def test_each_unit_is_an_account_of_its_own(game: OperationProcessor, store: SweepStore) -> None:
    """A unit has its own balance, ids and chain of hashes, and gems do not pay for credits."""
    credit = game.process(add(5, "n-1"))
    gem = game.process(operation(Game.FIND_GEM, "n-2"))
    assert (credit.id, credit.unit, credit.balance_after) == (1, "CREDIT", 5)
    assert (gem.id, gem.unit, gem.balance_after) == (1, "GEMS", 2)
    assert gem.prev_hash == credit.prev_hash
    for _ in range(2):
        game.process(operation(Game.SELL_GEM, f"sell-{_}"))
    with pytest.raises(InsufficientBalanceError):
        game.process(operation(Game.SELL_GEM, "sell-2"))
    assert store.account("ada", consistent=True).balance == 5
    assert store.account(GEMS, consistent=True).balance == 0
    assert [entry.unit for entry in store.page(GEMS, limit=9)[0]] == ["GEMS"] * 3
    for key, entries in (("ada", 1), (GEMS, 3)):
        report = audited(store, key)
        assert (report.valid, report.entries_checked) == (True, entries)
    assert audited(store, GEMS).unit == "GEMS"


def test_a_nonce_is_unique_in_each_unit_and_each_app(
    game: OperationProcessor, plain: OperationProcessor, store: SweepStore
) -> None:
    """One nonce of three apps is three entries; in one app and unit it is a duplicate."""
    club = OperationProcessor(store, ClubOperations)
    request = add(1, "order-1")
    entries = [processor.process(request) for processor in (plain, game, club)]
    assert [(entry.app, entry.nonce) for entry in entries] == [
        (None, "order-1"),
        ("game", "order-1"),
        ("club", "order-1"),
    ]
    assert [entry.balance_after for entry in entries] == [1, 2, 3]
    for processor, entry in zip((plain, game, club), entries, strict=True):
        for process in (processor.process, GroupCommit(processor).process):
            with pytest.raises(DuplicateNonceError) as failure:
                process(request)
            assert (failure.value.entry, failure.value.replay) == (entry, True)
    assert game.process(operation(Game.FIND_GEM, "order-1")).unit == "GEMS"
    assert [entry.app for entry in store.page("ada", app="game", limit=9)[0]] == ["game"]
    assert audited(store, "ada").valid


def test_accounts_of_one_owner_are_settled_apart(game: OperationProcessor) -> None:
    """Group commit queues by account: an owner's gems do not wait for the owner's credits."""
    group = GroupCommit(game)
    credit = group.join(add(5, "n"))
    gem = group.join(operation(Game.FIND_GEM, "n"))
    assert credit.turn.done()
    assert gem.turn.done()
    assert [group.finish(gem).unit, group.finish(credit).unit] == ["GEMS", "CREDIT"]


def sweep(store: SweepStore, operations: type[BaseLedgerOperations], name: str) -> tuple[int, int]:
    """How many owners were granted a reward by a sweep of all accounts, and how many had it."""
    period = Period.parse("2026-W47" if name == Game.WEEKLY_GEM else "2026-11-22")
    reward = Reward.of(operations, name, period)
    (segment,) = Segment.all_of(reward, 1, NOON)
    tally = Sweep(store, reward).run(segment, seconds=60).tally
    assert tally.owners == tally.granted + tally.already
    return tally.granted, tally.already


def test_reward_goes_to_the_accounts_of_its_unit(
    game: OperationProcessor, store: SweepStore
) -> None:
    """A sweep neither writes to nor counts accounts that count something else."""
    game.process(add(1, "n"))
    game.process(add(1, "n", owner_id="bob"))
    game.process(operation(Game.FIND_GEM, "n"))
    assert sweep(store, GameOperations, Game.WEEKLY_GEM) == (1, 0)
    assert store.account(GEMS, consistent=True).balance == 9
    assert store.account(account_key("bob", "GEMS"), consistent=True).entry_count == 0
    assert sweep(store, GameOperations, LedgerOperationType.DAILY_REWARD) == (2, 0)
    assert store.account("ada", consistent=True).balance == 2
    assert store.latest("ada").app == "game"  # type: ignore[union-attr]


def test_shared_reward_is_granted_once_and_own_rewards_once_for_each_app(
    game: OperationProcessor, store: SweepStore
) -> None:
    """The nonce of a shared operation is the same in every app; an app's own has the app in it."""
    game.process(operation(Game.FIND_GEM, "n"))
    game.process(add(1, "n"))
    for operations in (GameOperations, ClubOperations):
        assert sweep(store, operations, Game.WEEKLY_GEM) == (1, 0)
        assert sweep(store, operations, Game.WEEKLY_GEM) == (0, 1)
    assert sweep(store, GameOperations, LedgerOperationType.DAILY_REWARD) == (1, 0)
    assert sweep(store, ClubOperations, LedgerOperationType.DAILY_REWARD) == (0, 1)
    nonces = [entry.nonce for entry in store.page(GEMS, limit=9)[0]]
    assert nonces == ["ledger:@club:weekly-gem:2026-W47", "ledger:@game:weekly-gem:2026-W47", "n"]
    marks = {"game:WEEKLY_GEM:week": "2026-W47", "club:WEEKLY_GEM:week": "2026-W47"}
    assert store.account(GEMS, consistent=True).marks == marks
    assert audited(store, GEMS).valid


def test_reward_on_access_is_of_the_unit_of_its_operation(
    game: OperationProcessor, store: SweepStore
) -> None:
    """An owner gets it in the account of the unit, if that account has an entry."""
    on_access = GrantOnAccess(game, GameOperations, operation=Game.WEEKLY_GEM)
    game.process(add(1, "n"))
    assert on_access.touch("ada") is None
    game.process(operation(Game.FIND_GEM, "n"))
    assert on_access.touch("ada").unit == "GEMS"  # type: ignore[union-attr]
    assert on_access.touch("ada") is None
    assert store.account(GEMS, consistent=True).balance == 9


def test_entry_under_the_key_of_another_is_found(
    client: "DynamoDBClient", game: OperationProcessor, store: SweepStore
) -> None:
    """An entry whose key does not say its account, app and nonce lets the nonce be used again."""
    game.process(operation(Game.FIND_GEM, "n-1"))
    game.process(operation(Game.FIND_GEM, "n-2"))
    table = store._entries_table
    key: Any = {"entry_key": {"S": f"{GEMS}#@game:n-1"}}
    item = client.get_item(TableName=table, Key=key)["Item"]
    client.delete_item(TableName=table, Key=key)
    client.put_item(TableName=table, Item={**item, "entry_key": {"S": "ada#n-1"}})
    report = audited(store, GEMS)
    assert [(finding.kind, finding.first_id) for finding in report.findings] == [("changed", 1)]
    (wrong,) = report.discrepancies
    assert (wrong.entry_id, wrong.field) == (1, "entry_key")
    assert (wrong.expected, wrong.found) == (f"{GEMS}#@game:n-1", "ada#n-1")


@pytest.mark.parametrize("name", ["unit", "app"])
def test_changed_unit_or_app_is_found(
    client: "DynamoDBClient", game: OperationProcessor, store: SweepStore, name: str
) -> None:
    """Both are in the hash of an entry."""
    game.process(operation(Game.FIND_GEM, "n"))
    key: Any = {"entry_key": {"S": f"{GEMS}#@game:n"}}
    client.update_item(
        TableName=store._entries_table,
        Key=key,
        UpdateExpression="REMOVE #name",
        ExpressionAttributeNames={"#name": name},
    )
    report = audited(store, GEMS)
    assert [(finding.kind, finding.first_id) for finding in report.findings] == [("changed", 1)]
    assert {"hash", "entry_key"} <= {wrong.field for wrong in report.discrepancies}


@pytest.fixture
def api(game: OperationProcessor) -> LambdaApi:
    """The game's API."""
    router = LedgerRouter(game)
    return LambdaApi(create_handler(create_api("Game", router, auth=AuthMode.JWT)))


def test_routes_read_the_unit_that_is_asked_for(api: LambdaApi) -> None:
    """Balance, past balance, history and audit are of one account; CREDIT is the default."""
    post = partial(api, "POST", "/ledger/entry")
    body = {"owner_id": "ada", "operation": "FIND_GEM", "nonce": "n"}
    entry = post(body).body
    assert (entry["unit"], entry["app"], entry["nonce"]) == ("GEMS", "game", "n")
    assert post({**body, "operation": "SIGNUP_CREDIT"}).body.get("unit") is None
    gems = {"unit": "GEMS"}
    for query in (gems, {**gems, "at": entry["created_at"]}):
        balance = api("GET", "/ledger/ada/balance", query=query).body
        assert balance == {
            "owner_id": "ada",
            "unit": "GEMS",
            "balance": 2,
            "entry_count": 1,
            "updated_at": entry["created_at"],
        }
    assert api("GET", "/ledger/ada/balance").body["balance"] == 3
    assert api("GET", "/ledger/ada/entries", query=gems).body["entries"] == [entry]
    report = api("GET", "/ledger/ada/verify", query=gems).body
    assert (report["valid"], report["unit"], report["head"]["balance"]) == (True, "GEMS", 2)
    listed = {one["operation"]: one for one in api("GET", "/ledger/operations").body["operations"]}
    assert (listed["FIND_GEM"]["unit"], listed["CREDIT_ADD"]["unit"]) == ("GEMS", "CREDIT")


def test_history_of_one_app(api: LambdaApi, plain: OperationProcessor) -> None:
    """`app` leaves out the entries of other apps and of apps without a name."""
    plain.process(add(1, "n"))
    posted = {"owner_id": "ada", "operation": "CREDIT_ADD", "nonce": "n"}
    api("POST", "/ledger/entry", posted)
    entries = api("GET", "/ledger/ada/entries", query={"app": "game"}).body["entries"]
    assert [entry.get("app") for entry in entries] == ["game"]
    assert len(api("GET", "/ledger/ada/entries").body["entries"]) == 2
    assert api("GET", "/ledger/ada/entries", query={"app": "club"}).body["entries"] == []


def test_cursor_works_for_its_own_account_only(api: LambdaApi) -> None:
    """A cursor of the credits opens no history of gems."""
    for name in ("SIGNUP_CREDIT", "FIND_GEM"):
        for number in range(2):
            body = {"owner_id": "ada", "operation": name, "nonce": f"{name}-{number}"}
            assert api("POST", "/ledger/entry", body).status == 200
    page = api("GET", "/ledger/ada/entries", query={"limit": "1"}).body
    query = {"limit": "1", "cursor": page["next_cursor"]}
    assert api("GET", "/ledger/ada/entries", query=query).status == 200
    assert api("GET", "/ledger/ada/entries", query={**query, "unit": "GEMS"}).status == 422


@pytest.mark.parametrize(
    "query",
    [{"unit": "gems"}, {"unit": ""}, {"unit": "G" * 17}, {"unit": "GEMS#"}, {"app": "Game"}],
)
def test_malformed_unit_or_app_is_refused(api: LambdaApi, query: dict[str, str]) -> None:
    """It is 422 and names the parameter."""
    answer = api("GET", "/ledger/ada/entries", query=query)
    (name,) = query
    assert (answer.status, answer.body["errors"][0]["field"]) == (422, f"query.{name}")


def test_owner_posts_under_nonces_of_its_own(api: LambdaApi, store: SweepStore) -> None:
    """An owner's nonce is `@self:` in every app; the app's entry of the same nonce is another."""
    body = {"owner_id": "ada", "operation": "FIND_GEM", "nonce": "n"}
    assert api("POST", "/ledger/entry", body).status == 200
    api.claims = {"sub": "ada"}
    entry = api("POST", "/ledger/entry", {**body, "operation": "SELL_GEM"}).body
    assert (entry["nonce"], entry["app"]) == ("@self:n", "game")
    stored, _ = store.look_up(GEMS, "@self:n")
    assert stored is not None
    assert json.loads(stored.model_dump_json()) == entry
