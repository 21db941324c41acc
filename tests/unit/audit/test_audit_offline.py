"""What an audit reads, waits for and says, to the letter; without a fake of DynamoDB."""

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
    account, rows = Account(owner_id=owner_id), []
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
    entry = Account(owner_id="ada").next_entry(add(1, "n"), amount=0, now=NOON)
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
    assert (report.owner_id, report.valid, report.entries_checked, report.head) == (
        "ada",
        False,
        3,
        head,
    )
    assert {entry_id for entry_id, *_ in said(report)} == {2, 3}


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
def test_a_changed_head_is_told_by_what_was_expected_and_found(
    changed: dict[str, Any], field: str, expected: Any, found: Any
) -> None:
    """The entries are what it is measured by."""
    head, rows = written(3)
    values = {
        name: getattr(head, name)
        for name in ("owner_id", "balance", "entry_count", "head_hash", "updated_at")
    }
    assert said(audited(*rows, head=Head(**values | changed))) == [(None, field, expected, found)]


def done(report: Report) -> list[tuple[str, int | None, int | None, int | None]]:
    return [(one.kind, one.first_id, one.last_id, one.position) for one in report.findings]


def test_what_was_done_is_told_with_its_place() -> None:
    """To an entry that is changed, or cannot be read, and to the head."""
    head, rows = written(3)
    assert done(audited(rows[0], rows[1] | {"amount": 9}, rows[2], head=head)) == [
        ("changed", 2, 2, 2)
    ]
    assert done(audited(rows[0], {**rows[1], "amount": "2"}, rows[2], head=head)) == [
        ("changed", 2, 2, 2)
    ]
    assert done(audited(*rows, head=written(2)[0])) == [("inserted", 3, 3, 3)]
    assert done(audited(*rows, head=head)) == []


def test_a_ledger_is_held_against_its_receipts() -> None:
    """One that is in order and not what was signed is told so, from an export and from the store."""
    rewritten, (head, rows) = (
        Receipt.of(written(3)[0], NOON).model_copy(update={"head_hash": "0"}),
        written(3),
    )
    others = [
        Receipt.of(written(2)[0], NOON),
        Receipt.of(written(3, "eve")[0], NOON).model_copy(update={"balance": 0}),
    ]
    lines, store = [head_line(head), *(json.dumps(row) for row in rows)], Store(3)
    reading: Any = store
    for receipts, contradicted in ((others, False), ([*others, rewritten], True)):
        (of_export,) = audit_export(lines, receipts)
        of_store = audit_store(
            reading, "ada", read=once, receipts=receipts, sleep=store.slept.append
        )
        for report in (of_export, of_store):
            assert report.valid is not contradicted
            assert said(report) == [(3, "receipt", "0", head.head_hash)] * contradicted
            assert done(report) == [("contradicts_receipt", 3, 3, None)] * contradicted


def test_a_valid_ledger_is_read_once_and_not_diagnosed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fold gives the verdict; a ledger that does not add up is read a second time."""
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


def test_what_the_second_reading_shows_counts() -> None:
    """A ledger whose second reading adds up is valid: the first reading missed an entry."""
    head, rows = written(2)
    readings = iter([rows[:1], rows])
    assert audit(head, lambda: next(readings)).valid


def test_a_report_lists_as_much_as_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """Findings and discrepancies up to their limits; `truncated` says that there are more."""
    assert (FINDINGS_MAX, DISCREPANCIES_MAX) == (1000, 1000)
    head, rows = written(5)
    for row in (rows[0], rows[2], rows[4]):
        row["nonce"] = "other"
    for findings_max, discrepancies_max, truncated in ((3, 3, False), (2, 3, True), (3, 2, True)):
        monkeypatch.setattr("ledger_core.audit.fold.FINDINGS_MAX", findings_max)
        monkeypatch.setattr("ledger_core.audit.fold.DISCREPANCIES_MAX", discrepancies_max)
        report = audited(*rows, head=head)
        assert [one.first_id for one in report.findings] == [1, 3, 5][:findings_max]
        assert [one.entry_id for one in report.discrepancies] == [1, 3, 5][:discrepancies_max]
        assert (report.valid, report.truncated) == (False, truncated)
    assert not audited(*written(5)[1], head=head).truncated


@pytest.mark.parametrize("bytes_max", [1, 1 << 20])
def test_a_copy_of_lines_has_the_same_rows(monkeypatch: pytest.MonkeyPatch, bytes_max: int) -> None:
    """In memory and as a file: entries, unreadable lines, all letters, and line feeds within a line."""
    monkeypatch.setattr("ledger_core.audit.export_format.COPY_BYTES_IN_MEMORY_MAX", bytes_max)
    lines = ['{"a": "ü\u2028"}\n', "no json\n", '{"b":\n1}', '{"c": "\n"}', '"\ud800"', "7"]
    rows: list[Any] = [{"a": "ü\u2028"}, "no json\n", {"b": 1}, '{"c": "\r"}\n', "\ud800", 7]
    with LineCopy() as copy:
        for line in lines:
            copy.add(line)
        assert list(copy.rows()) == list(copy.rows()) == rows


class Store:
    """A ledger in an index that follows after a number of looks, two rows to a page; notes what is asked of it.

    `hidden` are the ids that it does not show till then, `cut` those that the table does not have either.
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
        self._looks, self._hidden = looks, {entries} if hidden is None else hidden
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
        seen, begin = self._shown(), start or 0
        return seen[begin : begin + 2], begin + 2 if begin + 2 < len(seen) else None

    def table_ids(self, owner_id: str, *, start: int | None = None) -> tuple[list[int], int | None]:
        self.asked.append(("table_ids", owner_id, start))
        if self.denied:
            raise self.denied
        rows, begin = self._rows, start or 0
        page = [row["id"] for row in rows[begin : begin + 2]]
        return page, begin + 2 if begin + 2 < len(rows) else None

    def _shown(self) -> list[dict[str, Any]]:
        is_behind = self._looks and len(self.slept) <= self._looks
        return [row for row in self._rows if not (is_behind and row["id"] in self._hidden)]


def audit_of(store: Any, **options: Any) -> Report:
    return audit_store(store, "ada", read=once, sleep=store.slept.append, **options)


def text(time: datetime | None) -> str:
    assert time
    return format_time(time)


def test_an_export_is_the_head_and_then_the_entries() -> None:
    """Page by page to the end; the letters of all alphabets are left as they are."""
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
def test_an_export_waits_for_the_index(looks: int, slept: list[float]) -> None:
    """Until it shows the entry that the head knows of."""
    store: Any = Store(3, looks=looks)
    assert len(list(export(store, "ada", read=once, sleep=store.slept.append))) == 4
    assert store.slept == slept


@pytest.mark.parametrize("hidden", [{1}, {2}, {3}, {2, 3}, {1, 2, 3}])
def test_an_export_is_not_made_of_an_index_that_is_behind(hidden: set[int]) -> None:
    """The table is asked for what the index does not show; if it is there, the export ends in an error."""
    store: Any = Store(3, looks=9, hidden=hidden)
    lines: list[str] = []
    with pytest.raises(UnavailableError, match="index does not show all entries yet"):
        lines += export(store, "ada", read=once, sleep=store.slept.append)
    assert (lines == []) is (3 in hidden)
    assert store.asked[-1][0] == "table_ids"
    assert store.slept == ([0.0, 0.2, 1.0] if 3 in hidden else [0.0])


@pytest.mark.parametrize("cut", [{1}, {3}, {2, 3}, {1, 2, 3}])
def test_what_is_left_of_a_ledger_is_exported(cut: set[int]) -> None:
    """Once the table says that it has no more, which it is asked once."""
    store: Any = Store(3, cut=cut)
    lines = list(export(store, "ada", read=once, sleep=store.slept.append))
    assert [json.loads(line)["id"] for line in lines[1:]] == [
        number for number in (1, 2, 3) if number not in cut
    ]
    asked = [one for one in store.asked if one[0] == "table_ids"]
    assert 0 < len(asked) == len(set(asked))
    (of_export,) = audit_export(lines)
    assert done(of_export) == done(audit_of(store)) != []


@pytest.mark.parametrize(("looks", "slept"), [(0, [0.0]), (1, [0.0, 0.2]), (2, [0.0, 0.2, 1.0])])
def test_an_audit_waits_for_the_index(looks: int, slept: list[float]) -> None:
    """Until all adds up; the head is read once."""
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
def test_an_index_that_is_behind_is_never_called_tampering(hidden: set[int], looks: int) -> None:
    """However long it is: after three looks and a second reading the table is asked, and it has the entries."""
    store: Any = Store(3, looks=looks, hidden=hidden)
    with pytest.raises(UnavailableError, match="index does not show all entries yet"):
        audit_of(store)
    assert store.slept == [0.0, 0.2, 1.0]
    assert [name for name, *_ in store.asked].count("stored_head") == 2
    assert store.asked[-1][:2] == ("table_ids", "ada")


def test_an_index_that_catches_up_for_the_second_reading_is_no_finding() -> None:
    """It is the second that counts then."""
    store: Any = Store(3, looks=3)
    readings = iter([store.stored_head("ada")])

    def stored_head(owner_id: str) -> StoredHead:
        if (first := next(readings, None)) is None:
            store.slept.append(0.0)
        return first or StoredHead.of(written(3)[0])

    store.stored_head = stored_head
    assert audit_of(store).valid


DENIED = StoreError("DynamoDB refused", dynamodb_code="AccessDeniedException")
AGE = timedelta(days=1)


@pytest.mark.parametrize("denied", [DENIED, UnavailableError("The time was up.")])
@pytest.mark.parametrize(
    ("since", "looks", "cut"),
    [(AGE, 0, {3}), (-AGE, 0, {3}), (AGE * 2, 0, {3}), (AGE, 9, ()), (-AGE, 9, ())],
)
def test_who_may_not_look_into_the_table_goes_by_the_age(
    denied: LedgerError, since: timedelta, looks: int, cut: Collection[int]
) -> None:
    """What the index does not show after a day is not there; before, nothing is said of it."""
    store: Any = Store(3, looks=looks, cut=cut)
    store.denied = denied
    last, is_old = NOON + 3 * MINUTE, since > AGE
    if is_old:
        assert done(audit_of(store, clock=lambda: last + since)) == [("tail_cut", 3, 3, None)]
    else:
        with pytest.raises(UnavailableError, match="ledger verify"):
            audit_of(store, clock=lambda: last + since)


def test_a_table_that_cannot_be_read_is_an_error() -> None:
    """And no reason to go by the age."""
    store: Any = Store(3, cut={3})
    store.denied = StoreError("DynamoDB refused", dynamodb_code="ResourceNotFoundException")
    with pytest.raises(StoreError, match="refused"):
        audit_of(store, clock=lambda: NOON + 9 * AGE)


def ticking(calls: int) -> RetryBudget:
    """As many calls as there are seconds."""
    now = iter(range(1, 999))
    return RetryBudget(calls, lambda: next(now), lambda _: None, lambda: 0.0)


@pytest.mark.parametrize("calls", range(1, 12))
def test_a_ledger_that_takes_more_than_the_time_is_too_long(calls: int) -> None:
    """Once it is known to have another page; before, the time may be enough when DynamoDB is quicker."""
    store: Any = Store(5, cut={2})
    told = TooLongError if calls > 2 else UnavailableError
    with pytest.raises(told, match="ledger verify" if calls > 2 else "time was up"):
        audit_store(store, "ada", read=ticking(calls).call, sleep=store.slept.append)
    assert len(store.asked) == calls


def test_a_ledger_that_is_read_just_in_time_is_verified() -> None:
    """Three pages take three calls, beside the two for its extent."""
    store: Any = Store(5)
    assert audit_store(store, "ada", read=ticking(5).call, sleep=store.slept.append).valid
    assert len(store.asked) == 5


def test_what_only_one_of_two_readings_shows_is_not_said() -> None:
    """A head that is read wrong once makes no finding; of what both show, all is said."""
    for tampered, found in ((False, []), (True, [("changed", 2, 2, 2)])):
        store: Any = Store(3)
        if tampered:
            store._rows[1]["amount"] = 9
        wrong = iter([written(2)[0], NEW])
        store.stored_head = lambda owner_id, wrong=wrong: StoredHead.of(next(wrong))
        if found:
            assert done(audit_of(store)) == found
        else:
            with pytest.raises(UnavailableError):
                audit_of(store)


def test_an_owner_never_seen_has_nothing_to_read() -> None:
    """One look is enough, and no page is asked for."""
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
    """The later of the two times, the head's and the last entry's, is how far is read."""
    store: Any = Store(3)
    store._head = written(2)[0]
    report = audit_store(store, "ada", read=once, sleep=store.slept.append)
    assert store.asked[-1] == ("rows", "ada", text(NOON + 3 * MINUTE), 2)
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


@pytest.mark.parametrize(
    "line", ["{", "7", "null", "[" * 100_000, '"text"', '{"id": 1}', '{"id": 1, "id": 2}']
)
def test_a_line_that_is_no_entry_is_a_discrepancy(line: str) -> None:
    """Whatever it is; the lines around it are read as they are."""
    head, rows = written(2)
    first, second = (json.dumps(row) for row in rows)
    (report,) = audit_export([head_line(head), first, line, second])
    assert [(entry_id, field, expected) for entry_id, field, expected, _ in said(report)] == [
        (2, "entry", None)
    ]
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
        ([line_of_head(owner_id=1)], "line 1: this head is malformed: it has no owner"),
        (
            [line_of_head(), line_of_head(), line_of_head(owner_id=None)],
            "line 3: this head is malformed: it has no owner",
        ),
        (["\n"], "line 1: the export is empty"),
        (["{\n", line_of_head()], "line 1: an export begins with the head of a ledger"),
        (["{"], "the export is cut off in line 1"),
        ([line_of_head(), "\n", "{", "\n"], "the export is cut off in line 3"),
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
    line = line_of_head(
        balance=1, entry_count=1, head_hash=head.head_hash, updated_at=format_time(head.updated_at)
    )
    (report,) = audit_export([line, json.dumps(rows[0])])
    assert (report.valid, report.head) == (True, head)
