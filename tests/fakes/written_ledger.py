"""A ledger as an export has it. Tests tamper with it, and write it without the ledger's code."""

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ledger_core.account import Account
from ledger_core.dynamodb.stored import keys_of
from ledger_core.fields import format_time
from tests.support import NOON, add, item_from

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

__all__ = ["ENTRIES", "Rows", "put", "written"]

ENTRIES = 5
Rows = list[dict[str, Any]]


def written(
    owner_id: str = "ada", entries: int = ENTRIES, *, amounts: Sequence[int] | None = None
) -> tuple[dict[str, Any], Rows]:
    """The account and its entries, a minute apart, of 1, 2, 3… credits or of `amounts`."""
    account = Account(owner_id=owner_id)
    rows: Rows = []
    for number, amount in enumerate(amounts or range(1, entries + 1), start=1):
        request = add(amount, f"n{number}", owner_id=owner_id)
        now = NOON + timedelta(minutes=number)
        entry = account.next_entry(request, amount=amount, now=now)
        account = account.after(entry)
        rows.append(entry.model_dump(mode="json"))
    head = {
        "owner_id": owner_id,
        "balance": account.balance,
        "entry_count": account.entry_count,
        "head_hash": account.head_hash,
        "updated_at": format_time(account.updated_at) if account.updated_at else None,
    }
    return head, rows


def put(client: "DynamoDBClient", head: dict[str, Any], rows: Rows) -> None:
    """Write a ledger to the tables without a check, by the keys of the rows; a copy has its own."""
    entries: dict[str, Any] = {}
    for position, row in enumerate(rows):
        stored = {name: value for name, value in row.items() if name != "updated_at"}
        key = keys_of(row)["entry_key"]
        if key in entries:
            key = f"{key}#{position}"
        entries[key] = item_from({"entry_key": key, "account": head["owner_id"]} | stored)
    account = {name: value for name, value in head.items() if name != "owner_id"}
    accounts = [item_from({"account": head["owner_id"]} | account)] if head["updated_at"] else []
    tables = {"LEDGER_ENTRIES_TABLE": [*entries.values()], "LEDGER_ACCOUNTS_TABLE": accounts}
    puts: Any = {
        os.environ[table]: [{"PutRequest": {"Item": item}} for item in items]
        for table, items in tables.items()
        if items
    }
    if puts:
        client.batch_write_item(RequestItems=puts)
