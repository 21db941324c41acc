"""The ledger's keys, items and conditions, as DynamoDB types them, and back."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from ledger_core.errors import StoreError
from ledger_core.models import Head, LedgerEntry, format_time

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef

__all__ = [
    "Cancelled",
    "cancelled_from",
    "entry_from",
    "entry_item",
    "entry_key",
    "head_from",
    "item_from",
    "move_values",
    "row_from",
    "transact_items",
    "units_from",
]

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

BUSY = frozenset({"ProvisionedThroughputExceeded", "ThrottlingError", "TransactionConflict"})
"""Reasons for which a cancelled transaction should wait before it is sent again."""


class Cancelled(NamedTuple):
    """Why a transaction wrote nothing. At least one of `entry` and `head` is there."""

    entry: LedgerEntry | None
    """What is stored under the nonce already."""
    head: Head | None
    """The head as it is, when it is not the one the entry was computed from."""
    contended: bool
    """Whether conflict or throttling came on top, so that the next try should wait."""


def entry_key(owner_id: str, nonce: str) -> str:
    return f"{owner_id}#{nonce}"


def entry_item(entry: LedgerEntry) -> dict[str, Any]:
    """The entry as it is stored: its fields and its key, less `updated_at`, which is `created_at`."""
    fields = entry.model_dump(exclude={"updated_at"})
    return item_from({"entry_key": entry_key(entry.owner_id, entry.nonce), **fields})


def transact_items(
    entry: LedgerEntry, head: Head, *, entries_table: str, balances_table: str
) -> list["TransactWriteItemTypeDef"]:
    """The two writes that append `entry` and move the balance from `head`, each under its condition."""
    return [
        {
            "Put": {
                "TableName": entries_table,
                "Item": entry_item(entry),
                "ConditionExpression": NONCE_IS_NEW,
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            }
        },
        {
            "Update": {
                "TableName": balances_table,
                "Key": {"owner_id": {"S": entry.owner_id}},
                "UpdateExpression": MOVE_HEAD,
                "ConditionExpression": HEAD_IS_KNOWN if head.entry_count else LEDGER_IS_NEW,
                "ExpressionAttributeValues": move_values(entry, head),
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            }
        },
    ]


def move_values(entry: LedgerEntry, head: Head) -> dict[str, Any]:
    """The values of the expressions that move the balance from `head` to what it is after `entry`."""
    values: dict[str, Any] = {
        ":balance": entry.balance_after,
        ":entry_count": entry.id,
        ":head_hash": entry.hash,
        ":now": format_time(entry.created_at),
    }
    if head.entry_count:
        values |= {":known_count": head.entry_count, ":known_hash": head.head_hash}
    return item_from(values)


def cancelled_from(owner_id: str, reasons: Sequence[Mapping[str, Any]]) -> Cancelled | None:
    """What the reasons say, by position: the entry's, the balance's. None when no condition failed."""
    failed = [reason["Code"] == "ConditionalCheckFailed" for reason in reasons]
    if not any(failed):
        return None
    return Cancelled(
        entry=entry_from(reasons[0]["Item"]) if failed[0] else None,
        head=head_from(owner_id, reasons[1].get("Item")) if failed[1] else None,
        contended=any(reason["Code"] in BUSY for reason in reasons),
    )


def units_from(response: Mapping[str, Any]) -> float:
    """The capacity units that a response says were consumed, of all its tables and their indexes."""
    consumed = response.get("ConsumedCapacity", [])
    return float(
        sum(table.get("CapacityUnits", 0) for table in (consumed if isinstance(consumed, list) else [consumed]))
    )


def item_from(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values as DynamoDB's typed ones: strings, integers, maps of them."""
    return {name: _typed(value) for name, value in fields.items()}


def _typed(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        return {"S": value}
    return {"M": item_from(value)} if isinstance(value, dict) else {"N": str(value)}


def row_from(item: Mapping[str, Any]) -> dict[str, Any]:
    """A stored entry as the fields of LedgerEntry, whatever is in them."""
    row = {name: _plain(value) for name, value in item.items() if name != "entry_key"}
    return {**row, "updated_at": row.get("created_at")}


def _plain(typed: Mapping[str, Any]) -> Any:
    ((kind, value),) = typed.items()
    if kind == "M":
        return {name: _plain(inner) for name, inner in value.items()}
    return int(value) if kind == "N" and value.lstrip("-").isdecimal() else value


def entry_from(item: Mapping[str, Any]) -> LedgerEntry:
    """The entry that is stored, less attributes that a later version may have added."""
    row = row_from(item)
    try:
        return LedgerEntry(**{name: row[name] for name in LedgerEntry.model_fields if name in row})
    except ValidationError as error:
        reasons = error.errors(include_input=False, include_url=False)
        raise StoreError(f"a stored entry is malformed: {reasons}") from error


def head_from(owner_id: str, item: Mapping[str, Any] | None) -> Head:
    """The head that is stored; a row that has no entry yet, whatever else is in it, is like none."""
    if not item or "entry_count" not in item:
        return Head(owner_id=owner_id)
    try:
        return Head(
            owner_id=owner_id,
            balance=int(item["balance"]["N"]),
            entry_count=int(item["entry_count"]["N"]),
            head_hash=item["head_hash"]["S"],
            updated_at=datetime.fromisoformat(item["updated_at"]["S"]),
        )
    except (KeyError, ValueError) as error:
        raise StoreError(f"a stored balance is malformed: {type(error).__name__} {error}") from error
