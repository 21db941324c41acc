"""What goes in and what is kept: requests and entries."""

import hashlib
from collections.abc import Mapping
from enum import StrEnum
from json import JSONEncoder
from operator import not_
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr

from ledger_core.fields import Instant, Magnitude, Metadata, Nonce, OwnerId

__all__ = ["FORMAT_VERSION", "LedgerEntry", "OperationRequest", "hash_of"]

FORMAT_VERSION = 1
"""Of an entry, as it is stored, hashed and exported."""

# For strings, small integers and ASCII keys, which is all an entry holds, this is RFC 8785's canonical JSON.
CANONICAL = JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True)


class OperationRequest(BaseModel):
    """An operation that somebody wants posted; that it exists means that its fields are well formed.

    `operation` is a member of the app's StrEnum, so that a misspelt one does not pass mypy. `amount` is a magnitude in
    credits, for operations that let the caller choose it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    owner_id: OwnerId
    operation: StrEnum
    nonce: Nonce
    amount: Magnitude | None = None
    metadata: Metadata = {}


class LedgerEntry(BaseModel):
    """One immutable line of an owner's account, in format 1.

    `id` counts the account's entries from 1. `amount` (signed) and `balance_after` are in credits. `metadata` is absent
    when it is empty. `hash` is the hex SHA-256 of the entry's own JSON without `hash`, in the canonical form of
    RFC 8785 (keys sorted, no spaces), and `prev_hash` is the hash of the entry before it, 64 zeros for the first:
    change one and every later one shows it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    v: Literal[1]
    id: StrictInt
    operation: StrictStr
    owner_id: StrictStr
    amount: StrictInt
    nonce: StrictStr
    created_at: Instant
    updated_at: Instant
    balance_after: StrictInt
    metadata: dict[StrictStr, StrictStr] = Field(default_factory=dict, exclude_if=not_)
    prev_hash: StrictStr
    hash: StrictStr

    def computed_hash(self) -> str:
        """The hash that the entry's other fields ask for; differs from `hash` when the entry was tampered with."""
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
