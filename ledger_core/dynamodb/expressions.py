"""What the ledger writes: its keys, items, expressions and conditions, as DynamoDB types them."""

from datetime import datetime
from typing import TYPE_CHECKING, Any

from ledger_core.account import AccountChange
from ledger_core.fields import format_time
from ledger_core.keys import CREDIT, entry_key
from ledger_core.models import LedgerEntry

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef

__all__ = [
    "ENTRIES_MAX",
    "entry_item",
    "key_of_account",
    "key_of_entry",
    "transact_items",
]

ENTRIES_MAX = 99
"""Entries that one transaction adds to an account: DynamoDB takes 100 items, and the account is
one."""

# Forbids a second entry under the same owner and nonce.
NONCE_IS_NEW = "attribute_not_exists(entry_key)"
# Forbids opening an account that another writer has opened.
ACCOUNT_IS_NEW = "attribute_not_exists(entry_count)"
# Forbids moving an account that has moved since the entry was planned on it. The count alone would
# do, but for a table restored to an earlier time under a process that remembers the later one.
ACCOUNT_IS_KNOWN = "entry_count = :known_count AND head_hash = :known_hash"

MOVE = (
    "SET balance = :balance, entry_count = :entry_count, head_hash = :head_hash, "
    "created_at = :created_at, updated_at = :updated_at, active_at = :active_at"
)
# Tells a later run of the same period, which reads the row anyway, that there is nothing to write.
PERIOD_IS_DONE = ", #mark{number} = :mark{number}"
MARK_PREFIX = "mark:"


def key_of_account(account: str) -> dict[str, Any]:
    """The key of an account's row."""
    return {"account": {"S": account}}


def key_of_entry(account: str, nonce: str) -> dict[str, Any]:
    """The key of an entry, by the key of its account and its stored nonce."""
    return {"entry_key": {"S": entry_key(account, nonce)}}


def entry_item(entry: LedgerEntry) -> dict[str, Any]:
    """The entry as it is stored: its fields, its key and its account, less `updated_at`, which is
    `created_at`."""
    item: dict[str, Any] = {
        "entry_key": {"S": entry.key},
        "account": {"S": entry.account_key},
        "v": {"N": str(entry.v)},
        "id": {"N": str(entry.id)},
        "operation": {"S": entry.operation},
        "owner_id": {"S": entry.owner_id},
        "amount": {"N": str(entry.amount)},
        "nonce": {"S": entry.nonce},
        "created_at": {"S": format_time(entry.created_at)},
        "balance_after": {"N": str(entry.balance_after)},
        "prev_hash": {"S": entry.prev_hash},
        "hash": {"S": entry.hash},
    }
    if entry.unit != CREDIT:
        item["unit"] = {"S": entry.unit}
    if entry.app is not None:
        item["app"] = {"S": entry.app}
    if entry.metadata:
        item["metadata"] = {"M": {key: {"S": value} for key, value in entry.metadata.items()}}
    return item


def transact_items(
    change: AccountChange, *, entries_table: str, accounts_table: str
) -> list["TransactWriteItemTypeDef"]:
    """The items that append the entries of a change and, last, the one that moves its account, each
    on a condition."""
    puts: list[TransactWriteItemTypeDef] = [
        {
            "Put": {
                "TableName": entries_table,
                "Item": entry_item(entry),
                "ConditionExpression": NONCE_IS_NEW,
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            }
        }
        for entry in change.entries
    ]
    return [*puts, _update(change, accounts_table)]


def _update(change: AccountChange, accounts_table: str) -> "TransactWriteItemTypeDef":
    before, after = change.before, change.after
    values: dict[str, Any] = {
        ":balance": {"N": str(after.balance)},
        ":entry_count": {"N": str(after.entry_count)},
        ":head_hash": {"S": after.head_hash},
        ":created_at": _time(after.created_at),
        ":updated_at": _time(after.updated_at),
        ":active_at": _time(after.active_at),
    }
    if before.entry_count:
        values[":known_count"] = {"N": str(before.entry_count)}
        values[":known_hash"] = {"S": before.head_hash}
    update: TransactWriteItemTypeDef = {
        "Update": {
            "TableName": accounts_table,
            "Key": key_of_account(after.key),
            "UpdateExpression": MOVE,
            "ConditionExpression": ACCOUNT_IS_KNOWN if before.entry_count else ACCOUNT_IS_NEW,
            "ExpressionAttributeValues": values,
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
    }
    new_marks = sorted(after.marks.items() - before.marks.items())
    for number, (_, period) in enumerate(new_marks):
        update["Update"]["UpdateExpression"] += PERIOD_IS_DONE.format(number=number)
        values[f":mark{number}"] = {"S": period}
    if new_marks:
        names = {f"#mark{number}": MARK_PREFIX + name for number, (name, _) in enumerate(new_marks)}
        update["Update"]["ExpressionAttributeNames"] = names
    return update


def _time(time: datetime | None) -> dict[str, str]:
    assert time is not None  # there is an entry
    return {"S": format_time(time)}
