"""The diagnosis of ledgers with several tamperings at once, or a rare tampering."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from ledger_core import LedgerEntry
from ledger_core.account import GENESIS_HASH, Account, Head
from ledger_core.audit import audit_export
from ledger_core.audit.export_format import head_line
from ledger_core.dynamodb import StoredHead
from tests.support import NOON, add

Rows = list[dict[str, Any]]
Found = Sequence[tuple[str, int | None, int | None, int | None]]
UNREADABLE: dict[str, Any] = {"v": 1, "amount": "?"}
UNKNOWN: dict[str, Any] = {"v": 2}
EDITED = ("balance_edited", None, None, None)
DIFFERS = ("head_differs", None, None, None)


def written(entries: int) -> tuple[Head, Rows]:
    """A head, and the rows of its entries, a minute apart, of 1, 2, 3 and so on credits."""
    account = Account(owner_id="ada")
    rows: Rows = []
    for number in range(1, entries + 1):
        request = add(number, f"n{number}")
        entry = account.next_entry(request, amount=number, now=NOON + timedelta(minutes=number))
        account = account.after(entry)
        rows.append(entry.model_dump(mode="json"))
    return account.head, rows


def hashed(row: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A row with some fields changed, and the hash that fits them."""
    changed = row | fields
    return {**changed, "hash": LedgerEntry(**changed).computed_hash()}


def found(head: Head | StoredHead, rows: Rows) -> Found:
    (report,) = audit_export([head_line(head), *map(json.dumps, rows)])
    return [
        (str(finding.kind), finding.first_id, finding.last_id, finding.position)
        for finding in report.findings
    ]


HEAD, ROWS = written(5)
ONE, TWO, THREE, FOUR, FIVE = ROWS


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([ONE, TWO, THREE | {"prev_hash": ONE["hash"]}, FOUR, FIVE], [("changed", 3, 3, 3)]),
        ([ONE, TWO, THREE | {"prev_hash": FIVE["hash"]}, FOUR, FIVE], [("changed", 3, 3, 3)]),
        ([ONE, TWO | {"id": 72, "hash": "0"}, THREE, FOUR, FIVE], [("changed", 72, 72, 2)]),
        ([ONE, TWO, THREE, FOUR, FIVE | {"id": 75, "hash": "0"}], [("changed", 75, 75, 5)]),
        ([TWO, FOUR, FIVE], [("deleted", 1, 1, None), ("deleted", 3, 3, None)]),
        ([TWO], [("deleted", 1, 1, None), ("tail_cut", 3, 5, None)]),
        ([TWO, ONE, THREE], [("reordered", 2, 2, 1), ("tail_cut", 4, 5, None)]),
        ([FOUR, UNREADABLE, TWO, THREE, FIVE], [("changed", 1, 1, 2), ("reordered", 4, 4, 1)]),
        ([THREE, TWO, ONE, UNREADABLE, FIVE], [
            ("reordered", 2, 2, 2),
            ("reordered", 3, 3, 1),
            ("changed", 4, 4, 4),
        ]),
        ([ONE, THREE, FOUR, FIVE, UNREADABLE], [
            ("deleted", 2, 2, None),
            ("inserted", None, None, 5),
        ]),
        ([UNREADABLE, TWO], [("changed", 1, 1, 1), ("tail_cut", 3, 5, None)]),
        ([ONE, UNREADABLE, THREE | {"prev_hash": "0"}, FOUR, FIVE], [("changed", 2, 3, 2)]),
        ([ONE, hashed(TWO, nonce="x"), THREE, UNREADABLE, FIVE], [
            ("changed", 2, 2, 2),
            ("changed", 4, 4, 4),
        ]),
        ([hashed(ONE, prev_hash="0"), *ROWS[1:]], [("rewritten", 1, 1, 1), ("changed", 1, 1, 1)]),
        ([hashed(ONE, id=50)], [("tail_cut", 1, 5, None), ("inserted", 50, 50, 1)]),
        ([ONE, TWO | {"amount": 9}, TWO, THREE, FOUR, FIVE], [("duplicated", 2, 2, 2)]),
        ([ONE, TWO, THREE, FOUR, FIVE | {"id": 75}], [("changed", 75, 75, 5)]),
        ([ONE, TWO | {"prev_hash": "0"}, THREE, FOUR, FIVE], [("changed", 2, 2, 2)]),
        ([ONE, TWO, hashed(FIVE, id=3, prev_hash=TWO["hash"]), hashed(FIVE, id=50)], [
            ("rewritten", 3, 3, 3),
            ("tail_cut", 4, 5, None),
            ("inserted", 50, 50, 4),
        ]),
        ([ONE, TWO, THREE, FOUR, FIVE, hashed(FIVE, nonce="x"), hashed(FIVE, nonce="x")], [
            ("inserted", 5, 5, 6),
            ("duplicated", 5, 5, 7),
        ]),
    ],
)  # fmt: skip
def test_several_tamperings_are_told_apart(rows: Rows, expected: Found) -> None:
    """If several explanations fit the rows, the report has the one with the fewest findings."""
    assert found(HEAD, rows) == expected


@pytest.mark.parametrize(
    ("changed", "rows", "expected"),
    [
        ({"head_hash": THREE["hash"]}, ROWS, [DIFFERS]),
        ({"head_hash": "0", "entry_count": 2}, ROWS, [DIFFERS]),
        ({"head_hash": "0", "entry_count": 0}, ROWS, [EDITED]),
        ({"entry_count": 5, "head_hash": GENESIS_HASH}, [], [EDITED]),
        ({"head_hash": None, "entry_count": None}, ROWS, [EDITED]),
        ({"head_hash": None}, [*ROWS[:4], UNREADABLE], [("changed", 5, 5, 5), EDITED]),
        ({"entry_count": None}, [*ROWS[:4], UNREADABLE], [("changed", 5, 5, 5), EDITED]),
        ({"entry_count": None, "head_hash": "0"}, ROWS, [DIFFERS, EDITED]),
        ({"balance": None}, ROWS[:3], [("tail_cut", 4, 5, None), EDITED]),
        ({"balance": None, "head_hash": "0"}, ROWS, [DIFFERS, EDITED]),
        ({"balance": 99}, [*ROWS[:4], FIVE | {"amount": 9}], [("changed", 5, 5, 5)]),
        ({"entry_count": 7}, [*ROWS, UNREADABLE], [("inserted", None, None, 6), EDITED]),
    ],
)  # fmt: skip
def test_wrong_head_is_told_from_wrong_entries(
    changed: dict[str, Any], rows: Rows, expected: Found
) -> None:
    """If only a field of the head disagrees with the entries, no entry is accused."""
    stored = StoredHead("ada", {**StoredHead.of(HEAD).fields, **changed})
    assert sorted(found(stored, rows), key=str) == sorted(expected, key=str)


def test_entries_before_an_unknown_format_are_diagnosed() -> None:
    """The head is not used, because it counts entries of the unknown format."""
    unknown = ("unknown_format", None, None, 5)
    assert found(HEAD, [ONE, THREE, TWO, FOUR, UNKNOWN]) == [("reordered", 3, 3, 2), unknown]
    assert found(HEAD, [ONE, TWO, THREE, UNREADABLE, UNKNOWN]) == [("changed", 4, 4, 4), unknown]
    assert found(HEAD, [UNREADABLE, UNKNOWN]) == [
        ("changed", 1, 1, 1),
        ("unknown_format", None, None, 2),
    ]


def test_ledger_with_other_ids_and_right_hashes_is_rewritten() -> None:
    """Right hashes show that the entries were written anew; skipped ids are deleted entries."""
    first = hashed(ONE, id=3)
    second = hashed(TWO, id=4, prev_hash=first["hash"])
    head = Head.at(LedgerEntry(**second))
    assert found(head, [first, second]) == [("deleted", 1, 2, None), ("rewritten", 3, 3, 1)]
    rootless = hashed(ONE, prev_hash="0")
    third = hashed(THREE, id=7)
    assert found(Head.at(LedgerEntry(**third)), [ONE, TWO, third]) == [
        ("deleted", 3, 6, None),
        ("rewritten", 7, 7, 3),
    ]
    foreign = hashed(ONE, owner_id="eve")
    assert found(replace(Head.at(LedgerEntry(**foreign)), owner_id="ada"), [foreign]) == [
        ("rewritten", 1, 1, 1)
    ]
    assert found(Head.at(LedgerEntry(**rootless)), [rootless]) == [("rewritten", 1, 1, 1)]


def test_diagnosis_of_hashes_in_a_circle_ends() -> None:
    """A changed entry may link to itself or to a later entry."""
    forged = THREE | {"prev_hash": FIVE["hash"], "hash": FOUR["prev_hash"]}
    circle = [
        ONE | {"hash": "x", "prev_hash": "x"},
        TWO | {"hash": "x", "prev_hash": "x"},
        forged,
        FOUR,
        FIVE,
    ]
    assert {kind for kind, *_ in found(HEAD, circle)} == {"changed"}
    last = hashed(THREE, prev_hash="forged", id=10)
    first = hashed(THREE, prev_hash=last["hash"], id=8)
    middle = TWO | {"id": 9, "hash": "forged", "prev_hash": first["hash"]}
    head = replace(HEAD, head_hash=last["hash"], entry_count=10)
    assert found(head, [first, middle, last])
