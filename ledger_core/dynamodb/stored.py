"""What is stored, as it is: heads and entries whatever is in them, and what can be made of them.

An audit reads these, because the ledger's own models would refuse what was written past the ledger.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError

from ledger_core.account import Head
from ledger_core.fields import Instant, format_time
from ledger_core.models import LedgerEntry

__all__ = ["HEAD_FIELDS", "StoredHead", "Told", "respelt", "same", "told", "unknown_fields"]

HEAD_FIELDS = ("balance", "entry_count", "head_hash", "updated_at")
TIMES = ("created_at", "updated_at")
INSTANT: TypeAdapter[datetime] = TypeAdapter(Instant)

Told = int | str | None


@dataclass(frozen=True, slots=True)
class StoredHead:
    """An owner's row of the balances, as it is; `fields` also has those that this version does not know."""

    owner_id: str
    fields: Mapping[str, Any]

    @classmethod
    def of(cls, head: Head) -> Self:
        """What is stored of a head."""
        updated_at = format_time(head.updated_at) if head.updated_at else None
        values = head.balance, head.entry_count, head.head_hash, updated_at
        return cls(head.owner_id, dict(zip(HEAD_FIELDS, values, strict=True)))

    @property
    def unknown(self) -> list[str]:
        """Fields that are those of another format."""
        return sorted(set(self.fields) - set(HEAD_FIELDS))

    @property
    def updated_at(self) -> str | None:
        """The text that it has for its time, if it is a text."""
        return text if isinstance(text := self.fields.get("updated_at"), str) else None

    def head(self) -> Head | None:
        """The head that this is; None: it is none."""
        head = self.nearest(Head(owner_id=self.owner_id))
        stored = StoredHead.of(head).fields
        whole = all(same(self.fields.get(name), stored[name]) for name in HEAD_FIELDS)
        return head if whole and not self.unknown else None

    def nearest(self, other: Head) -> Head:
        """This head, with what another has for each field that is not what it should be."""
        balance, entry_count, head_hash = (self.fields.get(name) for name in HEAD_FIELDS[:3])
        updated_at = self.fields.get("updated_at")
        return Head(
            owner_id=self.owner_id,
            balance=balance if type(balance) is int else other.balance,
            entry_count=entry_count if type(entry_count) is int else other.entry_count,
            head_hash=head_hash if isinstance(head_hash, str) else other.head_hash,
            updated_at=None if updated_at is None else _exact_time(updated_at) or other.updated_at,
        )


def unknown_fields(row: Any) -> list[str]:
    """Fields of a stored entry that are those of another format."""
    return sorted(set(row) - set(LedgerEntry.model_fields)) if isinstance(row, dict) else []


def respelt(row: Mapping[str, Any], entry: LedgerEntry) -> list[str]:
    """The times of a stored entry that are not the text that was written, though they mean the same."""
    return [name for name in TIMES if not same(row[name], format_time(getattr(entry, name)))]


def same(one: Any, other: Any) -> bool:
    """Whether two stored values are, their types too: a 1 is no True."""
    return type(one) is type(other) and bool(one == other)


def told(value: Any) -> Told:
    """A stored value as a report has it."""
    return value if value is None or type(value) in {int, str} else json.dumps(value)


def _exact_time(text: Any) -> datetime | None:
    try:
        time = INSTANT.validate_python(text)
    except ValidationError:
        return None
    return time if same(text, format_time(time)) else None
