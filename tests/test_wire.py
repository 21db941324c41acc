"""What is asked of DynamoDB, to the letter, and what is counted of its answers."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from ledger_core import LedgerStore
from ledger_core.items import Mark, Write, entry_item, transact_items
from ledger_core.models import Head, LedgerEntry, format_time
from ledger_core.store import HISTORY_QUERIES_MAX
from ledger_core.usage import measured
from tests.support import NOON, operation

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
            return self.answers.pop(0)

        return ask


def entry_after(head: Head) -> LedgerEntry:
    return LedgerEntry.after(head, operation(metadata={"k": "v"}), amount=3, now=NOON)


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


@pytest.mark.parametrize(
    ("head", "mark", "active", "condition", "expression", "values"),
    [
        (NEW, None, True, IS_NEW, SET + ACTIVE, {}),
        (KNOWN, None, True, IS_KNOWN, SET + ACTIVE, OF_KNOWN),
        (NEW, DAY, True, IS_NEW, SET + ACTIVE + NOTED, OF_DAY),
        (KNOWN, DAY, True, IS_KNOWN, SET + ACTIVE + NOTED, OF_KNOWN | OF_DAY),
        (NEW, None, False, IS_NEW, SET + NOT_ACTIVE, {":active_at": {"S": NOON_TEXT}}),
        (KNOWN, DAY, False, IS_KNOWN, SET + NOT_ACTIVE + NOTED, OF_KNOWN | OF_DAY | {":active_at": {"S": BEFORE_TEXT}}),
    ],
)
def test_an_entry_and_its_balance_are_written_under_conditions(
    head: Head, mark: Mark | None, active: bool, condition: str, expression: str, values: dict[str, Any]
) -> None:
    """The nonce must be new and the head the one that is known; what is stored comes back if it is not so."""
    entry = entry_after(head)
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
    write = Write(entry, head, mark)
    assert transact_items(write, entries_table="entries", balances_table="balances", active=active) == pair
    if active:
        wire = Wire({})
        assert wire.store.append(entry, head=head, token="t", mark=mark) is None
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
        (lambda store: store.rows("ada", until=NOON), query(until=NOON_TEXT, newest_first=False)),
        (
            lambda store: store.rows("ada", until=NOON, start=BOOKMARK),
            query(until=NOON_TEXT, newest_first=False, ExclusiveStartKey=BOOKMARK),
        ),
    ],
)
def test_each_read_is_one_request_and_its_units_are_added_up(
    call: Callable[[LedgerStore], Any], asked: tuple[str, dict[str, Any]]
) -> None:
    """What is read and how: by key or by the index, at what consistency, from where to where, how much of it."""
    answer = {"Responses": [{}, {}], "Items": [], "ConsumedCapacity": {"CapacityUnits": 0.5}}
    wire = Wire(answer, answer)
    with measured() as usage:
        call(wire.store)
        call(wire.store)
    assert wire.asked == [asked, asked]
    assert (usage.dynamodb_requests, usage.read_units, usage.write_units) == (2, 1.0, 0)


def test_units_of_writes_are_added_up() -> None:
    """A request may write twice, and both cost."""
    wire = Wire(*[{"ConsumedCapacity": [{"CapacityUnits": 3.0}, {"CapacityUnits": 2.0}]}] * 2)
    with measured() as usage:
        for _ in range(2):
            wire.store.append(entry_after(NEW), head=NEW, token="t")
    assert (usage.dynamodb_requests, usage.read_units, usage.write_units) == (2, 0, 10.0)


def page_of(*ids: int, more: bool) -> dict[str, Any]:
    """An answer with entries a second apart; the index has been looked at up to a second before the last of them."""
    entries = [LedgerEntry.after(NEW, operation(nonce=str(one)), amount=3, now=NOON + one * SECOND) for one in ids]
    answer: dict[str, Any] = {"Items": [entry_item(entry) for entry in entries]}
    if more:
        answer["LastEvaluatedKey"] = {"created_at": {"S": format_time(NOON + (ids[-1] - 1) * SECOND)}}
    return answer


def nonces(page: tuple[list[LedgerEntry], datetime | None]) -> tuple[list[str], datetime | None]:
    return [entry.nonce for entry in page[0]], page[1]


def test_a_filtered_page_goes_on_where_the_last_request_ended() -> None:
    """Each request begins just before what was looked at; the page ends with the requests that it may take."""
    wire, reads = Wire(*(page_of(second, more=True) for second in (40, 30, 20, 10))), []

    def read(call: Callable[[], Any]) -> Any:
        reads.append(call)
        return call()

    page = wire.store.page("ada", since=NOON, before=NOON + 50 * SECOND, operation="SIGNUP_CREDIT", limit=9, read=read)
    assert nonces(page) == (["40", "30", "20", "10"], NOON + 9 * SECOND)
    assert [arguments["ExpressionAttributeValues"][":until"]["S"] for _, arguments in wire.asked] == [
        f"2026-11-22T12:00:{second}.999999Z" for second in (49, 38, 28, 18)
    ]
    assert len(reads) == HISTORY_QUERIES_MAX == 4


@pytest.mark.parametrize(
    ("answers", "limit", "page"),
    [
        ([page_of(3, 2, more=False)], 2, (["3", "2"], None)),
        ([page_of(3, 2, 1, more=False)], 2, (["3", "2"], NOON + 2 * SECOND)),
        ([page_of(3, 2, more=True), page_of(1, more=False)], 2, (["3", "2"], NOON + 2 * SECOND)),
        ([page_of(3, more=True), page_of(1, more=False)], 2, (["3", "1"], None)),
        ([page_of(3, more=True), {"Items": []}], 2, (["3"], None)),
        ([{"Items": []}], 2, ([], None)),
    ],
)
def test_a_page_tells_where_the_next_begins(answers: list[Any], limit: int, page: Any) -> None:
    """Before its last entry when there are more, nowhere when there are none."""
    assert nonces(Wire(*answers).store.page("ada", operation="SIGNUP_CREDIT", limit=limit)) == page


@pytest.mark.parametrize(("since", "requests"), [(timedelta(), 0), (-timedelta(microseconds=1), 1)])
def test_an_interval_that_holds_no_instant_is_not_asked_for(since: timedelta, requests: int) -> None:
    """One that holds a single one is."""
    wire = Wire({"Items": []})
    assert wire.store.page("ada", since=NOON + since, before=NOON, limit=1) == ([], None)
    assert len(wire.asked) == requests
