"""An owner's ledger as it stands: its head, and what is noted beside it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Self

from ledger_core.fields import TIME_STEP_MIN, Instant, format_time, in_utc
from ledger_core.models import LedgerEntry, OperationRequest, hash_of

__all__ = ["GENESIS_HASH", "Account", "Head", "Mark", "entry_after"]

GENESIS_HASH = "0" * 64


class Mark(NamedTuple):
    """A note on an owner's balance: the last period for which something was posted. It never goes back."""

    name: str
    period: str

    def is_overtaken(self, marks: Mapping[str, str]) -> bool:
        """Whether these are of a later period."""
        return marks.get(self.name, "") > self.period


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """Where an owner's ledger stands: `entry_count` is the last entry's id, `updated_at` its time (None: no entry)."""

    owner_id: str
    balance: int = 0
    entry_count: int = 0
    head_hash: str = GENESIS_HASH
    updated_at: Instant | None = None

    @classmethod
    def at(cls, entry: LedgerEntry) -> Self:
        """The head once `entry` is the last one."""
        return cls(
            owner_id=entry.owner_id,
            balance=entry.balance_after,
            entry_count=entry.id,
            head_hash=entry.hash,
            updated_at=entry.created_at,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """A whole row of the balances table: an owner's head, and what is noted beside it."""

    head: Head
    created_at: datetime | None
    """When its first entry was posted."""
    active_at: datetime | None
    """When the last entry was posted for it, other than by a schedule."""
    marks: Mapping[str, str]
    """The last period of each scheduled operation, by operation and kind of period."""


def entry_after(head: Head, request: OperationRequest, *, amount: int, now: datetime) -> LedgerEntry:
    """The entry that `request` adds on top of `head`; later than the last one even if the clock says otherwise."""
    time = in_utc(now if head.updated_at is None else max(now, head.updated_at + TIME_STEP_MIN))
    fields: dict[str, Any] = {
        "id": head.entry_count + 1,
        "operation": str(request.operation),
        "owner_id": request.owner_id,
        "amount": amount,
        "nonce": request.nonce,
        "created_at": time,
        "updated_at": time,
        "balance_after": head.balance + amount,
        "metadata": dict(request.metadata),
        "prev_hash": head.head_hash,
    }
    written = dict.fromkeys(("created_at", "updated_at"), format_time(time))
    return LedgerEntry.model_construct(**fields, hash=hash_of(fields | written))  # of what has been validated
