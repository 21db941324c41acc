"""What the ledger writes: its keys, items, expressions and conditions, as DynamoDB types them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ledger_core.account import Head, Mark
from ledger_core.fields import format_time
from ledger_core.models import LedgerEntry

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef

__all__ = [
    "ENTRIES_MAX",
    "Write",
    "entry_item",
    "entry_key",
    "move_values",
    "transact_items",
]

ENTRIES_MAX = 99
"""Entries of one owner that one transaction adds: DynamoDB takes 100 items, and one is the balance."""

# Forbids a second entry under the same owner and nonce.
NONCE_IS_NEW = "attribute_not_exists(entry_key)"
# Forbids beginning a ledger that another writer has begun.
LEDGER_IS_NEW = "attribute_not_exists(entry_count)"
# Forbids moving a balance that has moved since the entry was computed from it. The count alone would do, but for a
# table restored to an earlier time under a process that remembers the later one.
HEAD_IS_KNOWN = "entry_count = :known_count AND head_hash = :known_hash"

MOVE_HEAD = (
    "SET balance = :balance, entry_count = :entry_count, head_hash = :head_hash, "
    "updated_at = :now, created_at = if_not_exists(created_at, :now)"
)
# An entry that is posted for an owner is a sign of life.
OWNER_IS_ACTIVE = ", active_at = :now"
# One that a schedule grants is none: a row of before there was this attribute gets the time of the entry before.
OWNER_WAS_ACTIVE = ", active_at = if_not_exists(active_at, :active_at)"
# Tells a later run of the same period, which reads the row anyway, that there is nothing to write.
PERIOD_IS_DONE = ", #mark = :period"
# Forbids going back to an earlier period, for a writer who does not know of the later one.
PERIOD_IS_NOT_OVERTAKEN = " AND (attribute_not_exists(#mark) OR #mark <= :period)"
MARK_PREFIX = "mark:"


class Write(NamedTuple):
    """Entries of one owner to append, one upon the other, the head that the first was computed from, and what to note
    beside the balance."""

    entries: Sequence[LedgerEntry]
    head: Head
    mark: Mark | None = None


def entry_key(owner_id: str, nonce: str) -> str:
    return f"{owner_id}#{nonce}"


def entry_item(entry: LedgerEntry) -> dict[str, Any]:
    """The entry as it is stored: its fields and its key, less `updated_at`, which is `created_at`."""
    return {
        "entry_key": {"S": entry_key(entry.owner_id, entry.nonce)},
        "id": {"N": str(entry.id)},
        "operation": {"S": entry.operation},
        "owner_id": {"S": entry.owner_id},
        "amount": {"N": str(entry.amount)},
        "nonce": {"S": entry.nonce},
        "created_at": {"S": format_time(entry.created_at)},
        "balance_after": {"N": str(entry.balance_after)},
        "metadata": {"M": {key: {"S": value} for key, value in entry.metadata.items()}},
        "prev_hash": {"S": entry.prev_hash},
        "hash": {"S": entry.hash},
    }


def transact_items(
    write: Write, *, entries_table: str, balances_table: str, active: bool = True
) -> list["TransactWriteItemTypeDef"]:
    """The items that append the entries and, last, the one that moves the balance, each under its condition.

    With a mark there is one more: that no later one is there.

    `active` tells whether it is a sign of life of the owner.
    """
    entries, head, mark = write
    last = entries[-1]
    values = move_values(last, head)
    expression = MOVE_HEAD + OWNER_IS_ACTIVE
    if not active:
        expression = MOVE_HEAD + OWNER_WAS_ACTIVE
        values[":active_at"] = {"S": format_time(head.updated_at or last.created_at)}
    puts: list[TransactWriteItemTypeDef] = [
        {
            "Put": {
                "TableName": entries_table,
                "Item": entry_item(entry),
                "ConditionExpression": NONCE_IS_NEW,
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            }
        }
        for entry in entries
    ]
    update: TransactWriteItemTypeDef = {
        "Update": {
            "TableName": balances_table,
            "Key": {"owner_id": {"S": last.owner_id}},
            "UpdateExpression": expression + (PERIOD_IS_DONE if mark else ""),
            "ConditionExpression": HEAD_IS_KNOWN if head.entry_count else LEDGER_IS_NEW,
            "ExpressionAttributeValues": values,
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
    }
    if mark:
        update["Update"]["ConditionExpression"] += PERIOD_IS_NOT_OVERTAKEN
        update["Update"]["ExpressionAttributeNames"] = {"#mark": MARK_PREFIX + mark.name}
        update["Update"]["ExpressionAttributeValues"] = {**values, ":period": {"S": mark.period}}
    return [*puts, update]


def move_values(entry: LedgerEntry, head: Head) -> dict[str, Any]:
    """The values of the expressions that move the balance from `head` to what it is after `entry`."""
    values = {
        ":balance": {"N": str(entry.balance_after)},
        ":entry_count": {"N": str(entry.id)},
        ":head_hash": {"S": entry.hash},
        ":now": {"S": format_time(entry.created_at)},
    }
    if head.entry_count:
        values |= {":known_count": {"N": str(head.entry_count)}, ":known_hash": {"S": head.head_hash}}
    return values
