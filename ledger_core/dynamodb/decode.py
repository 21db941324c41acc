"""What DynamoDB's responses hold: accounts, entries, reasons, units; as values of ours."""

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pydantic import ValidationError

from ledger_core.account import Account, Head
from ledger_core.dynamodb.errors import busy_error
from ledger_core.dynamodb.expressions import MARK_PREFIX
from ledger_core.dynamodb.stored import StoredHead, keys_of, unknown_fields
from ledger_core.errors import LedgerError, StoreError, UnavailableError, UnknownFormatError
from ledger_core.keys import split_account_key
from ledger_core.models import LedgerEntry

__all__ = [
    "Cancelled",
    "account_from",
    "cancelled_from",
    "entry_from",
    "row_from",
    "stored_head_from",
    "units_from",
]

BUSY = frozenset({"ProvisionedThroughputExceeded", "ThrottlingError", "TransactionConflict"})
"""Reasons for which a cancelled transaction should wait before it is sent again."""
ATTRIBUTES = frozenset(
    {"account", "balance", "entry_count", "head_hash", "created_at", "updated_at", "active_at"}
)
"""Of a stored account, beside its marks."""
NAMES_OF_EXPORT = frozenset({"v", "owner_id", "unit"})
"""Names that the head of an export gives to something else."""
INTEGER = re.compile(r"-?[0-9]+")


class Cancelled(NamedTuple):
    """Why a change of one account was not written. All is empty where another account's change is
    the reason."""

    stored: Sequence[LedgerEntry] = ()
    """What is stored already under the nonces of the entries."""
    account: Account | None = None
    """The account as it is, when it is not the one that the change was planned on."""
    busy: LedgerError | None = None
    """Conflict or throttling, after which the next try should wait."""
    error: StoreError | None = None
    """What is wrong with this change for good: another try meets it again."""


def cancelled_from(key: str, reasons: Sequence[Mapping[str, Any]]) -> Cancelled:
    """What the reasons of one account's change say, by position: each entry's, and last the
    account's."""
    failed = [reason["Code"] == "ConditionalCheckFailed" for reason in reasons]
    busy = next(
        (busy_error("DynamoDB", reason["Code"]) for reason in reasons if reason["Code"] in BUSY),
        None,
    )
    try:
        stored = [
            entry_from(reasons[position]["Item"])
            for position in range(len(reasons) - 1)
            if failed[position]
        ]
        account = account_from(key, reasons[-1].get("Item")) if failed[-1] else None
    except StoreError as error:
        return Cancelled(busy=busy, error=error)
    refused = {reason["Code"] for reason in reasons} - {"None", "ConditionalCheckFailed", *BUSY}
    refusal = StoreError(f"DynamoDB refused: {', '.join(sorted(refused))}") if refused else None
    return Cancelled(tuple(stored), account, busy, refusal)


def units_from(response: Mapping[str, Any]) -> float:
    """The capacity units that a response says were consumed, of all its tables and their indexes.

    Raises:
        UnavailableError: the response is not DynamoDB's. A proxy may answer 200 to a request that
            it never handed on.
    """
    consumed = response.get("ConsumedCapacity")
    if consumed is None or not response.get("ResponseMetadata", {}).get("RequestId"):
        raise UnavailableError(
            "The answer has no request id or no consumed capacity: it is not DynamoDB's."
        )
    return float(
        sum(
            table.get("CapacityUnits", 0)
            for table in (consumed if isinstance(consumed, list) else [consumed])
        )
    )


def row_from(item: Mapping[str, Any]) -> dict[str, Any]:
    """A stored entry as the fields of LedgerEntry, whatever is in them.

    The keys of the item are among them only where other fields ask for other keys.
    """
    row = {name: _plain(value) for name, value in item.items()}
    row.setdefault("updated_at", row.get("created_at"))
    for name, value in keys_of(row).items():
        if row.get(name) == value:
            del row[name]
    return row


def stored_head_from(key: str, item: Mapping[str, Any] | None) -> StoredHead:
    """A stored account as the fields of Head, whatever is in them. Other fields of Account are left
    out.

    A row has no attribute of a name in NAMES_OF_EXPORT. One that has it is shown as `account.v`.
    """
    owner_id, unit = split_account_key(key)
    fields = {
        f"account.{name}" if name in NAMES_OF_EXPORT else name: _plain(value)
        for name, value in (item or {}).items()
        if not _is_noted(name)
    }
    if not fields:
        return StoredHead.of(Head(owner_id=owner_id, unit=unit))
    return StoredHead(owner_id, fields, unit)


def _is_noted(name: str) -> bool:
    return name in {"account", "created_at", "active_at"} or name.startswith(MARK_PREFIX)


def _plain(typed: Mapping[str, Any]) -> Any:
    """A value without its type where that can be told from it, else a list that begins with its
    type."""
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
    """The entry that is stored.

    Raises:
        UnknownFormatError: it has a version or an attribute that is not known.
        StoreError: it is malformed.
    """
    row = row_from(item)
    if unknown := unknown_fields(row):
        raise UnknownFormatError(
            f"a stored entry has attributes that are not known: {', '.join(unknown)}"
        )
    row["updated_at"] = row.get("created_at")
    try:
        return LedgerEntry.model_validate(row)
    except ValidationError as error:
        reasons = error.errors(include_input=False, include_url=False)
        raise StoreError(f"a stored entry is malformed: {reasons}") from error


def account_from(key: str, item: Mapping[str, Any] | None) -> Account:
    """The account that is stored; a row that has no entry yet is like no row.

    Raises:
        UnknownFormatError: it has an attribute that is not known.
        StoreError: it is malformed.
    """
    unknown = sorted(
        name for name in item or () if name not in ATTRIBUTES and not name.startswith(MARK_PREFIX)
    )
    if unknown:
        raise UnknownFormatError(
            f"a stored account has attributes that are not known: {', '.join(unknown)}"
        )
    owner_id, unit = split_account_key(key)
    if not item or "entry_count" not in item:
        return Account(owner_id=owner_id, unit=unit)
    names = [name for name in item if name.startswith(MARK_PREFIX)]
    try:
        return Account(
            owner_id=owner_id,
            unit=unit,
            balance=int(item["balance"]["N"]),
            entry_count=int(item["entry_count"]["N"]),
            head_hash=item["head_hash"]["S"],
            created_at=_time(item["created_at"]["S"]),
            updated_at=_time(item["updated_at"]["S"]),
            active_at=_time(item["active_at"]["S"]),
            marks={name.removeprefix(MARK_PREFIX): item[name]["S"] for name in names},
        )
    except (KeyError, ValueError) as error:
        raise StoreError(
            f"a stored account is malformed: {type(error).__name__} {error}"
        ) from error


def _time(text: str) -> datetime:
    """A stored time in UTC, whatever its offset is: what is computed from it is written as UTC."""
    time = datetime.fromisoformat(text)
    if time.utcoffset() is None:
        raise ValueError("a time without its offset")
    try:
        return time.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(str(error)) from error
