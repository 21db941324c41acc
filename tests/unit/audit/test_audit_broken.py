"""An audit and an export of broken tables succeed and name the tampering, also over HTTP."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from functions.example_app.app import create_app
from functions.example_app.operations import ExampleAppOperations
from ledger_core import InvalidRequestError, LedgerEntry, UnavailableError
from ledger_core.account import Account, Head
from ledger_core.audit import Report, audit_export, audit_store, export
from ledger_core.audit.export_format import head_line, row_line
from ledger_core.cli import main
from ledger_core.fields import format_time
from ledger_core.http import LedgerRouter, create_api, create_handler
from ledger_core.posting import TIMEOUT_SECONDS, OperationProcessor
from ledger_core.settings import AuthMode
from tests.support import NOON, LambdaApi, add

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

pytestmark = pytest.mark.slow

T = TypeVar("T")
ENTRIES = 3
KIND_AND_PLACE = tuple[str, int | None]
GONE: Any = None


def once(call: Callable[[], T]) -> T:
    return call()


@pytest.fixture
def ledger(processor: OperationProcessor) -> OperationProcessor:
    """Ada's three entries, and bob's sound ledger beside them."""
    for number in range(1, ENTRIES + 1):
        processor.process(add(number, f"n{number}").model_copy(update={"metadata": {"k": "v"}}))
        processor.process(add(number, f"n{number}", owner_id="bob"))
    return processor


def of_entry(client: "DynamoDBClient", number: int, **changed: Any) -> None:
    """Change attributes of an entry in its table; GONE removes an attribute."""
    table = os.environ["LEDGER_ENTRIES_TABLE"]
    put_changed(client, table, {"entry_key": {"S": f"ada#n{number}"}}, changed)


def of_row(client: "DynamoDBClient", **changed: Any) -> None:
    """Change attributes of Ada's account in its table; GONE removes an attribute."""
    table = os.environ["LEDGER_ACCOUNTS_TABLE"]
    put_changed(client, table, {"account": {"S": "ada"}}, changed)


def put_changed(client: "DynamoDBClient", table: str, key: Any, changed: dict[str, Any]) -> None:
    item = {**client.get_item(TableName=table, Key=key)["Item"], **changed}
    kept = {name: value for name, value in item.items() if value is not GONE}
    client.put_item(TableName=table, Item=kept)


OTHER_TYPES: list[dict[str, Any]] = [
    {"B": b"3"},
    {"NULL": True},
    {"BOOL": True},
    {"SS": ["3"]},
    {"NS": ["3"]},
    {"BS": [b"\xff"]},
    {"L": [{"B": b"3"}, {"M": {}}]},
    {"M": {"k": {"M": {"B": {"B": b"3"}}}}},
    {"N": "1.5"},
]


def found(report: Report) -> list[KIND_AND_PLACE]:
    assert report.valid == (not report.findings) == (not report.discrepancies)
    return [(str(finding.kind), finding.first_id) for finding in report.findings]


def findings(api: LambdaApi, processor: OperationProcessor, tmp_path: Path) -> list[KIND_AND_PLACE]:
    """The findings of the store, which the export, HTTP and the command line share."""
    of_store = audit_store(processor.store, "ada", read=once, sleep=lambda _: None)
    lines = list(export(processor.store, "ada", read=once, sleep=lambda _: None))
    assert list(audit_export(lines)) == [of_store]
    file = tmp_path / "export"
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    failed = 2 if of_store.is_undecided else 1
    status = 0 if of_store.valid else failed
    assert main(["verify", "--file", str(file)]) == status
    answer = api("GET", "/ledger/ada/verify")
    assert (answer.status, answer.body) == (200, of_store.model_dump(mode="json"))
    return found(of_store)


@pytest.fixture
def named(
    client: "DynamoDBClient",
    ledger: OperationProcessor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[], list[KIND_AND_PLACE]]:
    monkeypatch.setattr("ledger_core.audit.store_audit.INDEX_LAG_PAUSES_SECONDS", (0.0,))
    api = LambdaApi(create_handler(create_app(client)))
    return lambda: findings(api, ledger, tmp_path)


BROKEN: dict[str, list[Any]] = {
    "amount": [{"S": "3"}, *OTHER_TYPES, GONE],
    "metadata": [
        {"S": "{}"},
        {"B": b"3"},
        {"M": {}},
        *({"M": {"k": value}} for value in OTHER_TYPES),
        GONE,
    ],
    "nonce": [{"N": "3"}, {"N": "1.5"}, {"B": b"3"}],
    "hash": [{"N": "0"}, {"B": b"3"}, GONE],
    "prev_hash": [{"NULL": True}, GONE],
    "balance_after": [{"S": "3"}, GONE],
    "id": [{"S": "3"}, {"B": b"3"}, GONE],
    "v": [{"S": "1"}, {"BOOL": True}, {"B": b"1"}, {"N": "0"}],
}


@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize("attribute", BROKEN)
def test_broken_attribute_of_an_entry_is_named(
    client: "DynamoDBClient", named: Callable[[], list[KIND_AND_PLACE]], number: int, attribute: str
) -> None:
    """An attribute of a wrong type or without a value is named, also in the last entry."""
    table = os.environ["LEDGER_ENTRIES_TABLE"]
    key = {"entry_key": {"S": f"ada#n{number}"}}
    kept = client.get_item(TableName=table, Key=key)["Item"]
    for value in BROKEN[attribute]:
        of_entry(client, number, **{attribute: value})
        assert named() == [("changed", number)], value
        of_entry(client, number, **kept)
    assert named() == []


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        *(("balance", value) for value in (*OTHER_TYPES, {"S": "6"}, {"N": "7"}, GONE)),
        *(
            (name, value)
            for name in ("entry_count", "head_hash", "updated_at")
            for value in ({"S": "6"}, {"N": "7"}, GONE)
        ),
    ],
)
def test_broken_balance_is_named(
    client: "DynamoDBClient", named: Callable[[], list[KIND_AND_PLACE]], attribute: str, value: Any
) -> None:
    """A broken attribute of the account is named, and no entry is accused."""
    of_row(client, **{attribute: value})
    is_a_hash = attribute == "head_hash" and value is not GONE and "S" in value
    assert named() == [("head_differs" if is_a_hash else "balance_edited", None)]


def test_missing_head_is_named(
    client: "DynamoDBClient", named: Callable[[], list[KIND_AND_PLACE]]
) -> None:
    """An account row without its head is named, even if other attributes are left."""
    of_row(client, balance=GONE, entry_count=GONE, head_hash=GONE, updated_at=GONE)
    assert named() == [("balance_edited", None)]


@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize(
    "respelt",
    [
        lambda text: text.replace("Z", "+00:00"),
        lambda text: text.replace("T", " "),
        lambda text: text.replace("Z", "000Z"),
        lambda text: "zzz",
        lambda text: "-1",
        lambda text: str(int(NOON.timestamp())),
    ],
)
def test_respelt_time_in_the_store_is_named(
    client: "DynamoDBClient",
    ledger: OperationProcessor,
    named: Callable[[], list[KIND_AND_PLACE]],
    respelt: Callable[[str], str],
    number: int,
) -> None:
    """Another spelling of the same time is named too, as is a text that is no time."""
    item = ledger.store.rows("ada", until=None)[0][number - 1]
    of_entry(client, number, created_at={"S": respelt(item["created_at"])})
    assert named()


def test_respelt_time_of_the_account_is_named(
    client: "DynamoDBClient", ledger: OperationProcessor, named: Callable[[], list[KIND_AND_PLACE]]
) -> None:
    """Another spelling of the account's `updated_at` is named."""
    updated_at = ledger.store.stored_head("ada").updated_at
    assert updated_at
    of_row(client, updated_at={"S": updated_at.replace("Z", "+00:00")})
    assert named() == [("balance_edited", None)]


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize(
    "unknown", [{"v": {"N": "2"}}, {"held": {"N": "1"}}, {"lots": {"L": [{"B": b"\xff"}]}}]
)
def test_unknown_attribute_is_an_unknown_format(
    client: "DynamoDBClient",
    named: Callable[[], list[KIND_AND_PLACE]],
    number: int,
    unknown: dict[str, Any],
) -> None:
    """An entry or account with an unknown attribute is not called tampered."""
    of_row(client, **unknown)
    assert named() == [("unknown_format", None)]
    of_entry(client, number, **unknown, hash={"S": "of-another-format"}, balance_after={"N": "99"})
    assert named() == [("unknown_format", number), ("unknown_format", None)]


@pytest.mark.parametrize("name", ["owner_id", "unit", "app", "v"])
def test_row_with_an_attribute_of_an_entry_is_of_an_unknown_format(
    client: "DynamoDBClient", named: Callable[[], list[KIND_AND_PLACE]], name: str
) -> None:
    """The account of an export is the one that was asked for, whatever its row says."""
    of_row(client, **{name: {"S": "eve"}})
    assert named() == [("unknown_format", None)]


@pytest.mark.parametrize("number", [1, 3])
def test_entry_without_a_version_is_of_another_format(
    client: "DynamoDBClient", named: Callable[[], list[KIND_AND_PLACE]], number: int
) -> None:
    """Every entry of format 1 has a version, so an entry without it is no evidence of tampering."""
    of_entry(client, number, v=GONE)
    assert named() == [("unknown_format", number)]


def test_empty_metadata_is_a_change(
    client: "DynamoDBClient", ledger: OperationProcessor, named: Callable[[], list[KIND_AND_PLACE]]
) -> None:
    """An entry without metadata has no such attribute, because the attribute changes its hash."""
    ledger.process(add(4, "n4"))
    assert named() == []
    of_entry(client, 4, metadata={"M": {}})
    assert named() == [("changed", 4)]


def test_export_names_the_account_that_was_asked_for(
    client: "DynamoDBClient", ledger: OperationProcessor
) -> None:
    """An attribute of the account row cannot change the owner of an export."""
    of_row(client, owner_id={"S": "eve"})
    head, *_ = export(ledger.store, "ada", read=once, sleep=lambda _: None)
    assert json.loads(head)["owner_id"] == "ada"


def test_change_before_an_unknown_format_is_named(
    client: "DynamoDBClient", named: Callable[[], list[KIND_AND_PLACE]]
) -> None:
    """Entries after the first of an unknown format are not judged."""
    of_entry(client, 1, amount={"N": "9"})
    of_entry(client, 2, v={"N": "2"})
    of_entry(client, 3, v={"N": "2"}, amount={"N": "9"})
    assert named() == [("changed", 1), ("unknown_format", 2)]


def test_deleted_entries_are_named(
    client: "DynamoDBClient", named: Callable[[], list[KIND_AND_PLACE]]
) -> None:
    """The table confirms that an entry which the index does not show is deleted."""
    table = os.environ["LEDGER_ENTRIES_TABLE"]
    client.delete_item(TableName=table, Key={"entry_key": {"S": "ada#n2"}})
    assert named() == [("deleted", 2)]
    client.delete_item(TableName=table, Key={"entry_key": {"S": "ada#n3"}})
    assert named() == [("tail_cut", 2)]


def test_entry_that_no_index_has_is_missing(
    client: "DynamoDBClient", named: Callable[[], list[KIND_AND_PLACE]]
) -> None:
    """An entry without its time is in no index, so it is missing although the table has it."""
    of_entry(client, 3, created_at=GONE)
    assert named() == [("tail_cut", 3)]


@pytest.mark.parametrize("hidden", [1, 2, 3])
def test_index_that_stays_behind_is_no_tampering(
    client: "DynamoDBClient",
    ledger: OperationProcessor,
    monkeypatch: pytest.MonkeyPatch,
    hidden: int,
) -> None:
    """An audit and an export fail while the index hides an entry, and succeed afterwards."""
    query = client.query
    is_behind = [True]

    def behind(**arguments: Any) -> Any:
        answer = query(**arguments)
        if is_behind:
            answer["Items"] = [item for item in answer["Items"] if item["id"] != {"N": str(hidden)}]
        return answer

    monkeypatch.setattr(client, "query", behind, raising=False)
    monkeypatch.setattr("ledger_core.audit.store_audit.INDEX_LAG_PAUSES_SECONDS", (0.0,))
    with pytest.raises(UnavailableError):
        audit_store(ledger.store, "ada", read=once)
    with pytest.raises(UnavailableError):
        list(export(ledger.store, "ada", read=once))
    api = LambdaApi(create_handler(create_app(client)))
    answer = api("GET", "/ledger/ada/verify")
    assert (answer.status, answer.body["code"]) == (503, "unavailable")
    assert "ledger verify" in answer.body["detail"]
    is_behind.clear()
    assert audit_store(ledger.store, "ada", read=once).valid


def test_ledger_that_is_too_long_for_http_is_refused_for_good(
    client: "DynamoDBClient", ledger: OperationProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the time is up between two pages, the error names the command that has no limit."""
    query = client.query
    monkeypatch.setattr(
        client, "query", lambda **options: query(**options | {"Limit": 1}), raising=False
    )
    for calls, status, code in ((4, 422, "too_long"), (6, 200, None)):
        times = iter([number * TIMEOUT_SECONDS / calls for number in range(99)])
        processor = OperationProcessor(
            ledger.store, ExampleAppOperations, monotonic=partial(next, times)
        )
        api = LambdaApi(
            create_handler(create_api("App", LedgerRouter(processor), auth=AuthMode.NONE))
        )
        answer = api("GET", "/ledger/ada/verify")
        assert (answer.status, answer.body.get("code")) == (status, code)
        assert ("ledger verify" in answer.body.get("detail", "")) is (status == 422)
        assert answer.body.get("valid", False) is (status == 200)


def written(entries: int) -> tuple[Head, list[dict[str, Any]]]:
    account = Account(owner_id="ada")
    rows = []
    for number in range(1, entries + 1):
        request = add(number, f"n{number}").model_copy(update={"metadata": {"k": 'ü"{}'}})
        entry = account.next_entry(request, amount=number, now=NOON)
        account = account.after(entry)
        rows.append(entry.model_dump(mode="json"))
    return account.head, rows


def test_file_that_is_cut_off_says_where() -> None:
    """A file may be cut off in any line, even in the middle of a letter."""
    head, rows = written(2)
    whole = "".join(f"{line}\n" for line in (head_line(head), *map(row_line, rows))).encode()
    for end in range(1, len(whole)):
        lines = whole[:end].decode(errors="replace").splitlines(keepends=True)
        if b"\n" in whole[end - 1 : end + 1]:  # the line is whole
            (report,) = audit_export(lines)
            assert found(report) in ([], [("tail_cut", len(lines))])
        else:
            with pytest.raises(
                InvalidRequestError, match=f"^the export is cut off in line {len(lines)}$"
            ):
                list(audit_export(lines))


@pytest.mark.parametrize("name", ["created_at", "updated_at"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_respelt_time_in_an_export_is_named(name: str, number: int) -> None:
    """Another spelling of the same time is named, although the hash fits the time."""
    exact = written(3)[1][number - 1][name]
    at_one = exact.replace("T12:", "T13:").replace("Z", "+01:00")
    seconds = datetime.fromisoformat(exact).timestamp()
    for respelt in (
        at_one,
        exact.replace("Z", "+00:00"),
        exact.replace("T", " "),
        seconds,
        str(seconds),
    ):
        head, rows = written(3)
        rows[number - 1][name] = respelt
        (report,) = audit_export([head_line(head), *map(json.dumps, rows)])
        assert found(report) == [("changed", number)]
        assert [(row.entry_id, row.field, row.expected) for row in report.discrepancies] == [
            (number, name, exact)
        ]
        assert report.discrepancies[0].found == str(respelt)


def alone(at: int, changed: dict[str, Any]) -> Report:
    """An audit of a ledger with one changed entry; all hashes are made anew to fit it."""
    _, rows = written(3)
    head = Head(owner_id="ada")
    for number, row in enumerate(rows, start=1):
        row["prev_hash"] = head.head_hash
        if number == at:
            row |= changed
        row["hash"] = LedgerEntry(**row).computed_hash()
        head = Head.at(LedgerEntry(**row))
    (report,) = audit_export(
        [head_line(replace(head, owner_id="ada", unit="CREDIT")), *map(json.dumps, rows)]
    )
    return report


def times(microseconds: int) -> dict[str, str]:
    text = format_time(NOON.replace(microsecond=microseconds))
    return {"created_at": text, "updated_at": text}


@pytest.mark.parametrize("at", [2, 3])
@pytest.mark.parametrize(
    ("changed", "field"),
    [
        (lambda at: times(at - 2), "created_at"),
        (lambda at: dict.fromkeys(times(0), "2020-01-01T00:00:00.000000Z"), "created_at"),
        (lambda at: {"owner_id": "eve"}, "owner_id"),
        (lambda at: {"unit": "GEMS"}, "unit"),
    ],
    ids=["equal times", "times that go back", "another owner's entry", "another unit's entry"],
)
def test_wrong_field_with_right_hashes_is_named(
    at: int, changed: Callable[[int], dict[str, Any]], field: str
) -> None:
    """A wrong time, owner or unit is named although every hash is right."""
    report = alone(at, changed(at))
    assert [(row.entry_id, row.field) for row in report.discrepancies] == [(at, field)]
    assert found(report) == [("rewritten", at)]
