"""What goes in and what is kept: requests and entries."""

import hashlib
from collections.abc import Mapping
from enum import StrEnum
from json import JSONEncoder
from operator import not_
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, WithJsonSchema

from ledger_core.fields import Instant, Magnitude, Metadata, Nonce, OwnerId
from ledger_core.keys import CREDIT, account_key, entry_key, stored_nonce

__all__ = ["FORMAT_VERSION", "LedgerEntry", "OperationRequest", "hash_of"]

FORMAT_VERSION = 1
"""Of an entry, as it is stored, hashed and exported."""

# For strings, small integers and ASCII keys, which is all an entry holds, this is RFC 8785's
# canonical JSON.
CANONICAL = JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True)


AppName = Annotated[StrictStr | None, WithJsonSchema({"type": "string"})]
"""None: an app without a name. In JSON it is then absent, never null."""


class OperationRequest(BaseModel):
    """An operation that somebody wants posted; that it exists means that its fields are well
    formed.

    `operation` is a member of the app's StrEnum, so that a misspelt one does not pass mypy.
    `amount` is a magnitude in credits, for operations that let the caller choose it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    owner_id: OwnerId
    operation: StrEnum
    nonce: Nonce
    amount: Magnitude | None = None
    metadata: Metadata = {}


class LedgerEntry(BaseModel):
    """One immutable line of an account, in format 1.

    `id` counts the account's entries from 1. `amount` (signed) and `balance_after` are in `unit`.
    `app` is the app that posted it, `nonce` the nonce that the app gave. Absent in JSON are `unit`
    when it is CREDIT, `app` when the app has no name, and empty `metadata`.

    `hash` is the hex SHA-256 of the entry's own JSON without `hash`, in the canonical form of
    RFC 8785 (keys sorted, no spaces). `prev_hash` is the hash of the entry before, 64 zeros in the
    first: a change to one entry shows in every later entry.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    # Absent fields have factories: a default would be in the JSON schema, as if it were sent.
    v: Literal[1]
    id: StrictInt
    operation: StrictStr
    owner_id: StrictStr
    unit: StrictStr = Field(default_factory=lambda: CREDIT, exclude_if=CREDIT.__eq__)
    app: AppName = Field(default_factory=lambda: None, exclude_if=lambda app: app is None)
    amount: StrictInt
    nonce: StrictStr
    created_at: Instant
    updated_at: Instant
    balance_after: StrictInt
    metadata: dict[StrictStr, StrictStr] = Field(default_factory=dict, exclude_if=not_)
    prev_hash: StrictStr
    hash: StrictStr

    @property
    def account_key(self) -> str:
        """The key of its account."""
        return account_key(self.owner_id, self.unit)

    @property
    def stored_nonce(self) -> str:
        """Its nonce as its key holds it."""
        return stored_nonce(self.nonce, self.app)

    @property
    def key(self) -> str:
        """Its own key."""
        return entry_key(self.account_key, self.stored_nonce)

    def computed_hash(self) -> str:
        """The hash that the entry's other fields ask for; differs from `hash` when the entry was
        tampered with."""
        return hash_of(self.model_dump(exclude={"hash"}))

    def answers(self, request: OperationRequest, *, amount: int) -> bool:
        """Whether `request` asks for what this entry did."""
        return (self.operation, self.amount, self.metadata) == (
            request.operation,
            amount,
            request.metadata,
        )


def hash_of(fields: Mapping[str, Any]) -> str:
    """The hex SHA-256 of the canonical JSON of an entry's fields without `hash`."""
    return hashlib.sha256(CANONICAL.encode(fields).encode()).hexdigest()
