"""Requests to DynamoDB and capacity units, by what is asked of the ledger; beside them, those of the one that is
written first, and the races that it loses."""

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

PUT_AND_MOVE, LOOK_UP, READ_HEAD, QUERY = (
    "TransactWriteItems",
    "TransactGetItems",
    "GetItem",
    "Query",
)
GOALS = {
    "entry, of an owner whom the process knows": Taken((PUT_AND_MOVE,), 0, 5),
    "entry, of one whom it does not know": Taken((READ_HEAD, PUT_AND_MOVE), 0.5, 5),
    "entry, after another process has moved the balance": Taken((PUT_AND_MOVE, PUT_AND_MOVE), 0, 5),
    "nonce that was used, of an owner whom it knows": Taken((PUT_AND_MOVE,), 0, 0),
    "nonce that was used, of one whom it does not know": Taken((READ_HEAD, PUT_AND_MOVE), 0.5, 0),
    "refusal for the balance, of an owner whom it knows": Taken((LOOK_UP,), 4, 0),
    "refusal for the balance, of one whom it does not know": Taken((READ_HEAD, LOOK_UP), 4.5, 0),
    "balance": Taken((READ_HEAD,), 1, 0),
    "balance at an instant": Taken((QUERY,), 0.5, 0),
    f"page of {HISTORY_LIMIT_DEFAULT} entries": Taken((QUERY,), 2, 0),
}
"""What each takes, on tables on which others have been before: two processes, and owners with short names."""
NAIVE = Taken(("GetItem", "GetItem", "PutItem", "UpdateItem"), 2, 3)
"""What each entry of the ledger takes that is written first."""

OWNER_ID, NONCE, METADATA_BYTES = "o" * 20, "n" * 36, 200
"""Of the entry that is to stay below a kilobyte."""
METADATA_KEY = "note"
LATE = Account(owner_id=OWNER_ID, balance=10**12 - 1, entry_count=999_999, updated_at=NOON)
"""The head that it is put upon: its numbers are long ones."""


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
        for name, losses in (
            ("naive ledger", lost_by_naive(client)),
            ("the ledger", lost_by_ours(client)),
        ):
            goal = 0 if name == "the ledger" else None
            spends = f"{WRITERS} spends at once"
            rows.append(
                count(
                    f"{name}: credits overdrawn, {spends} of {CREDITS}",
                    losses.overdrawn,
                    exactly=goal,
                )
            )
            rows.append(
                count(
                    f"{name}: credits taken beyond one, {spends}, one nonce",
                    losses.doubled,
                    exactly=goal,
                )
            )
    return Part(
        "Requests and units",
        "requests / read units / write units, counted at boto3's wire on DynamoDB Local; write units are computed from "
        "the sizes of what was stored. DynamoDB does not say what a write takes that a condition stops",
        rows,
    )


def taken(client: "DynamoDBClient") -> dict[str, Taken]:
    """What each of GOALS takes, in their order, through the app's handler; nobody may have an entry yet."""
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
    unknown, known = post(ours, "first"), post(ours, "second")
    used, used_unknown = post(ours, "second"), post(theirs, "second")
    post(theirs, "their own")
    stale = post(ours, "third")
    refused = post(ours, "dear", name="CREDIT_SPEND", amount=999)
    refused_unknown = post(ours, "dear", "bob", name="CREDIT_SPEND", amount=999)
    for number in range(HISTORY_LIMIT_DEFAULT):
        ours(
            "POST",
            "/ledger/entry",
            {"owner_id": "ada", "operation": "SIGNUP_CREDIT", "nonce": f"more-{number}"},
        )
    middle = ours("GET", "/ledger/ada/entries", query={"limit": "2"}).body["entries"][-1][
        "created_at"
    ]
    reads = (get("balance"), get("balance", at=middle), get("entries"))
    found = (known, unknown, stale, used, used_unknown, refused, refused_unknown, *reads)
    return dict(zip(GOALS, found, strict=True))


def taken_by_naive(client: "DynamoDBClient") -> Taken:
    """What the ledger that is written first takes for an entry of an owner who has one."""
    ledger, meter = NaiveLedger(client), Meter(client)
    ledger.process(add(9, "first", owner_id="naive"))
    return meter.of("naive", lambda: ledger.process(add(9, "second", owner_id="naive")))


def lost_by_naive(client: "DynamoDBClient") -> Lost:
    """The races that it loses."""
    return lost(
        client, "naive", [NaiveLedger(client).process for _ in range(WRITERS)], write="PutItem"
    )


def lost_by_ours(client: "DynamoDBClient") -> Lost:
    """The same of this ledger, in as many processes."""
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
            f"bytes of an entry: nonce of {len(NONCE)}, owner of {len(OWNER_ID)}, metadata of {METADATA_BYTES}",
            f"{item_bytes(item)}",
            f"at most {WRITE_UNIT_BYTES:,}",
            spare >= 0,
        ),
        count("its write units: 2 for it, 2 for the balance, 1 for the index", units, exactly=5),
        count("bytes of metadata that leave it at that", METADATA_BYTES + spare),
        count("write units with a byte more", units + _units_of_one_more(value_bytes + spare)),
    ]


def _units_of_one_more(value_bytes: int) -> int:
    return write_units_of_entry(_item(value_bytes + 1)) - write_units_of_entry(_item(value_bytes))


def _item(value_bytes: int) -> dict[str, Any]:
    metadata = {METADATA_KEY: "x" * value_bytes}
    request = operation(
        LedgerOperationType.SIGNUP_CREDIT, NONCE, owner_id=OWNER_ID, metadata=metadata
    )
    return entry_item(LATE.next_entry(request, amount=1 - AMOUNT_MAX, now=NOON))
