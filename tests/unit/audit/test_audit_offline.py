"""What an audit reads, waits for and reports, exactly; without a fake of DynamoDB."""

import json
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Any, TypeVar

import pytest

from ledger_core import InvalidRequestError, LedgerError, UnavailableError
from ledger_core.account import GENESIS_HASH, Account, Head
from ledger_core.audit import Receipt, Report, audit, audit_export, audit_store, export
from ledger_core.audit.export_format import LineCopy, head_line
from ledger_core.audit.findings import DISCREPANCIES_MAX, FINDINGS_MAX
from ledger_core.audit.store_audit import INDEX_LAG_PAUSES_SECONDS
from ledger_core.dynamodb import StoredHead
from ledger_core.errors import StoreError, TooLongError
from ledger_core.fields import format_time
from ledger_core.posting import RetryBudget
from tests.support import NOON, add

T = TypeVar("T")
MINUTE = timedelta(minutes=1)
NEW = Head(owner_id="ada")


def once(call: Callable[[], T]) -> T:
    return call()


def written(entries: int, owner_id: str = "ada") -> tuple[Head, list[dict[str, Any]]]:
    """A head, and the rows of its entries, a minute apart, of 1, 2, 3 and so on credits."""
    account = Account(owner_id=owner_id)
    rows = []
    for number in range(1, entries + 1):
        request = add(number, f"n{number}", owner_id=owner_id).model_copy(
            update={"metadata": {"k": "ü"}}
        )
        entry = account.next_entry(request, amount=number, now=NOON + number * MINUTE)
        account = account.after(entry)
        rows.append(entry.model_dump(mode="json"))
    return account.head, rows


def audited(*rows: Any, head: Head) -> Report:
    (report,) = audit_export([head_line(head), *(json.dumps(row) for row in rows)])
    return report


def discrepancies(report: Report) -> list[tuple[int | None, str, Any, Any]]:
    return [(row.entry_id, row.field, row.expected, row.found) for row in report.discrepancies]


def test_constants_are_what_operators_read() -> None:
    """An audit looks three times, the last time 1.2 seconds after the first."""
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
def test_changed_entry_has_an_expected_and_a_found_value(
    changed: dict[str, Any], discrepancy: tuple[str, Any, Any]
) -> None:
    """The second of three entries is changed; its changed field and its hash are reported."""
    head, rows = written(3)
    rows[1] |= changed
    found = discrepancies(audited(*rows, head=head))
    assert (rows[1]["id"], *discrepancy) in found
    assert "hash" in {field for entry_id, field, *_ in found if entry_id == rows[1]["id"]}


def test_balance_of_zero_is_valid() -> None:
    """An entry of 0 credits in a new account leaves a balance of 0."""
    entry = Account(owner_id="ada").next_entry(add(1, "n"), amount=0, now=NOON)
    assert audited(entry.model_dump(mode="json"), head=Head.at(entry)).valid


def test_unreadable_row_is_reported_with_its_fields() -> None:
    """The discrepancy has the expected id and each wrong field; the audit goes on after it."""
    head, rows = written(3)
    rows[1] |= {"amount": "2", "metadata": {"k": 1}}
    report = audited(*rows, head=head)
    assert discrepancies(report)[:2] == [
        (2, "entry", None, "amount: int_type; metadata.k: string_type"),
        (3, "id", 2, 3),
    ]
    assert not report.valid
    assert (report.owner_id, report.entries_checked, report.head) == ("ada", 3, head)
    assert {entry_id for entry_id, *_ in discrepancies(report)} == {2, 3}


@pytest.mark.parametrize(
    ("changed", "field", "expected", "found"),
    [
        ({"balance": 7}, "balance", 6, 7),
        ({"entry_count": 4}, "entry_count", 3, 4),
        ({"head_hash": "0"}, "head_hash", written(3)[0].head_hash, "0"),
        (
            {"updated_at": NOON},
            "updated_at",
            "2026-11-22T12:03:00.000000Z",
            "2026-11-22T12:00:00.000000Z",
        ),
        ({"updated_at": None}, "updated_at", "2026-11-22T12:03:00.000000Z", None),
    ],
)
def test_changed_head_has_an_expected_and_a_found_value(
    changed: dict[str, Any], field: str, expected: Any, found: Any
) -> None:
    """The expected value of a head comes from the entries."""
    head, rows = written(3)
    values = {
        name: getattr(head, name)
        for name in ("owner_id", "balance", "entry_count", "head_hash", "updated_at")
    }
    report = audited(*rows, head=Head(**values | changed))
    assert discrepancies(report) == [(None, field, expected, found)]


def findings(report: Report) -> list[tuple[str, int | None, int | None, int | None]]:
    return [
        (finding.kind, finding.first_id, finding.last_id, finding.position)
        for finding in report.findings
    ]


def test_finding_has_its_place() -> None:
    """A changed entry, an unreadable entry and an inserted entry have their ids and position."""
    head, rows = written(3)
    assert findings(audited(rows[0], rows[1] | {"amount": 9}, rows[2], head=head)) == [
        ("changed", 2, 2, 2)
    ]
    assert findings(audited(rows[0], {**rows[1], "amount": "2"}, rows[2], head=head)) == [
        ("changed", 2, 2, 2)
    ]
    assert findings(audited(*rows, head=written(2)[0])) == [("inserted", 3, 3, 3)]
    assert findings(audited(*rows, head=head)) == []


def test_ledger_is_compared_with_its_receipts() -> None:
    """A valid ledger that contradicts a receipt is reported, in an export and in the store."""
    head, rows = written(3)
    contradicting = Receipt.of(head, NOON, "ledger").model_copy(update={"head_hash": "0"})
    others = [
        Receipt.of(written(2)[0], NOON, "ledger"),
        Receipt.of(written(3, "eve")[0], NOON, "ledger").model_copy(update={"balance": 0}),
        contradicting.model_copy(update={"unit": "GEMS"}),
    ]
    lines = [head_line(head), *(json.dumps(row) for row in rows)]
    store: Any = Store(3)
    for receipts, contradicted in ((others, False), ([*others, contradicting], True)):
        (of_export,) = audit_export(lines, receipts)
        of_store = audit_store(store, "ada", read=once, receipts=receipts, sleep=store.slept.append)
        for report in (of_export, of_store):
            assert report.valid is not contradicted
            assert discrepancies(report) == [(3, "receipt", "0", head.head_hash)] * contradicted
            assert findings(report) == [("contradicts_receipt", 3, 3, None)] * contradicted


def test_valid_ledger_is_read_once_and_not_diagnosed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a ledger that does not add up is read a second time and diagnosed."""
    readings: list[int] = []
    diagnosed: list[Any] = []
    head, rows = written(2)

    def diagnose(*arguments: Any) -> list[Any]:
        diagnosed.append(arguments)
        return []

    monkeypatch.setattr("ledger_core.audit.fold.diagnose", diagnose)

    def read_rows() -> list[dict[str, Any]]:
        readings.append(len(rows))
        return rows

    assert audit(head, read_rows).valid
    assert (readings, diagnosed) == ([2], [])
    assert not audit(written(1)[0], read_rows).valid
    assert (readings, len(diagnosed)) == ([2, 2, 2], 1)


def test_second_reading_decides() -> None:
    """A ledger whose second reading adds up is valid: the first may have missed an entry."""
    head, rows = written(2)
    readings = iter([rows[:1], rows])
    assert audit(head, lambda: next(readings)).valid


def test_report_is_truncated_at_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report has at most 1,000 findings and 1,000 discrepancies, and `truncated` says so."""
    assert (FINDINGS_MAX, DISCREPANCIES_MAX) == (1000, 1000)
    head, rows = written(5)
    for row in (rows[0], rows[2], rows[4]):
        row["nonce"] = "other"
    for findings_max, discrepancies_max, truncated in ((3, 3, False), (2, 3, True), (3, 2, True)):
        monkeypatch.setattr("ledger_core.audit.fold.FINDINGS_MAX", findings_max)
        monkeypatch.setattr("ledger_core.audit.fold.DISCREPANCIES_MAX", discrepancies_max)
        report = audited(*rows, head=head)
        assert [finding.first_id for finding in report.findings] == [1, 3, 5][:findings_max]
        assert [row.entry_id for row in report.discrepancies] == [1, 3, 5][:discrepancies_max]
        assert (report.valid, report.truncated) == (False, truncated)
    assert not audited(*written(5)[1], head=head).truncated


@pytest.mark.parametrize("bytes_max", [1, 1 << 20])
def test_copy_of_lines_has_the_same_rows(monkeypatch: pytest.MonkeyPatch, bytes_max: int) -> None:
    """A copy in memory or in a file keeps unreadable lines, all letters, and inner line feeds."""
    monkeypatch.setattr("ledger_core.audit.export_format.COPY_BYTES_IN_MEMORY_MAX", bytes_max)
    lines = ['{"a": "ü\u2028"}\n', "no json\n", '{"b":\n1}', '{"c": "\n"}', '"\ud800"', "7"]
    rows: list[Any] = [{"a": "ü\u2028"}, "no json\n", {"b": 1}, '{"c": "\r"}\n', "\ud800", 7]
    with LineCopy() as copy:
        for line in lines:
            copy.add(line)
        assert list(copy.rows()) == list(copy.rows()) == rows


class Store:
    """A ledger whose index is behind for some looks; it has pages of two rows and notes the calls.

    Until then the index hides the ids in `hidden`; the table lacks the ids in `cut`.
    """

    def __init__(
        self,
        entries: int,
        *,
        looks: int = 0,
        hidden: Collection[int] | None = None,
        cut: Collection[int] = (),
    ) -> None:
        self._head, rows = written(entries)
        self._rows = [row for row in rows if row["id"] not in cut]
        self._looks = looks
        self._hidden = {entries} if hidden is None else hidden
        self.denied: LedgerError | None = None
        self.asked: list[Any] = []
        self.slept: list[float] = []

    def last_row(self, owner_id: str, *, until: str | None = None) -> dict[str, Any] | None:
        self.asked.append(("last_row", owner_id, until))
        rows = self._shown()
        return rows[-1] if rows else None

    def stored_head(self, owner_id: str) -> StoredHead:
        self.asked.append(("stored_head", owner_id))
        return StoredHead.of(self._head)

    def rows(
        self, owner_id: str, *, until: str, start: int | None = None
    ) -> tuple[list[dict[str, Any]], Any]:
        self.asked.append(("rows", owner_id, until, start))
        return self._page(self._shown(), start)

    def table_ids(self, owner_id: str, *, start: int | None = None) -> tuple[list[int], int | None]:
        self.asked.append(("table_ids", owner_id, start))
        if self.denied:
            raise self.denied
        page, after = self._page(self._rows, start)
        return [row["id"] for row in page], after

    def _page(
        self, rows: list[dict[str, Any]], start: int | None
    ) -> tuple[list[dict[str, Any]], int | None]:
        begin = start or 0
        end = begin + 2
        is_last = end >= len(rows)
        return rows[begin:end], None if is_last else end

    def _shown(self) -> list[dict[str, Any]]:
        is_behind = self._looks and len(self.slept) <= self._looks
        return [row for row in self._rows if not (is_behind and row["id"] in self._hidden)]


def audit_of(store: Any, **options: Any) -> Report:
    return audit_store(store, "ada", read=once, sleep=store.slept.append, **options)


def text(time: datetime | None) -> str:
    assert time
    return format_time(time)


def test_export_has_the_head_and_then_the_entries() -> None:
    """An export reads all pages and keeps the letters of all alphabets."""
    store: Any = Store(3)
    lines = list(export(store, "ada", read=once, sleep=store.slept.append))
    head, rows = written(3)
    assert lines == [head_line(head), *(json.dumps(row, ensure_ascii=False) for row in rows)]
    assert "ü" in lines[1]
    until = text(head.updated_at)
    assert store.asked == [
        ("last_row", "ada", None),
        ("stored_head", "ada"),
        ("last_row", "ada", until),
        ("rows", "ada", until, None),
        ("rows", "ada", until, 2),
    ]
    assert store.slept == [0.0]


@pytest.mark.parametrize(("looks", "slept"), [(0, [0.0]), (1, [0.0, 0.2]), (2, [0.0, 0.2, 1.0])])
def test_export_waits_for_the_index(looks: int, slept: list[float]) -> None:
    """An export waits until the index shows the last entry of the head."""
    store: Any = Store(3, looks=looks)
    assert len(list(export(store, "ada", read=once, sleep=store.slept.append))) == 4
    assert store.slept == slept


@pytest.mark.parametrize("hidden", [{1}, {2}, {3}, {2, 3}, {1, 2, 3}])
def test_export_fails_if_the_index_is_behind(hidden: set[int]) -> None:
    """If the table has entries that the index does not show, the export fails."""
    store: Any = Store(3, looks=9, hidden=hidden)
    lines: list[str] = []
    with pytest.raises(UnavailableError, match="index does not show all entries yet"):
        lines += export(store, "ada", read=once, sleep=store.slept.append)
    assert (lines == []) is (3 in hidden)
    assert store.asked[-1][0] == "table_ids"
    assert store.slept == ([0.0, 0.2, 1.0] if 3 in hidden else [0.0])


@pytest.mark.parametrize("cut", [{1}, {3}, {2, 3}, {1, 2, 3}])
def test_ledger_with_deleted_entries_is_exported(cut: set[int]) -> None:
    """If the table does not have the missing entries either, the others are exported."""
    store: Any = Store(3, cut=cut)
    lines = list(export(store, "ada", read=once, sleep=store.slept.append))
    assert [json.loads(line)["id"] for line in lines[1:]] == [
        number for number in (1, 2, 3) if number not in cut
    ]
    asked = [call for call in store.asked if call[0] == "table_ids"]
    assert 0 < len(asked) == len(set(asked))
    (of_export,) = audit_export(lines)
    assert findings(of_export) == findings(audit_of(store)) != []


@pytest.mark.parametrize(("looks", "slept"), [(0, [0.0]), (1, [0.0, 0.2]), (2, [0.0, 0.2, 1.0])])
def test_audit_waits_for_the_index(looks: int, slept: list[float]) -> None:
    """An audit waits until the ledger adds up, and reads the head once."""
    store: Any = Store(3, looks=looks)
    report = audit_of(store)
    assert (report.owner_id, report.valid, report.entries_checked) == ("ada", True, 3)
    assert store.slept == slept
    assert store.asked[:3] == [
        ("last_row", "ada", None),
        ("stored_head", "ada"),
        ("rows", "ada", text(written(3)[0].updated_at), None),
    ]
    assert ("stored_head", "ada") not in store.asked[2:]


@pytest.mark.parametrize("hidden", [{1}, {2}, {3}, {2, 3}, {1, 3}, {1, 2, 3}])
@pytest.mark.parametrize("looks", [3, 9])
def test_audit_fails_if_the_index_is_behind(hidden: set[int], looks: int) -> None:
    """If the table has entries that the index does not show, an audit names no tampering."""
    store: Any = Store(3, looks=looks, hidden=hidden)
    with pytest.raises(UnavailableError, match="index does not show all entries yet"):
        audit_of(store)
    assert store.slept == [0.0, 0.2, 1.0]
    assert [name for name, *_ in store.asked].count("stored_head") == 2
    assert store.asked[-1][:2] == ("table_ids", "ada")


def test_index_that_catches_up_for_the_second_reading_is_no_finding() -> None:
    """The second reading decides, and it shows all entries."""
    store: Any = Store(3, looks=3)
    readings = iter([store.stored_head("ada")])

    def stored_head(owner_id: str) -> StoredHead:
        first: StoredHead | None = next(readings, None)
        if first is not None:
            return first
        store.slept.append(0.0)
        return StoredHead.of(written(3)[0])

    store.stored_head = stored_head
    assert audit_of(store).valid


DENIED = StoreError("DynamoDB refused", dynamodb_code="AccessDeniedException")
AGE = timedelta(days=1)


@pytest.mark.parametrize("denied", [DENIED, UnavailableError("The time was up.")])
@pytest.mark.parametrize(
    ("since", "looks", "cut"),
    [(AGE, 0, {3}), (-AGE, 0, {3}), (AGE * 2, 0, {3}), (AGE, 9, ()), (-AGE, 9, ())],
)
def test_audit_without_access_to_the_table_decides_by_the_age(
    denied: LedgerError, since: timedelta, looks: int, cut: Collection[int]
) -> None:
    """An entry that the index does not show is missing after a day; before, the audit fails."""
    store: Any = Store(3, looks=looks, cut=cut)
    store.denied = denied
    last = NOON + 3 * MINUTE
    is_old = since > AGE
    if is_old:
        assert findings(audit_of(store, clock=lambda: last + since)) == [("tail_cut", 3, 3, None)]
    else:
        with pytest.raises(UnavailableError, match="ledger verify"):
            audit_of(store, clock=lambda: last + since)


def test_error_of_the_table_is_raised() -> None:
    """Only a denied or late scan makes an audit decide by the age."""
    store: Any = Store(3, cut={3})
    store.denied = StoreError("DynamoDB refused", dynamodb_code="ResourceNotFoundException")
    with pytest.raises(StoreError, match="refused"):
        audit_of(store, clock=lambda: NOON + 9 * AGE)


def ticking(calls: int) -> RetryBudget:
    """A retry budget that is spent after some calls."""
    now = iter(range(1, 999))
    return RetryBudget(calls, lambda: next(now), lambda _: None, lambda: 0.0)


@pytest.mark.parametrize("calls", range(1, 12))
def test_ledger_that_takes_too_much_time_is_too_long(calls: int) -> None:
    """Too long is final and needs a second page; before it, the failure is temporary."""
    store: Any = Store(5, cut={2})
    has_pages = calls > 2
    error = TooLongError if has_pages else UnavailableError
    with pytest.raises(error, match="ledger verify" if has_pages else "time was up"):
        audit_store(store, "ada", read=ticking(calls).call, sleep=store.slept.append)
    assert len(store.asked) == calls


def test_ledger_that_is_read_just_in_time_is_verified() -> None:
    """Two calls find the last row and the head, and three calls read three pages."""
    store: Any = Store(5)
    assert audit_store(store, "ada", read=ticking(5).call, sleep=store.slept.append).valid
    assert len(store.asked) == 5


def test_finding_is_in_both_readings() -> None:
    """A head that is read wrong once is no finding; a change that both readings show is."""
    for tampered, found in ((False, []), (True, [("changed", 2, 2, 2)])):
        store: Any = Store(3)
        if tampered:
            store._rows[1]["amount"] = 9
        wrong = iter([written(2)[0], NEW])
        store.stored_head = lambda owner_id, wrong=wrong: StoredHead.of(next(wrong))
        if found:
            assert findings(audit_of(store)) == found
        else:
            with pytest.raises(UnavailableError):
                audit_of(store)


def test_owner_without_an_account_takes_one_look() -> None:
    """An audit and an export read no page of an owner without entries."""
    for reading in (
        lambda store: audit_store(store, "ada", read=once, sleep=store.slept.append),
        lines_of,
    ):
        store: Any = Store(0)
        store._head = NEW
        assert reading(store)
        assert {name for name, *_ in store.asked} == {"last_row", "stored_head"}
        assert store.slept == [0.0]


def lines_of(store: Any) -> list[str]:
    return list(export(store, "ada", read=once, sleep=store.slept.append))


def test_entries_beyond_the_head_are_read_too() -> None:
    """An audit reads up to the later of the head's time and the last entry's time."""
    store: Any = Store(3)
    store._head = written(2)[0]
    report = audit_store(store, "ada", read=once, sleep=store.slept.append)
    assert store.asked[-1] == ("rows", "ada", text(NOON + 3 * MINUTE), 2)
    assert (report.valid, report.entries_checked) == (False, 3)


def test_each_export_in_a_file_has_a_report() -> None:
    """Two exports of an owner have two reports, and an empty line is ignored."""
    head, rows = written(2)
    other, _ = written(0, "eve")
    lines = [head_line(head), *(json.dumps(row) for row in rows)]
    reports = list(audit_export([*lines, *lines, "\n", head_line(other)]))
    assert [(report.owner_id, report.valid, report.entries_checked) for report in reports] == [
        ("ada", True, 2),
        ("ada", True, 2),
        ("eve", True, 0),
    ]


@pytest.mark.parametrize(
    "line", ["{", "7", "null", "[" * 100_000, '"text"', '{"v": 1, "id": 1}', '{"id": 1, "id": 2}']
)
def test_line_that_is_no_entry_is_a_discrepancy(line: str) -> None:
    """An unreadable line is reported, and the lines around it are read."""
    head, rows = written(2)
    first, second = (json.dumps(row) for row in rows)
    (report,) = audit_export([head_line(head), first, line, second])
    assert [
        (entry_id, field, expected) for entry_id, field, expected, _ in discrepancies(report)
    ] == [(2, "entry", None)]
    assert report.entries_checked == 3


def line_of_head(**changed: Any) -> str:
    values = {
        "owner_id": "ada",
        "balance": 0,
        "entry_count": 0,
        "head_hash": GENESIS_HASH,
        "updated_at": None,
    }
    return json.dumps(values | changed)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "line 1: the export is empty"),
        ([json.dumps(written(1)[1][0])], "line 1: an export begins with the head of a ledger"),
        (["7"], "line 1: an export begins with the head of a ledger"),
        ([line_of_head(owner_id=1)], "line 1: this head is malformed: it has no owner or unit"),
        (
            [line_of_head(), line_of_head(), line_of_head(owner_id=None)],
            "line 3: this head is malformed: it has no owner or unit",
        ),
        (["\n"], "line 1: the export is empty"),
        (["{\n", line_of_head()], "line 1: an export begins with the head of a ledger"),
        (["{"], "the export is cut off in line 1"),
        ([line_of_head(), "\n", "{", "\n"], "the export is cut off in line 3"),
    ],
)
def test_malformed_export_is_refused(lines: list[str], message: str) -> None:
    """The error names the line that is malformed or cut off."""
    with pytest.raises(InvalidRequestError, match=f"^{message}$"):
        list(audit_export(lines))


def test_time_of_a_head_is_text() -> None:
    """The time of a head is read from its text, as the time of an entry is."""
    head, rows = written(1)
    assert head.updated_at
    line = line_of_head(
        balance=1, entry_count=1, head_hash=head.head_hash, updated_at=format_time(head.updated_at)
    )
    (report,) = audit_export([line, json.dumps(rows[0])])
    assert (report.valid, report.head) == (True, head)
