"""What DynamoDB's responses hold: accounts, entries, reasons, units; as values of ours."""

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import ValidationError

from ledger_core.account import Account, Head
from ledger_core.dynamodb.expressions import MARK_PREFIX
from ledger_core.dynamodb.stored import StoredHead
from ledger_core.errors import StoreError, UnavailableError
from ledger_core.models import LedgerEntry

__all__ = [
    "Cancelled",
    "account_from",
    "cancelled_from",
    "entry_from",
    "head_from",
    "row_from",
    "stored_head_from",
    "units_from",
]

BUSY = frozenset({"ProvisionedThroughputExceeded", "ThrottlingError", "TransactionConflict"})
"""Reasons for which a cancelled transaction should wait before it is sent again."""
INTEGER = re.compile(r"-?[0-9]+")


class Cancelled(NamedTuple):
    """Why an owner's writes were not done; nothing is said of those that another owner's kept from being done."""

    stored: Sequence[LedgerEntry]
    """What is stored already under the nonces of the entries."""
    head: Head | None
    """The head as it is, when it is not the one the first entry was computed from."""
    contended: bool
    """Whether conflict or throttling came on top, so that the next try should wait."""
    marks: Mapping[str, str] = MappingProxyType({})
    """Those of the row that `head` is from."""
    error: StoreError | None = None
    """What is wrong with these writes for good: another try meets it again."""


def cancelled_from(owner_id: str, reasons: Sequence[Mapping[str, Any]]) -> Cancelled:
    """What the reasons of one owner's writes say, by position: each entry's, and last the balance's."""
    failed = [reason["Code"] == "ConditionalCheckFailed" for reason in reasons]
    contended = any(reason["Code"] in BUSY for reason in reasons)
    try:
        stored = [entry_from(reasons[position]["Item"]) for position in range(len(reasons) - 1) if failed[position]]
        account = account_from(owner_id, reasons[-1].get("Item")) if failed[-1] else None
    except StoreError as error:
        return Cancelled((), None, contended, error=error)
    refused = {reason["Code"] for reason in reasons} - {"None", "ConditionalCheckFailed", *BUSY}
    return Cancelled(
        stored=tuple(stored),
        head=account.head if account else None,
        contended=contended,
        marks=account.marks if account else {},
        error=StoreError(f"DynamoDB refused: {', '.join(sorted(refused))}") if refused else None,
    )


def units_from(response: Mapping[str, Any]) -> float:
    """The capacity units that a response says were consumed, of all its tables and their indexes.

    Raises:
        UnavailableError: the response is not DynamoDB's. A proxy may answer 200 to a request that it never handed on.
    """
    consumed = response.get("ConsumedCapacity")
    if consumed is None or not response.get("ResponseMetadata", {}).get("RequestId"):
        raise UnavailableError("The answer has no request id or no consumed capacity: it is not DynamoDB's.")
    return float(
        sum(table.get("CapacityUnits", 0) for table in (consumed if isinstance(consumed, list) else [consumed]))
    )


def row_from(item: Mapping[str, Any]) -> dict[str, Any]:
    """A stored entry as the fields of LedgerEntry, whatever is in them."""
    row = {name: _plain(value) for name, value in item.items() if name != "entry_key"}
    row.setdefault("updated_at", row.get("created_at"))
    return row


def stored_head_from(owner_id: str, item: Mapping[str, Any] | None) -> StoredHead:
    """A stored balance as the fields of Head, whatever is in them; what else the ledger notes there is left out."""
    fields = {name: _plain(value) for name, value in (item or {}).items() if not _is_noted(name)}
    return StoredHead(owner_id, fields) if fields else StoredHead.of(Head(owner_id=owner_id))


def _is_noted(name: str) -> bool:
    return name in {"owner_id", "created_at", "active_at"} or name.startswith(MARK_PREFIX)


def _plain(typed: Mapping[str, Any]) -> Any:
    """A value without its type where that can be told from it, else a list that begins with its type."""
    ((kind, value),) = typed.items()
    if kind == "M":
        return {name: _plain(inner) for name, inner in value.items()}
    if kind == "N" and INTEGER.fullmatch(value):
        return int(value)
    if kind in {"S", "BOOL"}:
        return value
    if kind == "NULL":
        return None
    if kind == "L":
        return [kind, *map(_plain, value)]
    values = value if isinstance(value, list) else [value]
    return [kind, *(b64encode(one).decode() if isinstance(one, bytes) else one for one in values)]


def entry_from(item: Mapping[str, Any]) -> LedgerEntry:
    """The entry that is stored, less attributes that a later version may have added."""
    row = row_from(item)
    row["updated_at"] = row.get("created_at")
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
            updated_at=_time(item["updated_at"]["S"]),
        )
    except (KeyError, ValueError) as error:
        raise StoreError(f"a stored balance is malformed: {type(error).__name__} {error}") from error


def account_from(owner_id: str, item: Mapping[str, Any] | None) -> Account:
    """The whole row that is stored."""
    item = item or {}
    head = head_from(owner_id, item)
    try:
        created_at, active_at = (
            _time(item[name]["S"]) if name in item else None for name in ("created_at", "active_at")
        )
        names = [name for name in item if name.startswith(MARK_PREFIX)]
        marks = {name.removeprefix(MARK_PREFIX): item[name]["S"] for name in names}
    except (KeyError, ValueError) as error:
        raise StoreError(f"a stored balance is malformed: {type(error).__name__} {error}") from error
    # Rows that were written before `active_at` was have the time of the last entry.
    return Account(head=head, created_at=created_at, active_at=active_at or head.updated_at, marks=marks)


def _time(text: str) -> datetime:
    """A stored time in UTC, whatever its offset is: what is computed from it is written as UTC."""
    time = datetime.fromisoformat(text)
    if time.utcoffset() is None:
        raise ValueError("a time without its offset")
    try:
        return time.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(str(error)) from error
