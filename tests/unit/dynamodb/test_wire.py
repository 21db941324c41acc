"""The exact requests that the store sends to DynamoDB, and what it makes of the answers."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ledger_core import ContentionError, UnavailableError
from ledger_core.account import Account, Mark
from ledger_core.dynamodb import Cancelled, LedgerStore, StoredHead
from ledger_core.dynamodb.expressions import entry_item, transact_items
from ledger_core.errors import StoreError
from ledger_core.models import LedgerEntry
from ledger_core.observability import measure_request
from tests.fakes.wire import NEW, SECOND, Wire
from tests.support import NOON, change_of, operation

BEFORE = NOON - timedelta(seconds=1)
KNOWN = Account(
    owner_id="ada",
    balance=4,
    entry_count=6,
    head_hash="6" * 64,
    created_at=BEFORE,
    updated_at=BEFORE,
    active_at=BEFORE,
)
NOON_TEXT = "2026-11-22T12:00:00.000000Z"
BEFORE_TEXT = "2026-11-22T11:59:59.000000Z"
CREATED_BEFORE = {":created_at": {"S": BEFORE_TEXT}}
ACTIVE_BEFORE = {":active_at": {"S": BEFORE_TEXT}}


def first_entry_after(head: Account) -> LedgerEntry:
    return head.next_entry(operation(metadata={"k": "v"}), amount=3, now=NOON)


def put_of(entry: LedgerEntry) -> dict[str, Any]:
    return {
        "TableName": "entries",
        "Item": {
            "entry_key": {"S": "ada#n"},
            "account": {"S": "ada"},
            "v": {"N": "1"},
            "id": {"N": str(entry.id)},
            "operation": {"S": "SIGNUP_CREDIT"},
            "owner_id": {"S": "ada"},
            "amount": {"N": "3"},
            "nonce": {"S": "n"},
            "created_at": {"S": NOON_TEXT},
            "balance_after": {"N": str(entry.balance_after)},
            "metadata": {"M": {"k": {"S": "v"}}},
            "prev_hash": {"S": entry.prev_hash},
            "hash": {"S": entry.hash},
        },
        "ConditionExpression": "attribute_not_exists(entry_key)",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


IS_NEW = "attribute_not_exists(entry_count)"
IS_KNOWN = "entry_count = :known_count AND head_hash = :known_hash"
OF_KNOWN: dict[str, Any] = {":known_count": {"N": "6"}, ":known_hash": {"S": "6" * 64}}
SET = (
    "SET balance = :balance, entry_count = :entry_count, head_hash = :head_hash, "
    "created_at = :created_at, updated_at = :updated_at, active_at = :active_at"
)
DAY = Mark("DAILY_REWARD:day", "2026-11-22")
OF_DAY = {":mark0": {"S": "2026-11-22"}}
MARKED = replace(KNOWN, marks={DAY.name: DAY.period})
NOTED = ", #mark0 = :mark0"


@pytest.mark.parametrize(
    ("account", "mark", "is_active", "condition", "expression", "values"),
    [
        (NEW, None, True, IS_NEW, SET, {}),
        (KNOWN, None, True, IS_KNOWN, SET, OF_KNOWN | CREATED_BEFORE),
        (NEW, DAY, True, IS_NEW, SET + NOTED, OF_DAY),
        (KNOWN, DAY, True, IS_KNOWN, SET + NOTED, OF_KNOWN | OF_DAY | CREATED_BEFORE),
        (MARKED, DAY, True, IS_KNOWN, SET, OF_KNOWN | CREATED_BEFORE),
        (NEW, None, False, IS_NEW, SET, {}),
        (
            KNOWN,
            DAY,
            False,
            IS_KNOWN,
            SET + NOTED,
            OF_KNOWN | OF_DAY | CREATED_BEFORE | ACTIVE_BEFORE,
        ),
    ],
)
def test_entry_and_its_account_are_written_on_conditions(
    account: Account,
    mark: Mark | None,
    is_active: bool,
    condition: str,
    expression: str,
    values: dict[str, Any],
) -> None:
    """The nonce must be new and the account unchanged; if not, DynamoDB answers the stored item."""
    entry = first_entry_after(account)
    update: dict[str, Any] = {
        "TableName": "accounts",
        "Key": {"account": {"S": "ada"}},
        "UpdateExpression": expression,
        "ConditionExpression": condition,
        "ExpressionAttributeValues": {
            ":balance": {"N": str(entry.balance_after)},
            ":entry_count": {"N": str(entry.id)},
            ":head_hash": {"S": entry.hash},
            ":created_at": {"S": NOON_TEXT},
            ":updated_at": {"S": NOON_TEXT},
            ":active_at": {"S": NOON_TEXT},
            **values,
        },
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }
    if NOTED in expression:
        update["ExpressionAttributeNames"] = {"#mark0": "mark:DAILY_REWARD:day"}
    pair: Any = [{"Put": put_of(entry)}, {"Update": update}]
    change = change_of(account, entry, mark=mark, is_active=is_active)
    assert transact_items(change, entries_table="entries", accounts_table="accounts") == pair
    wire = Wire({}, {})
    assert wire.store.transact([change], token="t") == []
    assert wire.store.transact([change, change], token="u") == []
    arguments = {
        "ClientRequestToken": "t",
        "TransactItems": pair,
        "ReturnConsumedCapacity": "TOTAL",
    }
    twice = {**arguments, "ClientRequestToken": "u", "TransactItems": pair * 2}
    assert wire.asked == [("transact_write_items", arguments), ("transact_write_items", twice)]


def query(
    since: str = "0",
    until: str = "9999-12-31T23:59:59.999999Z",
    *,
    newest_first: bool = True,
    **options: Any,
) -> tuple[str, dict[str, Any]]:
    values = {":account": {"S": "ada"}, ":since": {"S": since}, ":until": {"S": until}}
    return "query", {
        "TableName": "entries",
        "IndexName": "by_account",
        "KeyConditionExpression": "account = :account AND created_at BETWEEN :since AND :until",
        "ExpressionAttributeValues": values | options.pop("values", {}),
        "ScanIndexForward": not newest_first,
        "ReturnConsumedCapacity": "TOTAL",
        **options,
    }


def query_of_rows(
    until: str | None = None, *, newest_first: bool = False, **options: Any
) -> tuple[str, dict[str, Any]]:
    """A query that reads all rows up to a time, also those whose time is malformed."""
    name, asked = query(newest_first=newest_first, **options)
    asked["KeyConditionExpression"] = "account = :account"
    asked["ExpressionAttributeValues"] = {":account": {"S": "ada"}}
    if until:
        asked["KeyConditionExpression"] += " AND created_at <= :until"
        asked["ExpressionAttributeValues"][":until"] = {"S": until}
    return name, asked


def scan(**options: Any) -> tuple[str, dict[str, Any]]:
    return "scan", {
        "TableName": "entries",
        "FilterExpression": "account = :account",
        "ExpressionAttributeValues": {":account": {"S": "ada"}},
        "ProjectionExpression": "id, created_at",
        "ConsistentRead": True,
        "ReturnConsumedCapacity": "TOTAL",
        **options,
    }


def get_item(consistent: bool) -> tuple[str, dict[str, Any]]:
    key = {"account": {"S": "ada"}}
    read = {"ConsistentRead": consistent, "ReturnConsumedCapacity": "TOTAL"}
    return "get_item", {"TableName": "accounts", "Key": key, **read}


LOOK_UP: tuple[str, dict[str, Any]] = (
    "transact_get_items",
    {
        "TransactItems": [
            {"Get": {"TableName": "entries", "Key": {"entry_key": {"S": "ada#n"}}}},
            {"Get": {"TableName": "accounts", "Key": {"account": {"S": "ada"}}}},
        ],
        "ReturnConsumedCapacity": "TOTAL",
    },
)
SIGNUPS: dict[str, Any] = {
    "FilterExpression": "#operation = :operation",
    "ExpressionAttributeNames": {"#operation": "operation"},
    "values": {":operation": {"S": "SIGNUP_CREDIT"}},
}
SIGNUPS_OF_GAME: dict[str, Any] = {
    "FilterExpression": "#operation = :operation AND #app = :app",
    "ExpressionAttributeNames": {"#operation": "operation", "#app": "app"},
    "values": {":operation": {"S": "SIGNUP_CREDIT"}, ":app": {"S": "game"}},
}
LAST_MICROSECOND = "2026-11-22T11:59:59.999999Z"
BOOKMARK = {"account": {"S": "ada"}}
IDS: list[Any] = [
    {"id": {"N": "7"}, "created_at": {"S": "z"}},
    {"id": {"N": "8"}, "created_at": {"N": "1"}},
    {"id": {"N": "9"}},
    {"id": {"S": "9"}, "created_at": {"S": "z"}},
    {"created_at": {"S": "z"}},
]


@pytest.mark.parametrize(
    ("call", "asked"),
    [
        (lambda store: store.account("ada", consistent=True), get_item(True)),
        (lambda store: store.account("ada", consistent=False), get_item(False)),
        (lambda store: store.look_up("ada", "n"), LOOK_UP),
        (lambda store: store.latest("ada"), query(Limit=1)),
        (lambda store: store.latest("ada", at=NOON), query(until=NOON_TEXT, Limit=1)),
        (lambda store: store.page("ada", limit=7), query(Limit=8)),
        (
            lambda store: store.page("ada", before=NOON, limit=7),
            query(until=LAST_MICROSECOND, Limit=8),
        ),
        (
            lambda store: store.page("ada", since=NOON - SECOND, limit=7),
            query(BEFORE_TEXT, Limit=8),
        ),
        (
            lambda store: store.page("ada", operation="SIGNUP_CREDIT", limit=7),
            query(Limit=1000, **SIGNUPS),
        ),
        (
            lambda store: store.page("ada", operation="SIGNUP_CREDIT", app="game", limit=7),
            query(Limit=1000, **SIGNUPS_OF_GAME),
        ),
        (lambda store: store.rows("ada", until=None), query_of_rows()),
        (lambda store: store.rows("ada", until=NOON_TEXT), query_of_rows(NOON_TEXT)),
        (
            lambda store: store.rows("ada", until="z", start=BOOKMARK),
            query_of_rows("z", ExclusiveStartKey=BOOKMARK),
        ),
        (lambda store: store.last_row("ada"), query_of_rows(newest_first=True, Limit=1)),
        (
            lambda store: store.last_row("ada", until="z"),
            query_of_rows("z", newest_first=True, Limit=1),
        ),
        (lambda store: store.stored_head("ada"), get_item(True)),
        (lambda store: store.table_ids("ada"), scan()),
        (lambda store: store.table_ids("ada", start=BOOKMARK), scan(ExclusiveStartKey=BOOKMARK)),
    ],
)
def test_each_read_is_a_request_whose_units_are_added_up(
    call: Callable[[LedgerStore], Any], asked: tuple[str, dict[str, Any]]
) -> None:
    """Each read has its table or index, its consistency, its interval and its limit."""
    answer = {"Responses": [{}, {}], "Items": [], "ConsumedCapacity": {"CapacityUnits": 0.5}}
    wire = Wire(answer, answer)
    with measure_request() as metrics:
        call(wire.store)
        call(wire.store)
    assert wire.asked == [asked, asked]
    assert (metrics.dynamodb_requests, metrics.read_units, metrics.write_units) == (2, 1.0, 0)


def test_units_of_writes_are_added_up() -> None:
    """The units of two writes of a request are added up."""
    wire = Wire(*[{"ConsumedCapacity": [{"CapacityUnits": 3.0}, {"CapacityUnits": 2.0}]}] * 2)
    with measure_request() as metrics:
        for _ in range(2):
            wire.store.transact([change_of(NEW, first_entry_after(NEW))], token="t")
    assert (metrics.dynamodb_requests, metrics.read_units, metrics.write_units) == (2, 0, 10.0)


ENTRY = first_entry_after(NEW)
BALANCE = {
    "created_at": {"S": NOON_TEXT},
    "active_at": {"S": NOON_TEXT},
    "account": {"S": "ada"},
    "balance": {"N": "3"},
    "entry_count": {"N": "1"},
    "head_hash": {"S": ENTRY.hash},
    "updated_at": {"S": NOON_TEXT},
}
ACCOUNT = NEW.after(ENTRY)
ROW = {**ENTRY.model_dump(), "created_at": NOON_TEXT, "updated_at": NOON_TEXT}
REST = {"LastEvaluatedKey": BOOKMARK}


@pytest.mark.parametrize(
    ("call", "answer", "expected"),
    [
        (lambda store: store.account("ada", consistent=True), {"Item": BALANCE}, ACCOUNT),
        (lambda store: store.account("ada", consistent=True), {}, NEW),
        (
            lambda store: store.look_up("ada", "n"),
            {"Responses": [{"Item": entry_item(ENTRY)}, {"Item": BALANCE}]},
            (ENTRY, ACCOUNT),
        ),
        (lambda store: store.look_up("ada", "n"), {"Responses": [{}, {}]}, (None, NEW)),
        (lambda store: store.latest("ada"), {"Items": [entry_item(ENTRY)]}, ENTRY),
        (lambda store: store.latest("ada"), {"Items": []}, None),
        (
            lambda store: store.rows("ada", until=None),
            {"Items": [entry_item(ENTRY)]},
            ([ROW], None),
        ),
        (
            lambda store: store.rows("ada", until=None),
            {"Items": [entry_item(ENTRY)], **REST},
            ([ROW], BOOKMARK),
        ),
        (lambda store: store.last_row("ada"), {"Items": [entry_item(ENTRY)]}, ROW),
        (lambda store: store.last_row("ada"), {"Items": []}, None),
        (lambda store: store.stored_head("ada"), {"Item": BALANCE}, StoredHead.of(ACCOUNT.head)),
        (lambda store: store.stored_head("ada"), {}, StoredHead.of(NEW.head)),
        (lambda store: store.table_ids("ada"), {"Items": IDS}, ([7], None)),
        (lambda store: store.table_ids("ada"), {"Items": [], **REST}, ([], BOOKMARK)),
    ],
)
def test_answers_become_values_of_the_ledger(
    call: Callable[[LedgerStore], Any], answer: Any, expected: Any
) -> None:
    """The store decodes each answer, and knows where the next page begins."""
    assert call(Wire(answer).store) == expected


def cancelled(*reasons: dict[str, Any]) -> ClientError:
    answer: Any = {
        "Error": {"Code": "TransactionCanceledException"},
        "CancellationReasons": list(reasons),
    }
    return ClientError(answer, "TransactWriteItems")


NONE = {"Code": "None"}
LOST = {"Code": "ConditionalCheckFailed"}
CONFLICT = {"Code": "TransactionConflict"}


@pytest.mark.parametrize(
    ("reasons", "expected"),
    [
        ([{**LOST, "Item": entry_item(ENTRY)}, NONE], [Cancelled((ENTRY,))]),
        ([NONE, {**LOST, "Item": BALANCE}], [Cancelled((), ACCOUNT)]),
    ],
)
def test_failed_conditions_are_an_answer(
    reasons: list[dict[str, Any]], expected: list[Cancelled]
) -> None:
    """The reasons have the stored items, so no read follows."""
    wire = Wire(cancelled(*reasons))
    assert wire.store.transact([change_of(NEW, ENTRY)], token="t") == expected
    assert len(wire.asked) == 1


@pytest.mark.parametrize(
    ("reasons", "error"),
    [
        ((NONE, CONFLICT), ContentionError),
        (({"Code": "ThrottlingError"}, NONE), UnavailableError),
    ],
)
def test_conflict_and_throttling_are_translated(reasons: Any, error: type[Exception]) -> None:
    """The same transaction may succeed later."""
    (reason,) = Wire(cancelled(*reasons)).store.transact([change_of(NEW, ENTRY)], token="t")
    assert type(reason.busy) is error


@pytest.mark.parametrize(
    "reasons",
    [
        ({"Code": "ValidationError"}, {**LOST, "Item": BALANCE}),
        ({**LOST, "Item": {"id": {"N": "1"}}}, NONE),
    ],
)
def test_permanent_reason_is_an_error(reasons: Any) -> None:
    """A refused write and a malformed item are errors that no retry mends."""
    (reason,) = Wire(cancelled(*reasons)).store.transact([change_of(NEW, ENTRY)], token="t")
    assert isinstance(reason.error, StoreError)


def test_reasons_are_sorted_by_account() -> None:
    """Each account has the reasons of its own items."""
    stored = {**LOST, "Item": entry_item(ENTRY)}
    reasons = Wire(cancelled(NONE, NONE, stored, NONE)).store.transact(
        [change_of(NEW, ENTRY)] * 2, token="t"
    )
    assert reasons == [Cancelled(), Cancelled((ENTRY,))]


@pytest.mark.parametrize("reasons", [(), (NONE,), (NONE, NONE, NONE)])
def test_reasons_of_other_items_are_no_answer(reasons: Any) -> None:
    """If the number of reasons is not that of the items sent, the answer is an error."""
    error = cancelled(*reasons)
    with pytest.raises(StoreError) as failure:
        Wire(error).store.transact([change_of(NEW, ENTRY)], token="t")
    assert failure.value.__cause__ is error
