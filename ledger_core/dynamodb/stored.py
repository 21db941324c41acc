"""Stored heads and entries, as they are: an audit reads them, whatever is in them.

The ledger's own models would refuse a row that somebody wrote past the ledger.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError

from ledger_core.account import Head
from ledger_core.fields import Instant, format_time
from ledger_core.keys import CREDIT, account_key, entry_key, stored_nonce
from ledger_core.models import FORMAT_VERSION, LedgerEntry

__all__ = [
    "HEAD_FIELDS",
    "KEYS",
    "Reported",
    "StoredHead",
    "keys_of",
    "reported",
    "respelt",
    "same",
    "unknown_fields",
    "written_fields",
]

HEAD_FIELDS = ("balance", "entry_count", "head_hash", "updated_at")
KEYS = frozenset({"entry_key", "account"})
"""Attributes of a stored entry that are no fields of it."""
INSTANT: TypeAdapter[datetime] = TypeAdapter(Instant)

Reported = int | str | None


@dataclass(frozen=True, slots=True)
class StoredHead:
    """An account's row as it is; `fields` includes those that this version does not know."""

    owner_id: str
    fields: Mapping[str, Any]
    unit: str = CREDIT

    @classmethod
    def of(cls, head: Head) -> Self:
        """The row that the ledger stores for a head."""
        updated_at = format_time(head.updated_at) if head.updated_at else None
        values = head.balance, head.entry_count, head.head_hash, updated_at
        return cls(head.owner_id, dict(zip(HEAD_FIELDS, values, strict=True)), head.unit)

    @property
    def unknown(self) -> list[str]:
        """Fields that are those of another format."""
        return sorted(set(self.fields) - set(HEAD_FIELDS))

    @property
    def entry_count(self) -> int | None:
        """The count of entries, if it is an integer."""
        entry_count = self.fields.get("entry_count")
        return entry_count if type(entry_count) is int else None

    @property
    def head_hash(self) -> str | None:
        """The hash of the last entry, if it is a text."""
        head_hash = self.fields.get("head_hash")
        return head_hash if isinstance(head_hash, str) else None

    @property
    def updated_at(self) -> str | None:
        """The time of the last entry, if it is a text."""
        updated_at = self.fields.get("updated_at")
        return updated_at if isinstance(updated_at, str) else None

    def head(self) -> Head | None:
        """The head that the row holds; None if a field is malformed or unknown."""
        balance = self.fields.get("balance")
        text = self.fields.get("updated_at")
        updated_at = _exact_time(text)
        if type(balance) is not int or self.entry_count is None or self.head_hash is None:
            return None
        if self.unknown or (updated_at is None and text is not None):
            return None
        return Head(
            owner_id=self.owner_id,
            unit=self.unit,
            balance=balance,
            entry_count=self.entry_count,
            head_hash=self.head_hash,
            updated_at=updated_at,
        )


def unknown_fields(row: Any) -> list[str]:
    """The fields of a stored entry that are of another format: without a version, or of a later
    one."""
    if not isinstance(row, dict):
        return []
    unknown = set(row) - set(LedgerEntry.model_fields) - KEYS
    version = row.get("v")
    if version is None or (type(version) is int and version > FORMAT_VERSION):
        unknown.add("v")
    return sorted(unknown)


def respelt(row: Mapping[str, Any], entry: LedgerEntry) -> list[str]:
    """The fields of a stored entry that the ledger writes differently, with the same meaning."""
    written = written_fields(entry)
    return [name for name in row if not same(row[name], written.get(name))]


def written_fields(entry: LedgerEntry) -> dict[str, Any]:
    """The fields and keys that the ledger stores for an entry."""
    return {**entry.model_dump(mode="json"), "entry_key": entry.key, "account": entry.account_key}


def keys_of(row: Mapping[str, Any]) -> dict[str, str]:
    """The keys that the fields of a stored entry ask for."""
    account = account_key(str(row.get("owner_id")), str(row.get("unit", CREDIT)))
    nonce = stored_nonce(str(row.get("nonce")), row.get("app"))
    return {"entry_key": entry_key(account, nonce), "account": account}


def same(left: Any, right: Any) -> bool:
    """Whether two stored values are equal, their types too: 1 is not True."""
    return type(left) is type(right) and bool(left == right)


def reported(value: Any) -> Reported:
    """A stored value in the form that a report has."""
    return value if value is None or type(value) in {int, str} else json.dumps(value)


def _exact_time(text: Any) -> datetime | None:
    """The time of a text that the ledger wrote; None for any other value."""
    try:
        time = INSTANT.validate_python(text)
    except ValidationError:
        return None
    return time if same(text, format_time(time)) else None
