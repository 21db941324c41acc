"""An audit names each discrepancy and its entry, in the store and in an export."""

import json
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from ledger_core import InvalidRequestError, UnavailableError
from ledger_core.audit import audit_export, audit_store, export
from ledger_core.audit.store_audit import INDEX_LAG_PAUSES_SECONDS
from ledger_core.cli import main
from ledger_core.dynamodb import HEAD_FIELDS, LedgerStore
from ledger_core.dynamodb.expressions import transact_items
from ledger_core.fields import format_time
from ledger_core.posting import OperationProcessor
from tests.simulator.model import ModelDynamoDB
from tests.support import NOON, add, change_of

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Ledger = list[dict[str, Any]]
T = TypeVar("T")


def once(call: Callable[[], T]) -> T:
    return call()


@pytest.fixture
def ledger(processor: OperationProcessor) -> Ledger:
    """Ada's five entries and her head, as an export has them: the head first."""
    for step in range(5):
        processor.process(add(step + 1, f"n{step}"))
    return [json.loads(line) for line in export(processor.store, "ada", read=once)]


def findings(ledger: Ledger) -> list[tuple[int | None, str]]:
    (report,) = audit_export(json.dumps(row) for row in ledger)
    assert report.valid == (not report.discrepancies)
    return [(discrepancy.entry_id, discrepancy.field) for discrepancy in report.discrepancies]


def change(position: int, **fields: Any) -> Callable[[Ledger], None]:
    return lambda ledger: ledger[position].update(fields)


def insert_twice(ledger: Ledger) -> None:
    ledger.insert(3, ledger[2])


MISSING = [(4, "id"), (4, "balance_after"), (4, "prev_hash")]
"""The discrepancies of the entry that follows a missing one."""
UNREADABLE = [(3, "entry"), *MISSING]


def test_untouched_ledger_is_valid(ledger: Ledger) -> None:
    """Five entries that are as they were written, and their head, have no discrepancy."""
    assert findings(ledger) == []


@pytest.mark.parametrize(
    ("tamper", "found"),
    [
        (change(3, amount=99), [(3, "balance_after"), (3, "hash")]),
        (change(3, metadata={"k": "v"}), [(3, "hash")]),
        (change(3, nonce="other"), [(3, "hash")]),
        (change(3, owner_id="bob"), [(3, "owner_id"), (3, "hash")]),
        (change(3, hash="0" * 64), [(3, "hash"), (4, "prev_hash")]),
        (change(3, created_at="2020-01-01T00:00:00.000000Z"), [(3, "hash"), (3, "created_at")]),
        (
            change(3, created_at="2020-01-01T00:00:00Z"),
            [(3, "created_at"), (3, "hash"), (3, "created_at")],
        ),
        (
            change(3, balance_after=-1),
            [(3, "balance_after"), (3, "hash"), (3, "balance_after"), (4, "balance_after")],
        ),
        (change(3, amount="3"), UNREADABLE),
        (change(3, surprise=1), [(3, "format")]),
        (change(3, v=2), [(3, "format")]),
        (lambda ledger: ledger[3].pop("v"), [(3, "format")]),
        (change(3, v=True), [(3, "v")]),
        (change(3, v="1"), UNREADABLE),
        (change(3, metadata={}), [(3, "metadata")]),
        (lambda ledger: ledger.pop(3), MISSING),
        (insert_twice, [(2, "id"), (2, "balance_after"), (2, "prev_hash"), (2, "created_at")]),
        (lambda ledger: ledger.pop(), [(None, field) for field in HEAD_FIELDS]),
        (change(0, balance="15"), [(None, "balance")]),
        (change(0, balance="15", lots=[]), [(None, "format")]),
        (change(0, balance=99), [(None, "balance")]),
        (change(0, entry_count=6), [(None, "entry_count")]),
        (change(0, head_hash="0" * 64), [(None, "head_hash")]),
        (change(0, updated_at="2099-01-01T00:00:00Z"), [(None, "updated_at")]),
    ],
)  # fmt: skip
def test_tampering_is_named(
    ledger: Ledger, tamper: Callable[[Ledger], None], found: list[tuple[int, str]]
) -> None:
    """Each change is found where it was made, and accuses no later entry."""
    tamper(ledger)
    assert findings(ledger) == found


def test_swapped_entries_are_named(ledger: Ledger) -> None:
    """Two entries in each other's place are both out of order."""
    ledger[2], ledger[3] = ledger[3], ledger[2]
    assert {(2, "id"), (3, "id"), (2, "created_at")} <= set(findings(ledger))


def test_discrepancy_has_the_expected_and_the_found_value(ledger: Ledger) -> None:
    """A discrepancy has the entry, the field, the expected value and the found value."""
    ledger[0]["balance"] = 99
    (report,) = audit_export(json.dumps(row) for row in ledger)
    assert [discrepancy.model_dump() for discrepancy in report.discrepancies] == [
        {"entry_id": None, "field": "balance", "expected": 15, "found": 99}
    ]
    assert (report.owner_id, report.entries_checked) == ("ada", 5)


def test_export_of_several_owners_gives_a_report_each(processor: OperationProcessor) -> None:
    """An export may have several ledgers; the ledger of an owner without entries is valid."""
    for owner_id in ("ada", "bob"):
        processor.process(add(1, "n", owner_id=owner_id))
    lines = [
        line
        for owner_id in ("ada", "ada", "nobody", "bob")
        for line in export(processor.store, owner_id, read=once)
    ]
    reports = list(audit_export([*lines, "\n"]))
    assert [(report.owner_id, report.valid, report.entries_checked) for report in reports] == [
        ("ada", True, 1),
        ("ada", True, 1),
        ("nobody", True, 0),
        ("bob", True, 1),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "no json",
        '{"id": 1}',
        '{"head_hash": 1}',
        "[" * 100_000,
        '{"owner_id": 1, "head_hash": ""}',
        '{"owner_id": "ada", "bala',
    ],
)
def test_export_must_begin_with_a_head(line: str) -> None:
    """A file that does not begin with a head is refused with the number of the line."""
    for lines in ([line], []):
        with pytest.raises(InvalidRequestError, match="line 1"):
            list(audit_export(lines))


def test_unreadable_line_is_a_discrepancy(ledger: Ledger) -> None:
    """A line that is no JSON is reported, and the audit goes on."""
    lines = [json.dumps(row) for row in ledger]
    (report,) = audit_export([*lines[:3], "{", *lines[4:]])
    assert [(d.entry_id, d.field) for d in report.discrepancies][:2] == [(3, "entry"), (4, "id")]


def test_store_is_audited_as_it_is(processor: OperationProcessor) -> None:
    """The ledger of a known or an unknown owner is valid at the first look."""
    pauses: list[float] = []
    processor.process(add(1, "n"))
    assert audit_store(processor.store, "ada", read=once, sleep=pauses.append).valid
    assert audit_store(processor.store, "nobody", read=once, sleep=pauses.append).valid
    assert pauses == [0, 0]


@pytest.mark.parametrize("calls", range(8))
def test_audit_ends_when_its_time_is_up(
    processor: OperationProcessor, client: "DynamoDBClient", calls: int
) -> None:
    """An audit gives no verdict before it has seen a discrepancy twice."""
    processor.process(add(1, "n"))
    client.delete_item(TableName=os.environ["LEDGER_ACCOUNTS_TABLE"], Key={"account": {"S": "ada"}})
    possible = iter(range(calls))

    def read(call: Callable[[], T]) -> T:
        if next(possible, None) is None:
            raise UnavailableError("The time was up.")
        return call()

    with pytest.raises(UnavailableError):
        audit_store(processor.store, "ada", read=read, sleep=lambda _: None)


def test_edited_balance_in_the_store_is_found(
    processor: OperationProcessor, client: "DynamoDBClient"
) -> None:
    """An edited balance is reported after the pauses that let the index catch up."""
    processor.process(add(1, "n"))
    client.update_item(
        TableName=os.environ["LEDGER_ACCOUNTS_TABLE"],
        Key={"account": {"S": "ada"}},
        UpdateExpression="SET balance = :b",
        ExpressionAttributeValues={":b": {"N": "1000"}},
    )
    pauses: list[float] = []
    report = audit_store(processor.store, "ada", read=once, sleep=pauses.append)
    assert [(d.field, d.expected, d.found) for d in report.discrepancies] == [("balance", 1, 1000)]
    assert pauses == list(INDEX_LAG_PAUSES_SECONDS)


def test_lagging_index_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, processor: OperationProcessor, store: LedgerStore
) -> None:
    """An entry that the index shows only at the second look is no discrepancy."""
    processor.process(add(1, "n"))
    rows = store.rows
    looks: Iterator[Any] = iter([lambda *_, **__: ([], None)])
    monkeypatch.setattr(store, "rows", lambda *a, **k: next(looks, rows)(*a, **k))
    assert audit_store(store, "ada", read=once, sleep=lambda _: None).valid


def test_index_that_is_always_behind_is_no_discrepancy() -> None:
    """Writers that post while an audit or an export waits for the index cause no discrepancy."""
    now = [0.0]
    model: Any = ModelDynamoDB(
        {"e": "entry_key", "a": "account"}, index=("e", "account", "created_at")
    )
    model.now = lambda: now[0]
    store = LedgerStore(model, entries_table="e", accounts_table="a")

    def write_and_wait(seconds: float) -> None:
        head = store.account("ada", consistent=True)
        entry = head.next_entry(add(1, f"n-{head.entry_count}"), amount=1, now=NOON)
        items = transact_items(change_of(head, entry), entries_table="e", accounts_table="a")
        model.commit(model.prepare(TransactItems=items), lag_seconds=0.9)
        now[0] += seconds
        model.follow()

    write_and_wait(0)
    report = audit_store(store, "ada", read=once, sleep=write_and_wait)
    assert (report.valid, report.entries_checked) == (True, 1)
    write_and_wait(0)
    (report,) = audit_export(export(store, "ada", read=once, sleep=write_and_wait))
    assert (report.valid, report.entries_checked) == (True, 5)


def test_entry_beyond_the_head_is_found(
    processor: OperationProcessor, client: "DynamoDBClient"
) -> None:
    """A forged entry after the last one is reported, although the head does not count it."""
    processor.process(add(1, "n"))
    table = os.environ["LEDGER_ENTRIES_TABLE"]
    item = client.scan(TableName=table)["Items"][0]
    later = format_time(NOON + timedelta(days=10_000))
    client.put_item(
        TableName=table,
        Item={**item, "entry_key": {"S": "ada#x"}, "id": {"N": "2"}, "created_at": {"S": later}},
    )
    report = audit_store(processor.store, "ada", read=once, sleep=lambda _: None)
    assert {(2, "hash"), (None, "entry_count")} <= {
        (d.entry_id, d.field) for d in report.discrepancies
    }


def test_writers_may_go_on_while_a_ledger_is_audited(
    monkeypatch: pytest.MonkeyPatch, processor: OperationProcessor, store: LedgerStore
) -> None:
    """Entries that arrive after the head was read are left for the next audit."""
    processor.process(add(1, "n"))
    rows = store.rows

    def rows_after_another_entry(*arguments: Any, **options: Any) -> Any:
        processor.process(add(1, "meanwhile"))
        return rows(*arguments, **options)

    monkeypatch.setattr(store, "rows", rows_after_another_entry)
    report = audit_store(
        store, "ada", read=once, sleep=lambda _: pytest.fail("looked again") if _ else None
    )
    assert (report.valid, report.entries_checked) == (True, 1)


def test_command_line_exports_and_verifies(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    ledger: Ledger,
    client: "DynamoDBClient",
) -> None:
    """`ledger export` and `ledger verify` do the same; the exit code says whether all is valid."""
    monkeypatch.setattr("ledger_core.wiring.create_client", lambda: client)
    assert main(["export", "ada"]) == 0
    exported = capsys.readouterr().out
    assert [json.loads(line) for line in exported.splitlines()] == ledger
    file = tmp_path / "ada.jsonl"
    file.write_text(exported)
    assert main(["verify", "ada"]) == main(["verify", "--file", str(file)]) == 0
    of_store, of_file = map(json.loads, capsys.readouterr().out.splitlines())
    assert of_store == of_file
    assert of_store["valid"]
    file.write_text(exported.replace('"amount": 3', '"amount": 4'))
    assert main(["verify", "--file", str(file)]) == 1
    assert not json.loads(capsys.readouterr().out)["valid"]
    assert main(["verify", "--file", str(tmp_path / "missing")]) == 2
    assert "No such file" in capsys.readouterr().err
    file.write_bytes(b"\xff\xfe")
    assert main(["verify", "--file", str(file)]) == 2
    assert "line 1" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["verify"])
