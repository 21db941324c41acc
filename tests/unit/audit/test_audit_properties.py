"""An audit finds any tampering of any ledger. PROVE=1 tries more; SEED repeats a run."""

import json
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import assume, given, seed
from hypothesis import strategies as st

from ledger_core import LedgerEntry
from ledger_core.account import GENESIS_HASH, Account
from ledger_core.audit import Report, audit_export
from ledger_core.audit.export_format import head_line
from ledger_core.audit.findings import FindingKind
from tests.chance import SEED, looking_at
from tests.support import DEEP, NOON, add

Row = dict[str, Any]
Found = list[tuple[str, int | None, int | None]]
ENTRIES_MAX = 9
SETTINGS = looking_at(2000 if DEEP else 100)
UNREADABLE: Row = {"v": 1, "amount": "?"}
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "id": st.integers(-1, 2 * ENTRIES_MAX),
    "operation": st.just("OTHER"),
    "owner_id": st.just("eve"),
    "amount": st.integers(-9, 99),
    "nonce": st.text(max_size=3),
    "created_at": st.just("2026-11-22T00:00:00.000000Z"),
    "updated_at": st.just("2026-11-22T12:00:00Z"),
    "balance_after": st.integers(-9, 99),
    "metadata": st.just({"k": "v"}),
    "prev_hash": st.sampled_from(["", "0", GENESIS_HASH]),
    "hash": st.sampled_from(["", "0", GENESIS_HASH]),
}
HEAD_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "balance": st.integers(-1, 99) | st.none(),
    "entry_count": st.integers(-1, 2 * ENTRIES_MAX) | st.none() | st.just("1"),
    "head_hash": st.sampled_from(["", "0", GENESIS_HASH, None]),
    "updated_at": st.sampled_from([None, "2026-11-22T00:00:00.000000Z", 1]),
}


class Ledger:
    """The head and the rows of an export, which a test changes."""

    def __init__(self, amounts: list[int]) -> None:
        account = Account(owner_id="ada")
        self.accounts = [account]
        self.rows: list[Row] = []
        for number, amount in enumerate(amounts, start=1):
            request = add(amount, f"n{number}")
            entry = account.next_entry(request, amount=amount, now=NOON + timedelta(minutes=number))
            account = account.after(entry)
            self.accounts.append(account)
            self.rows.append(entry.model_dump(mode="json"))
        self.head: Row = json.loads(head_line(account.head))
        self.written = deepcopy(self.rows)

    @property
    def count(self) -> int:
        return len(self.accounts) - 1

    @property
    def is_a_beginning(self) -> bool:
        """Whether the ledger is as it was earlier, which only a receipt can contradict."""
        count = len(self.rows)
        if count > self.count or self.rows != self.written[:count]:
            return False
        return bool(self.head == json.loads(head_line(self.accounts[count].head)))

    def audited(self) -> Report:
        (report,) = audit_export([json.dumps(self.head), *map(json.dumps, self.rows)])
        return report


ledgers = st.lists(st.integers(1, 20), min_size=1, max_size=ENTRIES_MAX).map(Ledger)


def found(report: Report) -> Found:
    return [(str(finding.kind), finding.first_id, finding.last_id) for finding in report.findings]


def change(draw: st.DrawFn, ledger: Ledger) -> Found:
    at = draw(st.integers(0, len(ledger.rows) - 1))
    field = draw(st.sampled_from(sorted(FIELDS)))
    ledger.rows[at][field] = draw(FIELDS[field])
    entry_id = ledger.rows[at].get("id", at + 1)
    return [("changed", entry_id, entry_id)]


def make_unreadable(draw: st.DrawFn, ledger: Ledger) -> Found:
    at = draw(st.integers(0, len(ledger.rows) - 1))
    ledger.rows[at] = dict(UNREADABLE)
    return [("changed", at + 1, at + 1)]


def rewrite(draw: st.DrawFn, ledger: Ledger) -> Found:
    at = draw(st.integers(0, len(ledger.rows) - 1))
    assume(set(ledger.rows[at]) >= set(FIELDS) - {"metadata"})
    row = ledger.rows[at] | {"metadata": {"k": "forged"}}
    ledger.rows[at] = row | {"hash": LedgerEntry(**row).computed_hash()}
    if at + 1 == ledger.count:
        return [("head_differs", None, None)]
    return [("changed", at + 1, at + 1)]


def delete(draw: st.DrawFn, ledger: Ledger) -> Found:
    first = draw(st.integers(0, len(ledger.rows) - 1))
    last = draw(st.integers(first, len(ledger.rows) - 1))
    del ledger.rows[first : last + 1]
    return [("tail_cut" if last + 1 == ledger.count else "deleted", first + 1, last + 1)]


def duplicate(draw: st.DrawFn, ledger: Ledger) -> Found:
    at = draw(st.integers(0, len(ledger.rows) - 1))
    to = draw(st.integers(0, len(ledger.rows)))
    ledger.rows.insert(to, dict(ledger.rows[at]))
    return [("duplicated", at + 1, at + 1)]


def insert(draw: st.DrawFn, ledger: Ledger) -> Found:
    at = draw(st.integers(0, len(ledger.rows)))
    before = ledger.accounts[min(at, ledger.count)]
    links_to = draw(st.sampled_from([before.head_hash, "0"]))
    before = replace(before, head_hash=links_to)
    entry = before.next_entry(add(7, "forged"), amount=7, now=NOON)
    entry_id = draw(st.sampled_from([entry.id, 50]))
    row = entry.model_dump(mode="json") | {"id": entry_id}
    ledger.rows.insert(at, row | {"hash": LedgerEntry(**row).computed_hash()})
    return [("inserted", entry_id, entry_id)]


def swap_neighbours(draw: st.DrawFn, ledger: Ledger) -> Found:
    assume(len(ledger.rows) > 1)
    at = draw(st.integers(0, len(ledger.rows) - 2))
    ledger.rows[at : at + 2] = reversed(ledger.rows[at : at + 2])
    return [("reordered", at + 2, at + 2)]


def move(draw: st.DrawFn, ledger: Ledger) -> Found:
    at = draw(st.integers(0, len(ledger.rows) - 1))
    to = draw(st.integers(0, len(ledger.rows) - 1))
    assume(abs(at - to) > 1)
    ledger.rows.insert(to, ledger.rows.pop(at))
    return [("reordered", at + 1, at + 1)]


def edit_head(draw: st.DrawFn, ledger: Ledger) -> Found:
    field = draw(st.sampled_from(sorted(HEAD_FIELDS)))
    ledger.head[field] = draw(HEAD_FIELDS[field])
    differs = field == "head_hash" and ledger.head[field] is not None
    return [("head_differs" if differs else "balance_edited", None, None)]


def set_head_back(draw: st.DrawFn, ledger: Ledger) -> Found:
    count = draw(st.integers(0, ledger.count - 1))
    ledger.head = json.loads(head_line(ledger.accounts[count].head))
    if not count:
        return [("balance_edited", None, None)]
    return [("inserted", count + 1, ledger.count)]


TAMPERINGS: list[Callable[[st.DrawFn, Ledger], Found]] = [
    change,
    make_unreadable,
    rewrite,
    delete,
    duplicate,
    insert,
    swap_neighbours,
    move,
    edit_head,
    set_head_back,
]


@st.composite
def tampered(draw: st.DrawFn, tamperings: int) -> tuple[Ledger, Found]:
    """A ledger after some tamperings, and the finding that the last of them alone would have."""
    ledger = draw(ledgers)
    expected: Found = []
    for _ in range(tamperings):
        assume(ledger.rows)
        expected = draw(st.sampled_from(TAMPERINGS))(draw, ledger)
    assume(not ledger.is_a_beginning)
    return ledger, expected


@pytest.fixture(autouse=True)
def seed_is_printed() -> None:
    """The output of a failure has the seed."""
    sys.stdout.write(f"SEED={SEED}\n")


@seed(SEED)
@SETTINGS
@given(ledgers)
def test_untouched_ledger_of_any_length_is_valid(ledger: Ledger) -> None:
    """A ledger of any length and any amounts is valid as it was written."""
    report = ledger.audited()
    assert report.valid
    assert (report.entries_checked, report.findings, report.discrepancies) == (ledger.count, [], [])


@seed(SEED)
@SETTINGS
@given(tampered(1))
def test_single_tampering_is_named_with_its_entries(case: tuple[Ledger, Found]) -> None:
    """The finding has the right kind and ids, and no other entry is accused."""
    ledger, expected = case
    report = ledger.audited()
    assert not report.valid
    assert report.discrepancies
    assert found(report) == expected


@seed(SEED)
@SETTINGS
@given(st.integers(2, 5).flatmap(tampered))
def test_any_tampering_is_found(case: tuple[Ledger, Found]) -> None:
    """After several tamperings, an audit ends, finds the ledger invalid and has a finding."""
    report = case[0].audited()
    assert not report.valid
    assert report.findings
    assert report.discrepancies
    assert FindingKind.UNKNOWN_FORMAT not in {finding.kind for finding in report.findings}
