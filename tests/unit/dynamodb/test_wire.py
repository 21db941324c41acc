"""What is asked of DynamoDB, to the letter, and what the store makes of its answers."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ledger_core import ContentionError, UnavailableError
from ledger_core.account import Account, Head, Mark, entry_after
from ledger_core.dynamodb import Cancelled, LedgerStore, StoredHead, Write
from ledger_core.dynamodb.expressions import entry_item, transact_items
from ledger_core.errors import StoreError
from ledger_core.models import LedgerEntry
from ledger_core.observability import measure_request
from tests.support import CONFIRMED, NOON, operation

NEW = Head(owner_id="ada")
KNOWN = Head(owner_id="ada", balance=4, entry_count=6, head_hash="6" * 64, updated_at=NOON - timedelta(seconds=1))
NOON_TEXT, BEFORE_TEXT = "2026-11-22T12:00:00.000000Z", "2026-11-22T11:59:59.000000Z"


class Wire:
    """A client that notes what it is asked, and answers as told."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.store = LedgerStore(self, entries_table="entries", balances_table="balances")  # type: ignore[arg-type]

    def __getattr__(self, call: str) -> Callable[..., Any]:
        def ask(**arguments: Any) -> Any:
            self.asked.append((call, arguments))
            if isinstance(answer := self.answers.pop(0), Exception):
                raise answer
            return {**CONFIRMED, **answer}

        return ask


def first_entry_after(head: Head) -> LedgerEntry:
    return entry_after(head, operation(metadata={"k": "v"}), amount=3, now=NOON)


def put_of(entry: LedgerEntry) -> dict[str, Any]:
    return {
        "TableName": "entries",
        "Item": {
            "entry_key": {"S": "ada#n"},
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
    "updated_at = :now, created_at = if_not_exists(created_at, :now)"
)
ACTIVE, NOT_ACTIVE = ", active_at = :now", ", active_at = if_not_exists(active_at, :active_at)"
DAY, OF_DAY = Mark("DAILY_REWARD:day", "2026-11-22"), {":period": {"S": "2026-11-22"}}
NOTED = ", #mark = :period"
NOT_LATER = " AND (attribute_not_exists(#mark) OR #mark <= :period)"


@pytest.mark.parametrize(
    ("head", "mark", "active", "condition", "expression", "values"),
    [
        (NEW, None, True, IS_NEW, SET + ACTIVE, {}),
        (KNOWN, None, True, IS_KNOWN, SET + ACTIVE, OF_KNOWN),
        (NEW, DAY, True, IS_NEW + NOT_LATER, SET + ACTIVE + NOTED, OF_DAY),
        (KNOWN, DAY, True, IS_KNOWN + NOT_LATER, SET + ACTIVE + NOTED, OF_KNOWN | OF_DAY),
        (NEW, None, False, IS_NEW, SET + NOT_ACTIVE, {":active_at": {"S": NOON_TEXT}}),
        (
            KNOWN,
            DAY,
            False,
            IS_KNOWN + NOT_LATER,
            SET + NOT_ACTIVE + NOTED,
            OF_KNOWN | OF_DAY | {":active_at": {"S": BEFORE_TEXT}},
        ),
    ],
)
def test_an_entry_and_its_balance_are_written_under_conditions(
    head: Head, mark: Mark | None, active: bool, condition: str, expression: str, values: dict[str, Any]
) -> None:
    """The nonce must be new and the head the one that is known; what is stored comes back if it is not so."""
    entry = first_entry_after(head)
    update = {
        "TableName": "balances",
        "Key": {"owner_id": {"S": "ada"}},
        "UpdateExpression": expression,
        "ConditionExpression": condition,
        "ExpressionAttributeValues": {
            ":balance": {"N": str(entry.balance_after)},
            ":entry_count": {"N": str(entry.id)},
            ":head_hash": {"S": entry.hash},
            ":now": {"S": NOON_TEXT},
            **values,
        },
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        **({"ExpressionAttributeNames": {"#mark": "mark:DAILY_REWARD:day"}} if mark else {}),
    }
    pair: Any = [{"Put": put_of(entry)}, {"Update": update}]
    write = Write((entry,), head, mark)
    assert transact_items(write, entries_table="entries", balances_table="balances", active=active) == pair
    if active:
        wire = Wire({})
        assert wire.store.append([entry], head=head, token="t", mark=mark) is None
        arguments = {"ClientRequestToken": "t", "TransactItems": pair, "ReturnConsumedCapacity": "TOTAL"}
        assert wire.asked == [("transact_write_items", arguments)]


def query(
    since: str = "0", until: str = "9999-12-31T23:59:59.999999Z", *, newest_first: bool = True, **options: Any
) -> tuple[str, dict[str, Any]]:
    values = {":owner_id": {"S": "ada"}, ":since": {"S": since}, ":until": {"S": until}}
    return "query", {
        "TableName": "entries",
        "IndexName": "by_owner",
        "KeyConditionExpression": "owner_id = :owner_id AND created_at BETWEEN :since AND :until",
        "ExpressionAttributeValues": values | options.pop("values", {}),
        "ScanIndexForward": not newest_first,
        "ReturnConsumedCapacity": "TOTAL",
        **options,
    }


def query_of_rows(
    until: str | None = None, *, newest_first: bool = False, **options: Any
) -> tuple[str, dict[str, Any]]:
    """Whatever their times are, also what is no time."""
    name, asked = query(newest_first=newest_first, **options)
    asked["KeyConditionExpression"] = "owner_id = :owner_id" + (" AND created_at <= :until" if until else "")
    asked["ExpressionAttributeValues"] = {":owner_id": {"S": "ada"}} | ({":until": {"S": until}} if until else {})
    return name, asked


def scan(**options: Any) -> tuple[str, dict[str, Any]]:
    return "scan", {
        "TableName": "entries",
        "FilterExpression": "owner_id = :owner_id",
        "ExpressionAttributeValues": {":owner_id": {"S": "ada"}},
        "ProjectionExpression": "id, created_at",
        "ConsistentRead": True,
        "ReturnConsumedCapacity": "TOTAL",
        **options,
    }


def get_item(consistent: bool) -> tuple[str, dict[str, Any]]:
    key = {"owner_id": {"S": "ada"}}
    read = {"ConsistentRead": consistent, "ReturnConsumedCapacity": "TOTAL"}
    return "get_item", {"TableName": "balances", "Key": key, **read}


LOOK_UP: tuple[str, dict[str, Any]] = (
    "transact_get_items",
    {
        "TransactItems": [
            {"Get": {"TableName": "entries", "Key": {"entry_key": {"S": "ada#n"}}}},
            {"Get": {"TableName": "balances", "Key": {"owner_id": {"S": "ada"}}}},
        ],
        "ReturnConsumedCapacity": "TOTAL",
    },
)
SIGNUPS: dict[str, Any] = {
    "FilterExpression": "#o = :operation",
    "ExpressionAttributeNames": {"#o": "operation"},
    "values": {":operation": {"S": "SIGNUP_CREDIT"}},
}
SECOND = timedelta(seconds=1)
LAST_MICROSECOND = "2026-11-22T11:59:59.999999Z"
BOOKMARK = {"owner_id": {"S": "ada"}}
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
        (lambda store: store.head("ada", consistent=True), get_item(True)),
        (lambda store: store.head("ada", consistent=False), get_item(False)),
        (lambda store: store.account("ada", consistent=True), get_item(True)),
        (lambda store: store.look_up("ada", "n"), LOOK_UP),
        (lambda store: store.latest("ada"), query(Limit=1)),
        (lambda store: store.latest("ada", at=NOON), query(until=NOON_TEXT, Limit=1)),
        (lambda store: store.page("ada", limit=7), query(Limit=8)),
        (lambda store: store.page("ada", before=NOON, limit=7), query(until=LAST_MICROSECOND, Limit=8)),
        (lambda store: store.page("ada", since=NOON - SECOND, limit=7), query(BEFORE_TEXT, Limit=8)),
        (
            lambda store: store.page("ada", operation="SIGNUP_CREDIT", limit=7),
            query(Limit=1000, **SIGNUPS),
        ),
        (lambda store: store.rows("ada", until=None), query_of_rows()),
        (lambda store: store.rows("ada", until=NOON_TEXT), query_of_rows(NOON_TEXT)),
        (
            lambda store: store.rows("ada", until="z", start=BOOKMARK),
            query_of_rows("z", ExclusiveStartKey=BOOKMARK),
        ),
        (lambda store: store.last_row("ada"), query_of_rows(newest_first=True, Limit=1)),
        (lambda store: store.last_row("ada", until="z"), query_of_rows("z", newest_first=True, Limit=1)),
        (lambda store: store.stored_head("ada"), get_item(True)),
        (lambda store: store.table_ids("ada"), scan()),
        (lambda store: store.table_ids("ada", start=BOOKMARK), scan(ExclusiveStartKey=BOOKMARK)),
    ],
)
def test_each_read_is_one_request_and_its_units_are_added_up(
    call: Callable[[LedgerStore], Any], asked: tuple[str, dict[str, Any]]
) -> None:
    """What is read and how: by key or by the index, at what consistency, from where to where, how much of it."""
    answer = {"Responses": [{}, {}], "Items": [], "ConsumedCapacity": {"CapacityUnits": 0.5}}
    wire = Wire(answer, answer)
    with measure_request() as usage:
        call(wire.store)
        call(wire.store)
    assert wire.asked == [asked, asked]
    assert (usage.dynamodb_requests, usage.read_units, usage.write_units) == (2, 1.0, 0)


def test_units_of_writes_are_added_up() -> None:
    """A request may write twice, and both cost."""
    wire = Wire(*[{"ConsumedCapacity": [{"CapacityUnits": 3.0}, {"CapacityUnits": 2.0}]}] * 2)
    with measure_request() as usage:
        for _ in range(2):
            wire.store.append([first_entry_after(NEW)], head=NEW, token="t")
    assert (usage.dynamodb_requests, usage.read_units, usage.write_units) == (2, 0, 10.0)


ENTRY = first_entry_after(NEW)
BALANCE = {
    "owner_id": {"S": "ada"},
    "balance": {"N": "3"},
    "entry_count": {"N": "1"},
    "head_hash": {"S": ENTRY.hash},
    "updated_at": {"S": NOON_TEXT},
}
ACCOUNT = Account(head=Head.at(ENTRY), created_at=None, active_at=NOON, marks={})
ROW = {**ENTRY.model_dump(), "created_at": NOON_TEXT, "updated_at": NOON_TEXT}
REST = {"LastEvaluatedKey": BOOKMARK}


@pytest.mark.parametrize(
    ("call", "answer", "made_of_it"),
    [
        (lambda store: store.account("ada", consistent=True), {"Item": BALANCE}, ACCOUNT),
        (lambda store: store.head("ada", consistent=True), {"Item": BALANCE}, Head.at(ENTRY)),
        (lambda store: store.head("ada", consistent=True), {}, NEW),
        (
            lambda store: store.look_up("ada", "n"),
            {"Responses": [{"Item": entry_item(ENTRY)}, {"Item": BALANCE}]},
            (ENTRY, Head.at(ENTRY)),
        ),
        (lambda store: store.look_up("ada", "n"), {"Responses": [{}, {}]}, (None, NEW)),
        (lambda store: store.latest("ada"), {"Items": [entry_item(ENTRY)]}, ENTRY),
        (lambda store: store.latest("ada"), {"Items": []}, None),
        (lambda store: store.rows("ada", until=None), {"Items": [entry_item(ENTRY)]}, ([ROW], None)),
        (lambda store: store.rows("ada", until=None), {"Items": [entry_item(ENTRY)], **REST}, ([ROW], BOOKMARK)),
        (lambda store: store.last_row("ada"), {"Items": [entry_item(ENTRY)]}, ROW),
        (lambda store: store.last_row("ada"), {"Items": []}, None),
        (lambda store: store.stored_head("ada"), {"Item": BALANCE}, StoredHead.of(Head.at(ENTRY))),
        (lambda store: store.stored_head("ada"), {}, StoredHead.of(NEW)),
        (lambda store: store.table_ids("ada"), {"Items": IDS}, ([7], None)),
        (lambda store: store.table_ids("ada"), {"Items": [], **REST}, ([], BOOKMARK)),
    ],
)
def test_answers_become_values_of_ours(call: Callable[[LedgerStore], Any], answer: Any, made_of_it: Any) -> None:
    """Which owners are read, which are not, and where the next page begins."""
    assert call(Wire(answer).store) == made_of_it


def cancelled(*reasons: dict[str, Any]) -> ClientError:
    answer: Any = {"Error": {"Code": "TransactionCanceledException"}, "CancellationReasons": list(reasons)}
    return ClientError(answer, "TransactWriteItems")


NONE, LOST, CONFLICT = {"Code": "None"}, {"Code": "ConditionalCheckFailed"}, {"Code": "TransactionConflict"}


@pytest.mark.parametrize(
    ("reasons", "told"),
    [
        ([{**LOST, "Item": entry_item(ENTRY)}, NONE], Cancelled((ENTRY,), None, contended=False)),
        ([NONE, {**LOST, "Item": BALANCE}], Cancelled((), Head.at(ENTRY), contended=False)),
        ([CONFLICT, {**LOST, "Item": {}}], Cancelled((), NEW, contended=True)),
    ],
)
def test_conditions_that_failed_are_an_answer(reasons: list[dict[str, Any]], told: Cancelled) -> None:
    """They say what is stored, and no more is asked."""
    wire = Wire(cancelled(*reasons))
    assert wire.store.append([ENTRY], head=NEW, token="t") == told
    assert len(wire.asked) == 1


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (cancelled(NONE, CONFLICT), ContentionError),
        (cancelled({"Code": "ThrottlingError"}, NONE), UnavailableError),
        (cancelled({"Code": "ValidationError"}, {**LOST, "Item": BALANCE}), StoreError),
        (cancelled({**LOST, "Item": {"id": {"N": "1"}}}, NONE), StoreError),
        (cancelled(NONE, NONE), StoreError),
        (cancelled(), StoreError),
    ],
)
def test_a_transaction_that_did_not_get_to_its_conditions_is_an_error(
    error: ClientError, ours: type[Exception]
) -> None:
    """So is one of which a condition failed that can never be met."""
    with pytest.raises(ours) as failure:
        Wire(error).store.append([ENTRY], head=NEW, token="t")
    assert failure.value.__cause__ is error
