"""An audit names each change to a ledger and its place, offline from an export and in the store."""

import json
import os
import random
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from ledger_core import LedgerEntry
from ledger_core.account import GENESIS_HASH
from ledger_core.audit import Report, audit_export, audit_store
from ledger_core.audit.findings import MEANING
from ledger_core.fields import format_time
from ledger_core.wiring import create_store
from tests.fakes.written_ledger import ENTRIES, Rows, put, written
from tests.support import DEEP, NOON

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

SEED = int(os.environ.get("SEED") or random.SystemRandom().randrange(2**32))
LEDGERS = 20_000 if DEEP else 200
Tamper = Callable[[dict[str, Any], Rows], object]
Found = Sequence[tuple[str, int | None, int | None, int | None]]
Case = tuple[str, Tamper, Found]


def hashed(row: dict[str, Any]) -> dict[str, Any]:
    """With a hash of its own that is right."""
    return {**row, "hash": LedgerEntry(**row).computed_hash()}


def forged(rows: Rows, at: int, **fields: Any) -> dict[str, Any]:
    """An entry with a right hash, which follows the first `at` of `rows`, half a minute later."""
    before: dict[str, Any] = rows[at - 1] if at else {"hash": GENESIS_HASH, "balance_after": 0}
    later = format_time(NOON + timedelta(minutes=at, seconds=30))
    links = {
        "id": at + 1,
        "prev_hash": before["hash"],
        "balance_after": before["balance_after"] + 1000,
    }
    return hashed(
        rows[0]
        | links
        | {"nonce": "x", "amount": 1000, "created_at": later, "updated_at": later}
        | fields
    )


def change(at: int, head: dict[str, Any], rows: Rows, **fields: Any) -> None:
    rows[at - 1] |= fields or {"amount": 1000}


def rehash(at: int, head: dict[str, Any], rows: Rows) -> None:
    rows[at - 1] = hashed({**rows[at - 1], "metadata": {"k": "forged"}})


def delete(first: int, last: int, head: dict[str, Any], rows: Rows) -> None:
    del rows[first - 1 : last]


def delete_and_rehash(head: dict[str, Any], rows: Rows) -> None:
    rehash(5, head, rows)
    delete(4, 4, head, rows)


def insert(at: int, head: dict[str, Any], rows: Rows, **fields: Any) -> None:
    rows.insert(at, forged(rows, at, **fields))


def insert_two(at: int, head: dict[str, Any], rows: Rows, **fields: Any) -> None:
    insert(at, head, rows, **fields)
    first = rows[at]
    second = {
        "id": first["id"] + 1,
        "prev_hash": first["hash"],
        "balance_after": first["balance_after"] + 1000,
        "nonce": "y",
    }
    time = format_time(NOON + timedelta(minutes=at, seconds=45))
    rows.insert(at + 1, hashed({**first, **second, "created_at": time, "updated_at": time}))


def duplicate(at: int, to: int, head: dict[str, Any], rows: Rows) -> None:
    rows.insert(to, dict(rows[at - 1]))


def move(at: int, to: int, head: dict[str, Any], rows: Rows) -> None:
    rows.insert(to - 1, rows.pop(at - 1))


def move_two(head: dict[str, Any], rows: Rows) -> None:
    rows[:] = rows[:1] + rows[3:] + rows[1:3]


def swap_times(at: int, head: dict[str, Any], rows: Rows) -> None:
    one, other = rows[at - 1], rows[at]
    for name in ("created_at", "updated_at"):
        one[name], other[name] = other[name], one[name]
    rows[at - 1 : at + 1] = [other, one]


def edit(head: dict[str, Any], rows: Rows, **fields: Any) -> None:
    head |= fields


def set_back(entries: int, head: dict[str, Any], rows: Rows) -> None:
    head |= written(head["owner_id"], entries)[0]


def rewrite(at: int, head: dict[str, Any], rows: Rows) -> None:
    """Add a thousand credits from one entry on, with right hashes and a right account."""
    prev_hash = rows[at - 2]["hash"] if at > 1 else GENESIS_HASH
    for row in rows[at - 1 :]:
        row |= hashed(row | {"prev_hash": prev_hash, "balance_after": row["balance_after"] + 1000})
        prev_hash = row["hash"]
    head |= {"head_hash": prev_hash, "balance": rows[-1]["balance_after"]}


def leave_out(head: dict[str, Any], rows: Rows) -> None:
    """The third entry, and all of the chain after it made anew; the head is as it was."""
    rows[:] = written(head["owner_id"], 4)[1]
    rows[2:] = [hashed({**row, "metadata": {"k": "v"}}) for row in rows[2:3]] + rows[3:]
    rows[3] = hashed({**rows[3], "prev_hash": rows[2]["hash"]})


ROW = ("balance_edited", None, None, None)
# The change, its function, and the findings: kind, first and last entry, place of the first.
ANYWHERE: list[Case] = [
    *((f"changed {n}", partial(change, n), [("changed", n, n, n)]) for n in (1, 3, 5)),
    *((f"nonce changed {n}", partial(change, n, nonce="m"), [("changed", n, n, n)])
      for n in (1, 3, 5)),
    *((f"id changed {n}", partial(change, n, id=n + 70), [("changed", n + 70, n + 70, n)])
      for n in (1, 3, 5)),
    *((f"hash changed {n}", partial(change, n, hash="0"), [("changed", n, n, n)])
      for n in (1, 3, 5)),
    *((f"link changed {n}", partial(change, n, prev_hash="0"), [("changed", n, n, n)])
      for n in (1, 3, 5)),
    *((f"changed with its hash {n}", partial(rehash, n), [("changed", n, n, n)]) for n in (1, 3)),
    ("changed with its hash 5", partial(rehash, 5), [("head_differs", None, None, None)]),
    *((f"deleted {n}", partial(delete, *n), [("deleted", *n, None)])
      for n in ((1, 1), (3, 3), (2, 4), (1, 4))),
    *((f"cut {n}", partial(delete, n, 5), [("tail_cut", n, 5, None)]) for n in (1, 3, 5)),
    *((f"inserted {n}", partial(insert, n), [("inserted", n + 1, n + 1, n + 1)])
      for n in (0, 3, 5)),
    *((f"alone {n}", partial(insert, n, prev_hash="0"), [("inserted", n + 1, n + 1, n + 1)])
      for n in (0, 3, 5)),
    *((f"inserted anyhow {n}", partial(insert, n, id=99), [("inserted", 99, 99, n + 1)])
      for n in (0, 3, 5)),
    *((f"two inserted {n}", partial(insert_two, n), [("inserted", n + 1, n + 2, n + 1)])
      for n in (0, 3, 5)),
    *((f"duplicated {n}", partial(duplicate, n, n), [("duplicated", n, n, n + 1)])
      for n in (1, 3, 5)),
    *((f"balance {n}", partial(edit, balance=n), [ROW]) for n in (0, 14, -1, 10**30)),
    ("count", partial(edit, entry_count=4), [ROW]),
    ("larger count", partial(edit, entry_count=6), [ROW]),
    ("time", partial(edit, updated_at="2099-01-01T00:00:00.000000Z"), [ROW]),
    ("balance's row gone", partial(set_back, 0), [ROW]),
    ("hash of the head", partial(edit, head_hash="0"), [("head_differs", None, None, None)]),
    *((f"head set back to {n}", partial(set_back, n), [("inserted", n + 1, 5, n + 1)])
      for n in (1, 3, 4)),
    *((f"rewritten from {n}", partial(rewrite, n), [("rewritten", n, n, n)]) for n in (1, 3, 5)),
    (
        "two inserted from far, behind which the others stand",
        partial(insert_two, 3, id=90),
        [("reordered", 4, 5, 6), ("inserted", 90, 91, 4)],
    ),
    (
        "the fourth deleted, the last made anew",
        delete_and_rehash,
        [("deleted", 4, 4, None), ("head_differs", None, None, None)],
    ),
    (
        "the last one's amount and hash changed",
        partial(change, 5, amount=9, hash="0"),
        [("changed", 5, 5, 5), ("head_differs", None, None, None)],
    ),
    ("one left out, the rest linked anew", leave_out, [("tail_cut", 5, 5, None)]),
]  # fmt: skip
# An export's lines stand in any order; entries in the store by their time.
OFFLINE: list[Case] = [
    *(
        (f"swapped {n}", partial(move, n, n + 1), [("reordered", n + 1, n + 1, n)])
        for n in (1, 3, 4)
    ),
    ("first to the end", partial(move, 1, 5), [("reordered", 1, 1, 5)]),
    ("last to the start", partial(move, 5, 1), [("reordered", 5, 5, 1)]),
    ("copy of the first at the end", partial(duplicate, 1, 5), [("duplicated", 1, 1, 6)]),
    ("copy of the last at the start", partial(duplicate, 5, 0), [("duplicated", 5, 5, 1)]),
    ("copy in the middle", partial(duplicate, 2, 4), [("duplicated", 2, 2, 5)]),
    ("two moved to the end", move_two, [("reordered", 2, 3, 4)]),
    (
        "backwards",
        lambda head, rows: rows.reverse(),
        [("reordered", n, n, 6 - n) for n in (2, 3, 4, 5)],
    ),
]
IN_STORE: list[Case] = [
    (
        f"times swapped {n}",
        partial(swap_times, n),
        [("changed", n, n, n + 1), ("changed", n + 1, n + 1, n), ("reordered", n + 1, n + 1, n)],
    )
    for n in (1, 3, 4)
]


def names(tampers: list[Case]) -> list[str]:
    return [name for name, *_ in tampers]


def found(report: Report) -> Found:
    assert report.valid == (not report.findings) == (not report.discrepancies)
    assert all(one.detail == MEANING[one.kind] for one in report.findings)
    return [(str(one.kind), one.first_id, one.last_id, one.position) for one in report.findings]


def audited(head: dict[str, Any], rows: Rows) -> Report:
    (report,) = audit_export(json.dumps(row) for row in (head, *rows))
    return report


@pytest.mark.parametrize(
    ("name", "tamper", "expected"), ANYWHERE + OFFLINE, ids=names(ANYWHERE + OFFLINE)
)
def test_what_was_done_to_an_export_is_named(name: str, tamper: Tamper, expected: Found) -> None:
    """Each kind of tampering, at the start, in the middle and at the end."""
    head, rows = written()
    assert found(audited(head, rows)) == []
    tamper(head, rows)
    assert found(audited(head, rows)) == expected


def test_what_was_done_in_the_store_is_named(
    client: "DynamoDBClient", monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same on items that somebody wrote past the ledger."""
    monkeypatch.setattr("ledger_core.audit.store_audit.INDEX_LAG_PAUSES_SECONDS", (0.0,))
    store = create_store(client)
    for number, (name, tamper, expected) in enumerate(ANYWHERE + IN_STORE):
        head, rows = written(f"owner-{number}")
        tamper(head, rows)
        put(client, head, rows)
        report = audit_store(store, head["owner_id"], read=lambda call: call())
        assert sorted(_in_store(found(report)), key=str) == sorted(_in_store(expected), key=str), (
            name
        )


def _in_store(found: Found) -> Found:
    """An index may give an entry and its copy, which are of one time, in either order."""
    return [(*row[:3], None) if row[0] == "duplicated" else row for row in found]


UNREADABLE: Rows = [{"v": 1, "amount": "?"}]


@pytest.mark.parametrize("at", [1, 3, 5])
def test_unreadable_row_is_named_by_what_it_stands_for(at: int) -> None:
    """An unreadable row in an entry's place is that entry, changed; elsewhere it is inserted."""
    head, rows = written()
    assert found(audited(head, rows[: at - 1] + UNREADABLE + rows[at:])) == [
        ("changed", at, at, at)
    ]
    assert found(audited(head, rows[: at - 1] + UNREADABLE + rows[at - 1 :])) == [
        ("inserted", None, None, at)
    ]
    head, rows = written(entries=ENTRIES + 1)
    assert found(audited(head, rows[: at - 1] + UNREADABLE + rows[at + 1 :])) == [
        ("changed", at, at, at),
        ("deleted", at + 1, at + 1, None),
    ]


def test_several_things_at_once_are_named_each(
    record_property: Callable[[str, object], None],
) -> None:
    """Whatever is done, and however often: an audit ends, and finds something.

    Only an account that is as it was before some of its entries has nothing to be found.
    """
    before = [written(entries=entries) for entries in range(9)]
    record_property("ledgers", LEDGERS)
    for seed in range(SEED, SEED + LEDGERS):
        chance, (head, rows) = random.Random(seed), written(entries=8)
        for _ in range(chance.randint(1, 4)):
            _, tamper, _ = chance.choice(ANYWHERE + OFFLINE)
            if len(rows) >= ENTRIES and all("nonce" in row for row in rows):
                tamper(head, rows)
        if chance.random() < 0.2:
            rows.insert(chance.randint(0, len(rows)), UNREADABLE[0])
        report = audited(head, rows)
        assert (found(report) == []) == ((head, rows) in before), f"SEED={seed}"
