"""One owner's account as it stands, the entry that comes next in it, and what that changes."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple, Self

from ledger_core.fields import TIME_STEP_MIN, Instant, format_time, in_utc
from ledger_core.keys import CREDIT, account_key
from ledger_core.models import FORMAT_VERSION, LedgerEntry, OperationRequest, hash_of

__all__ = ["GENESIS_HASH", "Account", "AccountChange", "Head", "Mark"]

GENESIS_HASH = "0" * 64
NO_MARKS: Mapping[str, str] = MappingProxyType({})


class Mark(NamedTuple):
    """A note on an account: the last period for which a schedule posted something. It never goes
    back."""

    name: str
    period: str

    def is_overtaken(self, marks: Mapping[str, str]) -> bool:
        """Whether these marks are of a later period."""
        return marks.get(self.name, "") > self.period


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """What a fold over an account's entries gives; receipts and exports hold it.

    `entry_count` is the last entry's id, `updated_at` its time (None: there is no entry).
    """

    owner_id: str
    unit: str = CREDIT
    balance: int = 0
    entry_count: int = 0
    head_hash: str = GENESIS_HASH
    updated_at: Instant | None = None

    @property
    def key(self) -> str:
        """The key of its account."""
        return account_key(self.owner_id, self.unit)

    @classmethod
    def at(cls, entry: LedgerEntry) -> Self:
        """The head once `entry` is the last one."""
        return cls(
            owner_id=entry.owner_id,
            unit=entry.unit,
            balance=entry.balance_after,
            entry_count=entry.id,
            head_hash=entry.hash,
            updated_at=entry.created_at,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """A whole row of the accounts table: what an owner has in one unit.

    Without an entry, all but `owner_id` and `unit` has its default.
    """

    owner_id: str
    unit: str = CREDIT
    balance: int = 0
    entry_count: int = 0
    head_hash: str = GENESIS_HASH
    created_at: datetime | None = None
    """When its first entry was posted."""
    updated_at: datetime | None = None
    """When its last entry was posted."""
    active_at: datetime | None = None
    """When the last entry was posted for the owner, other than by a schedule."""
    marks: Mapping[str, str] = field(default_factory=lambda: NO_MARKS)
    """The last period of each scheduled operation, by operation and kind of period."""

    @property
    def key(self) -> str:
        """Its key in the accounts table."""
        return account_key(self.owner_id, self.unit)

    @property
    def head(self) -> Head:
        """What a fold over its entries has to give."""
        return Head(
            owner_id=self.owner_id,
            unit=self.unit,
            balance=self.balance,
            entry_count=self.entry_count,
            head_hash=self.head_hash,
            updated_at=self.updated_at,
        )

    def is_at(self, other: "Account") -> bool:
        """Whether both have the same last entry."""
        return (self.entry_count, self.head_hash) == (other.entry_count, other.head_hash)

    def next_entry(
        self, request: OperationRequest, *, amount: int, now: datetime, app: str | None = None
    ) -> LedgerEntry:
        """The entry that `request` adds; later than the last entry, whatever the clock says."""
        time = in_utc(now if self.updated_at is None else max(now, self.updated_at + TIME_STEP_MIN))
        fields: dict[str, Any] = {
            "v": FORMAT_VERSION,
            "id": self.entry_count + 1,
            "operation": str(request.operation),
            "owner_id": request.owner_id,
            "amount": amount,
            "nonce": request.nonce,
            "created_at": time,
            "updated_at": time,
            "balance_after": self.balance + amount,
            "prev_hash": self.head_hash,
        }
        if request.metadata:
            fields["metadata"] = dict(request.metadata)
        if self.unit != CREDIT:
            fields["unit"] = self.unit
        if app is not None:
            fields["app"] = app
        written = dict.fromkeys(("created_at", "updated_at"), format_time(time))
        # Each field has been validated.
        return LedgerEntry.model_construct(**fields, hash=hash_of(fields | written))

    def after(
        self, entry: LedgerEntry, *, mark: Mark | None = None, is_active: bool = True
    ) -> "Account":
        """The account once `entry` is the last one.

        Args:
            mark: what to note with it.
            is_active: whether the entry is a sign of life of the owner; what a schedule posts is
                not.
        """
        return replace(
            self,
            balance=entry.balance_after,
            entry_count=entry.id,
            head_hash=entry.hash,
            created_at=self.created_at or entry.created_at,
            updated_at=entry.created_at,
            active_at=entry.created_at if is_active or self.active_at is None else self.active_at,
            marks={**self.marks, mark.name: mark.period} if mark else self.marks,
        )


class AccountChange(NamedTuple):
    """Entries to append to one account, each upon the one before it, and the account before and
    after them."""

    entries: tuple[LedgerEntry, ...]
    before: Account
    after: Account
