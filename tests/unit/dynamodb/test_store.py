"""The store translates DynamoDB's errors, reasons and pages."""

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import botocore.session
import pytest
from botocore.exceptions import (
    ClientError,
    CredentialRetrievalError,
    EndpointConnectionError,
    MetadataRetrievalError,
    NoCredentialsError,
    ReadTimeoutError,
)
from botocore.parsers import ResponseParserError

from ledger_core import ContentionError, UnavailableError
from ledger_core.account import Account
from ledger_core.audit import audit_store
from ledger_core.dynamodb import Cancelled, LedgerStore
from ledger_core.dynamodb.decode import BUSY
from ledger_core.dynamodb.errors import ERRORS
from ledger_core.dynamodb.store import HISTORY_EVALUATED_MAX, HISTORY_QUERIES_MAX
from ledger_core.errors import StoreError, UnknownFormatError
from ledger_core.fields import BALANCE_MAX, format_time
from ledger_core.models import LedgerEntry
from ledger_core.posting import OperationProcessor
from ledger_core.wiring import create_store
from tests.support import NOON, add, change_of, operation, wire

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

NEVER_TRIED_AGAIN = {
    "ResourceNotFoundException",
    "IdempotentParameterMismatchException",
    "TransactionCanceledException",
}


def failing(monkeypatch: pytest.MonkeyPatch, client: Any, error: Exception) -> None:
    def fail(**_: Any) -> None:
        raise error

    for call in ("get_item", "transact_write_items", "transact_get_items", "query", "scan"):
        monkeypatch.setattr(client, call, fail, raising=False)


def refusal(code: str, *reasons: str, status: int = 400) -> ClientError:
    response: Any = {
        "Error": {"Code": code, "Message": "secret"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    if reasons:
        response["CancellationReasons"] = [{"Code": reason} for reason in reasons]
    return ClientError(response, "Call")


CALLS: list[Callable[[LedgerStore], Any]] = [
    lambda store: store.account("ada", consistent=True),
    lambda store: store.look_up("ada", "n"),
    lambda store: store.latest("ada"),
    lambda store: store.page("ada", limit=1),
    lambda store: store.rows("ada", until=None),
    lambda store: store.last_row("ada"),
    lambda store: store.stored_head("ada"),
    lambda store: store.table_ids("ada"),
    lambda store: raised(
        store.transact([change_of(Account(owner_id="ada"), an_entry())], token="t")
    ),
]


def raised(cancelled: Sequence[Cancelled]) -> None:
    """Raise the reason for which a transaction was cancelled."""
    for reason in cancelled:
        raise reason.busy or reason.error or AssertionError("there is no error")


def an_entry() -> LedgerEntry:
    return Account(owner_id="ada").next_entry(operation(), amount=3, now=NOON)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (refusal("ThrottlingException"), UnavailableError),
        (refusal("InternalServerError", status=500), UnavailableError),
        (refusal("502", status=502), UnavailableError),
        (refusal("408", status=408), UnavailableError),
        (refusal("TooManyRequests", status=429), UnavailableError),
        (refusal("403", status=403), UnavailableError),
        (refusal("ExpiredTokenException"), UnavailableError),
        (refusal("TransactionInProgressException"), UnavailableError),
        (refusal("TransactionCanceledException", "None", "TransactionConflict"), ContentionError),
        (refusal("TransactionCanceledException", "ThrottlingError", "None"), UnavailableError),
        (refusal("TransactionCanceledException", "ValidationError", "None"), StoreError),
        (refusal("ResourceNotFoundException"), StoreError),
        (refusal("AccessDeniedException"), StoreError),
        (EndpointConnectionError(endpoint_url="http://nowhere"), UnavailableError),
        (ReadTimeoutError(endpoint_url="http://nowhere"), UnavailableError),
        (ResponseParserError("half an answer"), UnavailableError),
        (AttributeError("an answer that is a list"), UnavailableError),
        (
            CredentialRetrievalError(provider="container-role", error_msg="no answer"),
            UnavailableError,
        ),
        (MetadataRetrievalError(error_msg="no answer"), UnavailableError),
        (NoCredentialsError(), StoreError),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, Exception) else "",
)
@pytest.mark.parametrize("call", CALLS)
def test_errors_of_botocore_are_translated(
    monkeypatch: pytest.MonkeyPatch,
    client: "DynamoDBClient",
    call: Callable[[LedgerStore], Any],
    error: Exception,
    expected: type[Exception],
) -> None:
    """Each call translates each error to a temporary or a permanent error."""
    failing(monkeypatch, client, error)
    with pytest.raises(expected) as failure:
        call(create_store(client))
    is_cancelled = isinstance(error, ClientError) and "CancellationReasons" in error.response
    assert failure.value.__cause__ is error or is_cancelled


@pytest.mark.parametrize(
    "answer", [{}, {"ResponseMetadata": {"RequestId": "r"}}, {"ConsumedCapacity": []}]
)
@pytest.mark.parametrize("call", CALLS)
def test_200_that_is_not_from_dynamodb_is_a_lost_answer(
    monkeypatch: pytest.MonkeyPatch,
    client: "DynamoDBClient",
    call: Callable[[LedgerStore], Any],
    answer: dict[str, Any],
) -> None:
    """A call is done only if the answer has a request id and its consumed capacity."""
    for name in ("get_item", "transact_write_items", "transact_get_items", "query", "scan"):
        monkeypatch.setattr(client, name, lambda **_: answer)
    with pytest.raises(UnavailableError, match="not DynamoDB's"):
        call(create_store(client))


def test_table_of_errors_is_complete() -> None:
    """The table has each error that DynamoDB declares for the calls of the store."""
    model = botocore.session.get_session().get_service_model("dynamodb")
    calls = ("GetItem", "Query", "TransactGetItems", "TransactWriteItems")
    operations = [model.operation_model(call) for call in calls]
    declared = {error.name for declaring in operations for error in declaring.error_shapes}
    assert declared <= set(ERRORS) | NEVER_TRIED_AGAIN
    assert set(ERRORS) >= BUSY


def test_item_is_small_enough_for_one_write_unit(
    store: LedgerStore, client: "DynamoDBClient"
) -> None:
    """An entry with long ids and 200 bytes of metadata takes less than 1 KB."""
    request = operation(owner_id="o" * 20, nonce="n" * 36, metadata={"k" * 20: "v" * 180})
    entry = Account(owner_id="o" * 20, balance=BALANCE_MAX - 3, entry_count=10**9).next_entry(
        request, amount=3, now=NOON
    )
    store.transact([change_of(Account(owner_id="o" * 20), entry)], token="t")
    item = client.scan(TableName=os.environ["LEDGER_ENTRIES_TABLE"])["Items"][0]
    assert sum(len(name) + size(value) for name, value in item.items()) < 1000


def size(typed: Any) -> int:
    """Bytes of a value, by DynamoDB's published rules, rounded up."""
    ((kind, value),) = typed.items()
    if kind == "M":
        return 3 + sum(1 + len(name.encode()) + size(inner) for name, inner in value.items())
    return len(value) // 2 + 2 if kind == "N" else len(value.encode())


@pytest.fixture
def ten_entries(store: LedgerStore) -> list[LedgerEntry]:
    """Ada's ten entries, a second apart, newest first; every third is a signup credit."""
    times = iter(NOON + timedelta(seconds=second) for second in range(10))
    from functions.example_app.operations import ExampleAppOperations

    processor = OperationProcessor(store, ExampleAppOperations, clock=lambda: next(times))
    requests = [operation(nonce=f"n{n}") if n % 3 == 0 else add(1, f"n{n}") for n in range(10)]
    return [processor.process(request) for request in requests][::-1]


def at(second: int) -> Any:
    return NOON + timedelta(seconds=second)


@pytest.mark.parametrize("limit", [1, 3, 5, 10, 11])
def test_pages_join_without_gap_or_overlap(
    store: LedgerStore, client: "DynamoDBClient", ten_entries: list[LedgerEntry], limit: int
) -> None:
    """Pages of any limit have each entry once, newest first, and take one request each."""
    sent = wire(client)
    pages: list[list[LedgerEntry]] = []
    before = None
    while not pages or before:
        page, before = store.page("ada", before=before, limit=limit)
        pages.append(page)
    assert [entry for page in pages for entry in page] == ten_entries
    assert len(sent) == len(pages) == -(-10 // limit)


@pytest.mark.parametrize(
    ("since", "before", "ids"),
    [
        (None, at(2), [2, 1]),
        (at(8), None, [10, 9]),
        (at(3), at(5), [5, 4]),
        (at(3), at(3), []),
        (at(-9), at(0), []),
        (at(10), None, []),
    ],
)
def test_interval_includes_its_start_and_excludes_its_end(
    store: LedgerStore, ten_entries: list[LedgerEntry], since: Any, before: Any, ids: list[int]
) -> None:
    """Intervals are half open, so that two periods join without overlap."""
    assert [entry.id for entry in store.page("ada", since=since, before=before, limit=50)[0]] == ids


def test_operation_filters_and_still_fills_the_page(
    store: LedgerStore, ten_entries: list[LedgerEntry]
) -> None:
    """A filtered page has only entries of the operation, up to its limit."""
    page, before = store.page("ada", operation="SIGNUP_CREDIT", limit=3)
    assert [entry.id for entry in page] == [10, 7, 4]
    page, _ = store.page("ada", operation="SIGNUP_CREDIT", before=before, limit=3)
    assert [entry.id for entry in page] == [1]


def test_filtered_page_is_bounded_in_requests(
    monkeypatch: pytest.MonkeyPatch,
    store: LedgerStore,
    client: "DynamoDBClient",
    ten_entries: list[LedgerEntry],
) -> None:
    """A page with a rare operation takes `HISTORY_QUERIES_MAX` requests, and paging goes on."""
    assert HISTORY_EVALUATED_MAX >= 100
    monkeypatch.setattr("ledger_core.dynamodb.store.HISTORY_EVALUATED_MAX", 2)
    sent = wire(client)
    page, before = store.page("ada", operation="SIGNUP_CREDIT", limit=9)
    assert [entry.id for entry in page] == [10, 7, 4]
    assert len(sent) == HISTORY_QUERIES_MAX
    page, _ = store.page("ada", operation="SIGNUP_CREDIT", before=before, limit=9)
    assert [entry.id for entry in page] == [1]


def test_latest_at_an_instant(store: LedgerStore, ten_entries: list[LedgerEntry]) -> None:
    """`latest` gives the last entry at or before an instant, or None."""
    latest = [store.latest("ada", at=at(second)) for second in (-1, 0, 5, 99)]
    assert [entry and entry.id for entry in latest] == [None, 1, 6, 10]
    assert store.latest("bob") is None


def test_rows_come_in_pages(
    monkeypatch: pytest.MonkeyPatch,
    store: LedgerStore,
    client: "DynamoDBClient",
    ten_entries: list[LedgerEntry],
) -> None:
    """An audit reads all pages of entries, oldest first."""
    query = client.query
    monkeypatch.setattr(
        client, "query", lambda **arguments: query(**{"Limit": 3, **arguments}), raising=False
    )
    sent = wire(client)
    assert audit_store(store, "ada", read=lambda call: call()).entries_checked == 10
    assert sent == ["Query", "GetItem", *["Query"] * 4]
    assert [row["id"] for row in store.rows("ada", until=format_time(at(1)))[0]] == [1, 2]


def test_row_without_an_entry_is_a_new_account(
    store: LedgerStore, client: "DynamoDBClient"
) -> None:
    """The first entry is written to an account row that has only a mark."""
    client.put_item(
        TableName=os.environ["LEDGER_ACCOUNTS_TABLE"],
        Item={"account": {"S": "ada"}, "mark:DAILY_REWARD:day": {"S": "2026-11-22"}},
    )
    head = store.account("ada", consistent=True)
    assert head == Account(owner_id="ada")
    assert store.transact([change_of(head, an_entry())], token="t") == []
    assert store.account("ada", consistent=True).balance == 3


def test_malformed_account_is_an_error_of_the_store(
    store: LedgerStore, client: "DynamoDBClient"
) -> None:
    """The error says that a stored account is malformed."""
    client.put_item(
        TableName=os.environ["LEDGER_ACCOUNTS_TABLE"],
        Item={"account": {"S": "ada"}, "entry_count": {"N": "1"}},
    )
    with pytest.raises(StoreError, match="stored account is malformed"):
        store.account("ada", consistent=True)


def test_entry_of_a_later_version_is_refused(store: LedgerStore, client: "DynamoDBClient") -> None:
    """An entry with an unknown attribute is not read, because its meaning may differ."""
    store.transact([change_of(Account(owner_id="ada"), an_entry())], token="t")
    table = os.environ["LEDGER_ENTRIES_TABLE"]
    client.put_item(
        TableName=table, Item={**client.scan(TableName=table)["Items"][0], "later": {"S": "x"}}
    )
    with pytest.raises(
        UnknownFormatError, match="a stored entry has attributes that are not known: later"
    ):
        store.latest("ada")


@pytest.mark.parametrize("entries", [0, 1])
def test_account_of_a_later_version_is_not_changed(
    store: LedgerStore, client: "DynamoDBClient", entries: int
) -> None:
    """A post to an account with an unknown attribute is refused, and nothing is written."""
    from functions.example_app.operations import ExampleAppOperations

    for number in range(entries):
        OperationProcessor(store, ExampleAppOperations).process(add(1, f"n{number}"))
    accounts = os.environ["LEDGER_ACCOUNTS_TABLE"]
    client.update_item(
        TableName=accounts,
        Key={"account": {"S": "ada"}},
        UpdateExpression="SET lots = :lots",
        ExpressionAttributeValues={":lots": {"L": []}},
    )
    before = [client.scan(TableName=table)["Items"] for table in tables_of_the_ledger()]
    with pytest.raises(
        UnknownFormatError, match="a stored account has attributes that are not known: lots"
    ):
        OperationProcessor(store, ExampleAppOperations).process(add(1, "n"))
    assert [client.scan(TableName=table)["Items"] for table in tables_of_the_ledger()] == before


def tables_of_the_ledger() -> list[str]:
    return [os.environ["LEDGER_ENTRIES_TABLE"], os.environ["LEDGER_ACCOUNTS_TABLE"]]


def test_malformed_stored_entry_is_named_without_its_content(
    store: LedgerStore, client: "DynamoDBClient"
) -> None:
    """The error of the store names the wrong field and shows no value."""
    client.put_item(
        TableName=os.environ["LEDGER_ENTRIES_TABLE"],
        Item={
            "entry_key": {"S": "ada#n"},
            "account": {"S": "ada"},
            "v": {"N": "1"},
            "owner_id": {"S": "ada"},
            "created_at": {"S": "2026-11-22T12:00:00.000000Z"},
            "amount": {"N": "1.5"},
            "metadata": {"M": {"k": {"S": "secret"}}},
        },
    )
    with pytest.raises(StoreError, match="malformed") as failure:
        store.page("ada", limit=1)
    assert "amount" in str(failure.value)
    assert "secret" not in str(failure.value)
