"""The requests to DynamoDB and the capacity units of each kind of request to the ledger.

For comparison: those of a naive ledger, and the races that it loses.
"""

import os
from contextlib import redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING, Any

from functions.example_app.app import create_app
from functions.example_app.operations import ExampleAppOperations
from infra.dynamodb import create_tables, dynamodb_local
from ledger_core.account import Account
from ledger_core.dynamodb.expressions import entry_item, key_of_account
from ledger_core.fields import AMOUNT_MAX
from ledger_core.http import create_handler
from ledger_core.http.router import HISTORY_LIMIT_DEFAULT
from ledger_core.operations import LedgerOperationType
from ledger_core.wiring import create_client, create_processor
from tests.benchmarks.meter import Meter, Taken
from tests.benchmarks.naive import NaiveLedger
from tests.benchmarks.races import CREDITS, WRITERS, Lost, lost
from tests.benchmarks.report import Part, Row, count
from tests.benchmarks.units import (
    WRITE_UNIT_BYTES,
    item_bytes,
    write_units_of_balance,
    write_units_of_entry,
)
from tests.support import NOON, LambdaApi, add, operation

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

__all__ = ["GOALS", "NAIVE", "lost_by_naive", "lost_by_ours", "run", "taken", "taken_by_naive"]

PUT_AND_MOVE = "TransactWriteItems"
LOOK_UP = "TransactGetItems"
READ_HEAD = "GetItem"
QUERY = "Query"
GOALS = {
    "entry, known account": Taken((PUT_AND_MOVE,), 0, 5),
    "entry, unknown account": Taken((READ_HEAD, PUT_AND_MOVE), 0.5, 5),
    "entry, account moved by another process": Taken((PUT_AND_MOVE, PUT_AND_MOVE), 0, 5),
    "used nonce, known account": Taken((PUT_AND_MOVE,), 0, 0),
    "used nonce, unknown account": Taken((READ_HEAD, PUT_AND_MOVE), 0.5, 0),
    "refusal for the balance, known account": Taken((LOOK_UP,), 4, 0),
    "refusal for the balance, unknown account": Taken((READ_HEAD, LOOK_UP), 4.5, 0),
    "balance": Taken((READ_HEAD,), 1, 0),
    "balance at an instant": Taken((QUERY,), 0.5, 0),
    f"page of {HISTORY_LIMIT_DEFAULT} entries": Taken((QUERY,), 2, 0),
}
"""The cost of each kind of request, with two processes and owners with short names."""
NAIVE = Taken(("GetItem", "GetItem", "PutItem", "UpdateItem"), 2, 3)
"""The cost of an entry of the naive ledger."""

OWNER_ID = "o" * 20
NONCE = "n" * 36
METADATA_BYTES = 200
"""The lengths of the entry that must stay below a kilobyte."""
METADATA_KEY = "note"
LATE = Account(owner_id=OWNER_ID, balance=10**12 - 1, entry_count=999_999, updated_at=NOON)
"""The account before that entry: its numbers are long."""


def run() -> Part:
    """Count on DynamoDB Local."""
    with dynamodb_local() as endpoint:
        os.environ["AWS_ENDPOINT_URL_DYNAMODB"] = endpoint
        client = create_client()
        create_tables(client, os.environ)
        with redirect_stdout(StringIO()):  # where the lines of the log go
            found = taken(client)
        naive = taken_by_naive(client)
        rows = [
            Row(what, str(found[what]), str(goal), found[what] == goal)
            for what, goal in GOALS.items()
        ]
        rows += _size_rows()
        rows += [Row("naive ledger: entry", str(naive))]
        rows += _race_rows("naive ledger", lost_by_naive(client))
        rows += _race_rows("the ledger", lost_by_ours(client), goal=0)
    return Part(
        "Requests and units",
        "requests / read units / write units, counted at boto3's wire on DynamoDB Local; write "
        "units are computed from the sizes of the stored items. DynamoDB does not say what a write "
        "costs that a condition stops",
        rows,
    )


def _race_rows(name: str, losses: Lost, *, goal: int | None = None) -> list[Row]:
    spends = f"{WRITERS} spends at once"
    overdrawn = f"{name}: credits overdrawn, {spends} of {CREDITS}"
    doubled = f"{name}: credits taken beyond one, {spends}, one nonce"
    return [
        count(overdrawn, losses.overdrawn, exactly=goal),
        count(doubled, losses.doubled, exactly=goal),
    ]


def taken(client: "DynamoDBClient") -> dict[str, Taken]:
    """The cost of each of GOALS through the app's handler, on empty tables."""
    ours, theirs = (LambdaApi(create_handler(create_app(client))) for _ in range(2))
    meter = Meter(client)

    def post(
        api: LambdaApi, nonce: str, owner_id: str = "ada", name: str = "CREDIT_ADD", amount: int = 9
    ) -> Taken:
        body = {"owner_id": owner_id, "operation": name, "nonce": nonce, "amount": amount}
        return meter.of(owner_id, lambda: api("POST", "/ledger/entry", body))

    def get(what: str, **query: str) -> Taken:
        return meter.of("ada", lambda: ours("GET", f"/ledger/ada/{what}", query=query))

    post(theirs, "grant", "bob")
    unknown = post(ours, "first")
    known = post(ours, "second")
    used = post(ours, "second")
    used_unknown = post(theirs, "second")
    post(theirs, "their own")
    stale = post(ours, "third")
    refused = post(ours, "dear", name="CREDIT_SPEND", amount=999)
    refused_unknown = post(ours, "dear", "bob", name="CREDIT_SPEND", amount=999)
    for number in range(HISTORY_LIMIT_DEFAULT):
        body = {"owner_id": "ada", "operation": "SIGNUP_CREDIT", "nonce": f"signup-{number}"}
        ours("POST", "/ledger/entry", body)
    page = ours("GET", "/ledger/ada/entries", query={"limit": "2"}).body
    middle = page["entries"][-1]["created_at"]
    reads = (get("balance"), get("balance", at=middle), get("entries"))
    found = (known, unknown, stale, used, used_unknown, refused, refused_unknown, *reads)
    return dict(zip(GOALS, found, strict=True))


def taken_by_naive(client: "DynamoDBClient") -> Taken:
    """The cost of a second entry in the naive ledger."""
    ledger = NaiveLedger(client)
    meter = Meter(client)
    ledger.process(add(9, "first", owner_id="naive"))
    return meter.of("naive", lambda: ledger.process(add(9, "second", owner_id="naive")))


def lost_by_naive(client: "DynamoDBClient") -> Lost:
    """The errors of the naive ledger in the races."""
    processes = [NaiveLedger(client).process for _ in range(WRITERS)]
    return lost(client, "naive", processes, write="PutItem")


def lost_by_ours(client: "DynamoDBClient") -> Lost:
    """The errors of this ledger in the same races."""
    processes = [create_processor(ExampleAppOperations, client).process for _ in range(WRITERS)]
    return lost(client, "ours", processes, write=PUT_AND_MOVE)


def _size_rows() -> list[Row]:
    value_bytes = METADATA_BYTES - len(METADATA_KEY)
    item = _item(value_bytes)
    spare = WRITE_UNIT_BYTES - item_bytes(item)
    balance = key_of_account(OWNER_ID)
    units = write_units_of_entry(item) + write_units_of_balance(balance, balance)
    return [
        Row(
            f"bytes of an entry: nonce of {len(NONCE)}, owner of {len(OWNER_ID)}, "
            f"metadata of {METADATA_BYTES}",
            f"{item_bytes(item)}",
            f"at most {WRITE_UNIT_BYTES:,}",
            spare >= 0,
        ),
        count("write units: 2 for the entry, 2 for the account, 1 for the index", units, exactly=5),
        count("bytes of metadata within these units", METADATA_BYTES + spare),
        count("write units with a further byte", units + _units_of_next_byte(value_bytes + spare)),
    ]


def _units_of_next_byte(value_bytes: int) -> int:
    return write_units_of_entry(_item(value_bytes + 1)) - write_units_of_entry(_item(value_bytes))


def _item(value_bytes: int) -> dict[str, Any]:
    metadata = {METADATA_KEY: "x" * value_bytes}
    request = operation(
        LedgerOperationType.SIGNUP_CREDIT, NONCE, owner_id=OWNER_ID, metadata=metadata
    )
    return entry_item(LATE.next_entry(request, amount=1 - AMOUNT_MAX, now=NOON))
