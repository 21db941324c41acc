"""What an audit reads, waits for and says, to the letter; without a fake of DynamoDB."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar

import pytest

from ledger_core import InvalidRequestError, LedgerEntry
from ledger_core.audit import INDEX_LAG_PAUSES_SECONDS, Report, audit_export, audit_store, export
from ledger_core.exports import head_line
from ledger_core.findings import Finding, FindingKind
from ledger_core.models import GENESIS_HASH, Head, format_time
from ledger_core.receipts import Receipt
from tests.support import NOON, add

T = TypeVar("T")
MINUTE = timedelta(minutes=1)
NEW = Head(owner_id="ada")


def once(call: Callable[[], T]) -> T:
    return call()


def written(entries: int, owner_id: str = "ada") -> tuple[Head, list[dict[str, Any]]]:
    """A head, and the rows of its entries, a minute apart, of 1, 2, 3 and so on credits."""
    head, rows = Head(owner_id=owner_id), []
    for number in range(1, entries + 1):
        request = add(number, f"n{number}", owner_id=owner_id).model_copy(update={"metadata": {"k": "ü"}})
        entry = LedgerEntry.after(head, request, amount=number, now=NOON + number * MINUTE)
        head = Head.at(entry)
        rows.append(entry.model_dump(mode="json"))
    return head, rows


def audited(*rows: Any, head: Head) -> Report:
    (report,) = audit_export([head_line(head), *(json.dumps(row) for row in rows)])
    return report


def said(report: Report) -> list[tuple[int | None, str, Any, Any]]:
    return [(one.entry_id, one.field, one.expected, one.found) for one in report.discrepancies]


def test_constants_are_what_readers_are_told() -> None:
    """Three looks, the last 1.2 seconds after the first."""
    assert INDEX_LAG_PAUSES_SECONDS == (0.0, 0.2, 1.0)


@pytest.mark.parametrize(
    ("changed", "discrepancy"),
    [
        ({"owner_id": "bob"}, ("owner_id", "ada", "bob")),
        ({"id": 7}, ("id", 2, 7)),
        ({"amount": 5}, ("balance_after", 6, 3)),
        ({"balance_after": -1}, ("balance_after", "0 or more", -1)),
        ({"prev_hash": "0"}, ("prev_hash", written(1)[0].head_hash, "0")),
        ({"hash": "0"}, ("hash", written(2)[0].head_hash, "0")),
        (
            {"created_at": "2026-11-22T12:01:00Z", "updated_at": "2026-11-22T12:01:00Z"},
            ("created_at", "after 2026-11-22T12:01:00.000000Z", "2026-11-22T12:01:00.000000Z"),
        ),
    ],
)
def test_a_changed_entry_is_told_by_what_was_expected_and_found(
    changed: dict[str, Any], discrepancy: tuple[str, Any, Any]
) -> None:
    """The second of three entries is changed; that it is not what its hash is of is told too."""
    head, rows = written(3)
    rows[1] |= changed
    found = said(audited(*rows, head=head))
    assert (rows[1]["id"], *discrepancy) in found
    assert "hash" in {field for entry_id, field, *_ in found if entry_id == rows[1]["id"]}


def test_an_entry_without_a_credit_may_leave_nothing() -> None:
    """A balance of zero is none below zero."""
    entry = LedgerEntry.after(NEW, add(1, "n"), amount=0, now=NOON)
    assert audited(entry.model_dump(mode="json"), head=Head.at(entry)).valid


def test_a_row_that_is_no_entry_is_told_by_its_fields() -> None:
    """By the id that it should have, with each field that is wrong and why; the audit goes on after it."""
    head, rows = written(3)
    rows[1] |= {"amount": "2", "metadata": {"k": 1}}
    report = audited(*rows, head=head)
    assert said(report)[:2] == [
        (2, "entry", None, "amount: int_type; metadata.k: string_type"),
        (3, "id", 2, 3),
    ]
    assert (report.owner_id, report.valid, report.entries_checked, report.head) == ("ada", False, 3, head)
    assert {entry_id for entry_id, *_ in said(report)} == {2, 3}


@pytest.mark.parametrize(
    ("changed", "field", "expected", "found"),
    [
        ({"balance": 7}, "balance", 6, 7),
        ({"entry_count": 4}, "entry_count", 3, 4),
        ({"head_hash": "0"}, "head_hash", written(3)[0].head_hash, "0"),
        ({"updated_at": NOON}, "updated_at", "2026-11-22T12:03:00.000000Z", "2026-11-22T12:00:00.000000Z"),
        ({"updated_at": None}, "updated_at", "2026-11-22T12:03:00.000000Z", None),
    ],
)
def test_a_changed_head_is_told_by_what_was_expected_and_found(
    changed: dict[str, Any], field: str, expected: Any, found: Any
) -> None:
    """The entries are what it is measured by."""
    head, rows = written(3)
    values = {name: getattr(head, name) for name in ("owner_id", "balance", "entry_count", "head_hash", "updated_at")}
    assert said(audited(*rows, head=Head(**values | changed))) == [(None, field, expected, found)]


def done(report: Report) -> list[tuple[str, int | None, int | None, int | None]]:
    return [(one.kind, one.first_id, one.last_id, one.position) for one in report.findings]


def test_what_was_done_is_told_with_its_place() -> None:
    """To an entry that is changed, or cannot be read, and to the head."""
    head, rows = written(3)
    assert done(audited(rows[0], rows[1] | {"amount": 9}, rows[2], head=head)) == [("changed", 2, 2, 2)]
    assert done(audited(rows[0], {**rows[1], "amount": "2"}, rows[2], head=head)) == [("changed", 2, 2, 2)]
    assert done(audited(*rows, head=written(2)[0])) == [("inserted", 3, 3, 3)]
    assert done(audited(*rows, head=head)) == []


def test_a_ledger_is_held_against_its_receipts() -> None:
    """One that is in order and not what was signed is told so, from an export and from the store."""
    rewritten, (head, rows) = Receipt.of(written(3)[0], NOON).model_copy(update={"head_hash": "0"}), written(3)
    others = [Receipt.of(written(2)[0], NOON), Receipt.of(written(3, "eve")[0], NOON).model_copy(update={"balance": 0})]
    lines, store = [head_line(head), *(json.dumps(row) for row in rows)], Store(3)
    reading: Any = store
    for receipts, contradicted in ((others, False), ([*others, rewritten], True)):
        (of_export,) = audit_export(lines, receipts)
        of_store = audit_store(reading, "ada", read=once, receipts=receipts, sleep=store.slept.append)
        for report in (of_export, of_store):
            assert report.valid is not contradicted
            assert said(report) == [(3, "receipt", "0", head.head_hash)] * contradicted
            assert done(report) == [("contradicts_receipt", 3, 3, None)] * contradicted


def test_a_ledger_is_valid_when_nothing_at_all_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a value that does not add up nor what was done: either is enough."""
    head, rows = written(2)
    monkeypatch.setattr("ledger_core.chain.Chain.findings", lambda *_: [Finding.of(FindingKind.CHANGED, 1)])
    assert not audited(*rows, head=head).valid
    monkeypatch.setattr("ledger_core.chain.Chain.findings", lambda *_: [])
    assert audited(*rows, head=head).valid
    assert not audited(*rows, head=written(1)[0]).valid


class Store:
    """A ledger in an index that follows after a number of looks, two rows to a page; notes what is asked of it."""

    def __init__(self, entries: int, *, looks: int = 0) -> None:
        self._head, self._rows = written(entries)
        self._looks = looks
        self.asked: list[Any] = []
        self.slept: list[float] = []

    def latest(self, owner_id: str, *, at: datetime | None = None) -> LedgerEntry | None:
        self.asked.append(("latest", owner_id, at))
        rows = self._rows[: -1 if len(self.slept) <= self._looks and self._looks else None]
        return LedgerEntry(**rows[-1]) if rows else None

    def head(self, owner_id: str, *, consistent: bool) -> Head:
        self.asked.append(("head", owner_id, consistent))
        return self._head

    def rows(self, owner_id: str, *, until: datetime, start: int | None = None) -> tuple[list[dict[str, Any]], Any]:
        self.asked.append(("rows", owner_id, until, start))
        seen = self._rows[: -1 if len(self.slept) <= self._looks and self._looks else None]
        begin = start or 0
        return seen[begin : begin + 2], begin + 2 if begin + 2 < len(seen) else None


def test_an_export_is_the_head_and_then_the_entries() -> None:
    """Page by page to the end; the letters of all alphabets are left as they are."""
    store: Any = Store(3)
    lines = list(export(store, "ada", read=once, sleep=store.slept.append))
    head, rows = written(3)
    assert lines == [head_line(head), *(json.dumps(row, ensure_ascii=False) for row in rows)]
    assert "ü" in lines[1]
    assert store.asked == [
        ("latest", "ada", None),
        ("head", "ada", True),
        ("latest", "ada", head.updated_at),
        ("rows", "ada", head.updated_at, None),
        ("rows", "ada", head.updated_at, 2),
    ]
    assert store.slept == [0.0]


@pytest.mark.parametrize(("looks", "slept"), [(0, [0.0]), (1, [0.0, 0.2]), (2, [0.0, 0.2, 1.0]), (9, [0.0, 0.2, 1.0])])
def test_an_export_waits_for_the_index(looks: int, slept: list[float]) -> None:
    """Until it shows the entry that the head knows of, or three looks were enough."""
    store: Any = Store(3, looks=looks)
    assert len(list(export(store, "ada", read=once, sleep=store.slept.append))) == (4 if looks < 3 else 3)
    assert store.slept == slept


@pytest.mark.parametrize(("looks", "slept"), [(0, [0.0]), (1, [0.0, 0.2]), (2, [0.0, 0.2, 1.0]), (9, [0.0, 0.2, 1.0])])
def test_an_audit_waits_for_the_index(looks: int, slept: list[float]) -> None:
    """Until all adds up, or three looks were enough; the head is read once."""
    store: Any = Store(3, looks=looks)
    report = audit_store(store, "ada", read=once, sleep=store.slept.append)
    assert (report.owner_id, report.valid, report.entries_checked) == ("ada", looks < 3, 3 if looks < 3 else 2)
    assert store.slept == slept
    assert store.asked[:3] == [
        ("latest", "ada", None),
        ("head", "ada", True),
        ("rows", "ada", written(3)[0].updated_at, None),
    ]
    assert ("head", "ada", True) not in store.asked[2:]


def test_an_owner_never_seen_has_nothing_to_read() -> None:
    """One look is enough, and no page is asked for."""
    for reading in (lambda store: audit_store(store, "ada", read=once, sleep=store.slept.append), lines_of):
        store: Any = Store(0)
        store._head = NEW
        assert reading(store)
        assert {name for name, *_ in store.asked} == {"latest", "head"}
        assert store.slept == [0.0]


def lines_of(store: Any) -> list[str]:
    return list(export(store, "ada", read=once, sleep=store.slept.append))


def test_entries_beyond_the_head_are_read_too() -> None:
    """The later of the two times, the head's and the last entry's, is how far is read."""
    store: Any = Store(3)
    store._head = written(2)[0]
    report = audit_store(store, "ada", read=once, sleep=store.slept.append)
    assert store.asked[-1] == ("rows", "ada", NOON + 3 * MINUTE, 2)
    assert (report.valid, report.entries_checked) == (False, 3)


def test_exports_follow_each_other_with_a_report_each() -> None:
    """Two of one owner are two, and a line that is empty is none."""
    (head, rows), (other, _) = written(2), written(0, "eve")
    lines = [head_line(head), *(json.dumps(row) for row in rows)]
    reports = list(audit_export([*lines, *lines, "\n", head_line(other)]))
    assert [(one.owner_id, one.valid, one.entries_checked) for one in reports] == [
        ("ada", True, 2),
        ("ada", True, 2),
        ("eve", True, 0),
    ]


@pytest.mark.parametrize("line", ["{", "7", "[" * 100_000, '"text"', '{"id": 1}'])
def test_a_line_that_is_no_entry_is_a_discrepancy(line: str) -> None:
    """Whatever it is; the lines around it are read as they are."""
    head, rows = written(2)
    first, second = (json.dumps(row) for row in rows)
    (report,) = audit_export([head_line(head), first, line, second])
    assert [(entry_id, field, expected) for entry_id, field, expected, _ in said(report)] == [(2, "entry", None)]
    assert report.entries_checked == 3


def line_of_head(**changed: Any) -> str:
    values = {"owner_id": "ada", "balance": 0, "entry_count": 0, "head_hash": GENESIS_HASH, "updated_at": None}
    return json.dumps(values | changed)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "line 1: the export is empty"),
        ([json.dumps(written(1)[1][0])], "line 1: an export begins with the head of a ledger"),
        (["7"], "line 1: an export begins with the head of a ledger"),
        ([line_of_head(balance="0")], "line 1: this head is malformed"),
        ([line_of_head(more=1)], "line 1: this head is malformed"),
        ([line_of_head(), line_of_head(), line_of_head(entry_count=None)], "line 3: this head is malformed"),
    ],
)
def test_what_is_no_export_is_refused_with_the_line(lines: list[str], message: str) -> None:
    """A person finds it by its number."""
    with pytest.raises(InvalidRequestError, match=f"^{message}$"):
        list(audit_export(lines))


def test_a_head_s_time_is_text() -> None:
    """As an entry's is."""
    head, rows = written(1)
    assert head.updated_at
    line = line_of_head(balance=1, entry_count=1, head_hash=head.head_hash, updated_at=format_time(head.updated_at))
    (report,) = audit_export([line, json.dumps(rows[0])])
    assert (report.valid, report.head) == (True, head)
