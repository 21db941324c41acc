"""The model of DynamoDB answers random requests as DynamoDB Local does."""

import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from ledger_core.dynamodb.expressions import (
    ACCOUNT_IS_KNOWN,
    ACCOUNT_IS_NEW,
    MOVE,
    NONCE_IS_NEW,
    PERIOD_IS_DONE,
)
from tests.conftest import ledger_tables
from tests.simulator.model import TOKEN_SECONDS, ModelDynamoDB
from tests.support import DEEP, new_seed

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

REQUESTS = 20_000 if DEEP else 1_200
OWNERS = ("ada", "bob", "cy")
NONCES = ("n", "m", "ada#n", "o")
PERIODS = ["2026-11-21", "2026-11-22", "2026-11-23"]
TIMES = [f"2026-11-22T09:30:0{second}.000000Z" for second in range(5)]


class Histories:
    """Random requests of right and broken ledgers to few keys, so that conditions often fail."""

    def __init__(self, chance: random.Random, tables: Mapping[str, str]) -> None:
        self._chance = chance
        self._entries, self._balances = (
            tables["LEDGER_ENTRIES_TABLE"],
            tables["LEDGER_ACCOUNTS_TABLE"],
        )
        self._sent: list[dict[str, Any]] = []
        self._starts: list[Any] = [None]
        self._puts: list[Any] = []

    def next(self) -> tuple[str, dict[str, Any]]:
        made: list[Callable[[], tuple[str, dict[str, Any]]]] = [
            self._transaction,
            self._get,
            self._look_up,
            self._query,
        ]
        return self._chance.choices([*made, self._scan, self._single], weights=[8, 2, 2, 3, 1, 2])[
            0
        ]()

    def note(self, answer: Any) -> None:
        """Later requests may go on where an answer ended."""
        if isinstance(answer, dict) and "entry_key" in answer.get("LastEvaluatedKey", {}):
            self._starts = [None, answer["LastEvaluatedKey"]]

    def _transaction(self) -> tuple[str, dict[str, Any]]:
        if self._sent and self._chance.random() < 0.15:
            same_under_its_token = self._chance.choice(self._sent)
            return "transact_write_items", same_under_its_token
        writes: list[dict[str, Any]] = []
        for owner_id in self._chance.sample(OWNERS, self._chance.choice([1, 1, 1, 2])):
            writes += [{"Put": self._put(owner_id)}, {"Update": self._update(owner_id)}]
        arguments: dict[str, Any] = {"TransactItems": writes}
        if self._chance.random() < 0.5:
            arguments["ClientRequestToken"] = f"token-{self._chance.randrange(40)}"
        self._sent = [*self._sent[-3:], arguments]
        return "transact_write_items", arguments

    def _put(self, owner_id: str) -> dict[str, Any]:
        nonce = self._chance.choice(NONCES)
        distinct_time = f"{self._chance.choice(TIMES)[:-7]}{len(self._puts):06}Z"
        item = {
            "entry_key": {"S": f"{owner_id}#{nonce}"},
            "account": {"S": owner_id},
            "created_at": {"S": distinct_time},
            "operation": {"S": self._chance.choice(["CREDIT_ADD", "CREDIT_SPEND"])},
            "amount": {"N": str(self._chance.randrange(-5, 10))},
            "metadata": {"M": {"invoice": {"S": nonce}} if self._chance.random() < 0.5 else {}},
        }
        put: dict[str, Any] = {"TableName": self._entries, "Item": item}
        self._puts.append(put)
        if self._chance.random() < 0.7:
            put["ConditionExpression"] = NONCE_IS_NEW
        return self._with_old(put)

    def _update(self, owner_id: str) -> dict[str, Any]:
        values = {
            ":balance": {"N": str(self._chance.randrange(9))},
            ":entry_count": {"N": str(self._chance.randrange(1, 4))},
            ":head_hash": {"S": self._chance.choice("ab")},
            ":created_at": {"S": TIMES[0]},
            ":updated_at": {"S": self._chance.choice(TIMES)},
            ":active_at": {"S": self._chance.choice(TIMES)},
        }
        update: dict[str, Any] = {
            "TableName": self._balances,
            "Key": {"account": {"S": owner_id}},
            "UpdateExpression": MOVE,
            "ExpressionAttributeValues": values,
        }
        if self._chance.random() < 0.3:
            update["UpdateExpression"] = (
                "SET balance = if_not_exists(balance, :zero) + :one ADD entry_count :one"
            )
            update["ExpressionAttributeValues"] = values = {":zero": {"N": "0"}, ":one": {"N": "1"}}
        elif self._chance.random() < 0.3:
            update["UpdateExpression"] += PERIOD_IS_DONE.format(number=0)
            update["ExpressionAttributeNames"] = {"#mark0": "mark:DAILY_REWARD:day"}
            values[":mark0"] = {"S": self._chance.choice(PERIODS)}
        condition = self._chance.choice(
            [None, ACCOUNT_IS_NEW, ACCOUNT_IS_KNOWN, "balance >= :known_count"]
        )
        if condition:
            update["ConditionExpression"] = condition
        if condition and ":known_count" in condition:
            values[":known_count"] = {"N": str(self._chance.randrange(1, 4))}
        if condition == ACCOUNT_IS_KNOWN:
            values[":known_hash"] = {"S": self._chance.choice("ab")}
        return self._with_old(update)

    def _with_old(self, write: dict[str, Any]) -> dict[str, Any]:
        if self._chance.random() < 0.8:
            write["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
        return write

    def _single(self) -> tuple[str, dict[str, Any]]:
        put = self._chance.random() < 0.5
        owner_id = self._chance.choice(OWNERS)
        arguments = self._put(owner_id) if put else self._update(owner_id)
        arguments.pop("ReturnValuesOnConditionCheckFailure", None)
        return ("put_item" if put else "update_item"), arguments

    def _get(self) -> tuple[str, dict[str, Any]]:
        key = {"account": {"S": self._chance.choice([*OWNERS, "nobody"])}}
        return "get_item", {
            "TableName": self._balances,
            "Key": key,
            "ConsistentRead": self._chance.random() < 0.5,
        }

    def _look_up(self) -> tuple[str, dict[str, Any]]:
        owner_id = self._chance.choice(OWNERS)
        entry = {
            "TableName": self._entries,
            "Key": {"entry_key": {"S": f"{owner_id}#{self._chance.choice(NONCES)}"}},
        }
        if self._chance.random() < 0.5:
            entry["ProjectionExpression"] = "account"
        balance = {"TableName": self._balances, "Key": {"account": {"S": owner_id}}}
        return "transact_get_items", {"TransactItems": [{"Get": entry}, {"Get": balance}]}

    def _query(self) -> tuple[str, dict[str, Any]]:
        since, until = sorted([self._chance.choice(TIMES), self._chance.choice(TIMES)])
        owner_id = self._chance.choice(OWNERS)
        arguments: dict[str, Any] = {
            "TableName": self._entries,
            "IndexName": "by_account",
            "KeyConditionExpression": "account = :account AND created_at BETWEEN :since AND :until",
            "ExpressionAttributeValues": {
                ":account": {"S": owner_id},
                ":since": {"S": since},
                ":until": {"S": until},
            },
            "ScanIndexForward": self._chance.random() < 0.5,
        }
        if self._chance.random() < 0.5:
            arguments["Limit"] = self._chance.randrange(1, 5)
        if self._chance.random() < 0.4:
            arguments |= {
                "FilterExpression": "#o = :operation",
                "ExpressionAttributeNames": {"#o": "operation"},
            }
            arguments["ExpressionAttributeValues"][":operation"] = {"S": "CREDIT_ADD"}
        start = self._chance.choice(self._starts)
        if (
            start
            and start["account"]["S"] == owner_id
            and since <= start["created_at"]["S"] <= until
        ):
            arguments["ExclusiveStartKey"] = start
        return "query", arguments

    def _scan(self) -> tuple[str, dict[str, Any]]:
        return "scan", {"TableName": self._balances, "ConsistentRead": True}


def test_model_answers_as_dynamodb_local_does(
    real_client: "DynamoDBClient", record_property: Callable[[str, object], None]
) -> None:
    """The same histories on both give the same items and the same cancellation reasons."""
    seed, tables = new_seed(), ledger_tables()
    histories = Histories(random.Random(seed), tables)
    keys = {tables["LEDGER_ENTRIES_TABLE"]: "entry_key", tables["LEDGER_ACCOUNTS_TABLE"]: "account"}
    model = ModelDynamoDB(keys, index=(tables["LEDGER_ENTRIES_TABLE"], "account", "created_at"))
    cancelled = 0
    for number in range(REQUESTS):
        operation, arguments = histories.next()
        real = answer_of(real_client, operation, arguments)
        assert answer_of(model, operation, arguments) == real, (seed, number, operation, arguments)
        histories.note(real)
        cancelled += isinstance(real, tuple)
    assert REQUESTS // 10 < cancelled < REQUESTS // 2
    record_property("requests", REQUESTS)
    record_property("refused by both", cancelled)


def answer_of(client: Any, operation: str, arguments: Mapping[str, Any]) -> Any:
    """An answer without what is not contract: metadata, counts, texts, the order of equals."""
    try:
        answer = getattr(client, operation)(**arguments)
    except ClientError as error:
        reasons = [
            {name: value for name, value in reason.items() if name != "Message"}
            for reason in error.response.get("CancellationReasons", ())
        ]
        return error.response["Error"]["Code"], reasons
    if operation == "scan":
        return sorted(answer["Items"], key=lambda item: item["account"]["S"])
    return {
        name: answer[name]
        for name in ("Item", "Items", "Responses", "LastEvaluatedKey")
        if name in answer
    }


ADA = {
    "Put": {
        "TableName": "entries",
        "Item": {"entry_key": {"S": "ada#n"}},
        "ConditionExpression": NONCE_IS_NEW,
    }
}


def test_token_is_remembered_for_ten_minutes() -> None:
    """A token makes the same transaction once within ten minutes, and again after them."""
    now = [0.0]
    model = ModelDynamoDB(
        {"entries": "entry_key"}, index=("entries", "account", "created_at"), now=lambda: now[0]
    )
    model.transact_write_items(TransactItems=[ADA], ClientRequestToken="t")
    now[0] = TOKEN_SECONDS - 1
    model.transact_write_items(TransactItems=[ADA], ClientRequestToken="t")
    now[0] = TOKEN_SECONDS
    with pytest.raises(ClientError, match="TransactionCanceledException"):
        model.transact_write_items(TransactItems=[ADA], ClientRequestToken="t")


def test_item_of_a_transaction_under_way_is_a_conflict() -> None:
    """Between the two phases no request gets the items; the same token finds it in progress."""
    model = ModelDynamoDB({"entries": "entry_key"}, index=("entries", "account", "created_at"))
    under_way = model.prepare(TransactItems=[ADA], ClientRequestToken="t")
    key = {"entry_key": {"S": "ada#n"}}
    get = {"Get": {"TableName": "entries", "Key": key}}
    for call, code in (
        (lambda: model.prepare(TransactItems=[ADA]), "TransactionCanceledException"),
        (
            lambda: model.prepare(TransactItems=[ADA], ClientRequestToken="t"),
            "TransactionInProgressException",
        ),
        (lambda: model.transact_get_items(TransactItems=[get]), "TransactionCanceledException"),
        (lambda: model.put_item(**ADA["Put"]), "TransactionConflictException"),
    ):
        with pytest.raises(ClientError, match=code):
            call()
    assert "Item" not in model.get_item(TableName="entries", Key=key)
    model.commit(under_way)
    assert model.get_item(TableName="entries", Key=key)["Item"] == {"entry_key": {"S": "ada#n"}}


def test_index_shows_an_item_when_it_has_caught_up() -> None:
    """What was committed is in the table at once, and in the index when that has caught up."""
    now = [0.0]
    model = ModelDynamoDB(
        {"entries": "entry_key"}, index=("entries", "account", "created_at"), now=lambda: now[0]
    )
    model.commit(model.prepare(TransactItems=[ADA]), lag_seconds=1.0)
    model.follow()
    assert (list(model.items), list(model.indexed)) == ([("entries", "ada#n")], [])
    now[0] = 1.0
    model.follow()
    assert list(model.indexed) == ["ada#n"]
