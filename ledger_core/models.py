"""What goes in and what is kept: requests, entries and heads, with every limit on their fields.

Times are UTC with microseconds, written `2026-11-22T09:30:00.000000Z`: fixed width, so that text sorts as time.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from json import JSONEncoder
from typing import Annotated, Any, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer, StrictInt, StrictStr

from ledger_core.operations import AMOUNT_MAX

__all__ = [
    "BALANCE_MAX",
    "METADATA_BYTES_MAX",
    "METADATA_KEYS_MAX",
    "METADATA_KEY_LENGTH_MAX",
    "NONCE_LENGTH_MAX",
    "NONCE_PREFIXES_RESERVED",
    "NONCE_PREFIX_RESERVED",
    "NONCE_PREFIX_SELF",
    "NONCE_STORED_LENGTH_MAX",
    "OWNER_ID_LENGTH_MAX",
    "Head",
    "Instant",
    "LedgerEntry",
    "Magnitude",
    "Metadata",
    "Nonce",
    "OperationRequest",
    "OwnerId",
    "format_time",
    "owner_hash",
]

OWNER_ID_LENGTH_MAX = 128
NONCE_LENGTH_MAX = 128
NONCE_PREFIX_RESERVED = "ledger:"
NONCE_PREFIX_SELF = "@self:"
"""Before the nonce of what an owner posts itself, so that it takes none of an application's."""
NONCE_PREFIXES_RESERVED = (NONCE_PREFIX_RESERVED, "@")
"""What no caller's nonce begins with."""
NONCE_STORED_LENGTH_MAX = len(NONCE_PREFIX_SELF) + NONCE_LENGTH_MAX
METADATA_KEYS_MAX = 16
METADATA_KEY_LENGTH_MAX = 64
METADATA_BYTES_MAX = 1024
"""Of all keys and values together, in UTF-8."""
BALANCE_MAX = 2**53 - 1
"""The largest integer that every JSON reader keeps exact."""

YEAR_MIN = 1969
YEAR_MAX = 9999
"""Exclusive, of every instant."""

GENESIS_HASH = "0" * 64
# For strings, small integers and ASCII keys, which is all an entry holds, this is RFC 8785's canonical JSON.
CANONICAL = JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True)
TIME_STEP_MIN = timedelta(microseconds=1)


def format_time(time: datetime) -> str:
    """A UTC time as fixed-width text that sorts as time."""
    return time.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def owner_hash(owner_id: str) -> str:
    """What logs know an owner by: the first 16 hex digits of the id's SHA-256."""
    return hashlib.sha256(owner_id.encode()).hexdigest()[:16]


def _in_utc(time: datetime) -> datetime:
    if not YEAR_MIN < time.year < YEAR_MAX:  # with a year to spare for the offset
        raise ValueError(f"must lie between the years {YEAR_MIN} and {YEAR_MAX}")
    return time.astimezone(UTC)


def _printable(text: str) -> str:
    if not text.isprintable() or "\ufffd" in text:  # which is what decoders put for bytes that are no text
        raise ValueError("must not hold control, format or unassigned characters")
    return text


def _not_a_path_step(owner_id: str) -> str:
    if owner_id in {".", ".."}:
        raise ValueError("must not be a step of a path")
    return owner_id


def _not_reserved(nonce: str) -> str:
    if nonce.startswith(NONCE_PREFIXES_RESERVED):
        raise ValueError(
            f"must not begin with {' or '.join(NONCE_PREFIXES_RESERVED)}, which the ledger keeps for itself"
        )
    return nonce


def _small(metadata: dict[str, str]) -> dict[str, str]:
    try:
        size = sum(len(text.encode()) for item in metadata.items() for text in item)
    except UnicodeEncodeError:
        raise ValueError("must not hold lone surrogates") from None
    if size > METADATA_BYTES_MAX:
        raise ValueError(f"must not exceed {METADATA_BYTES_MAX} bytes, keys and values together")
    return metadata


Instant = Annotated[
    AwareDatetime,
    AfterValidator(_in_utc),
    PlainSerializer(format_time),
    Field(json_schema_extra={"format": "date-time"}),
]

OwnerId = Annotated[
    str,
    # A nonce may hold '#', an owner may not, so `owner_id#nonce` names one pair only; the rest keep URLs unambiguous.
    Field(min_length=1, max_length=OWNER_ID_LENGTH_MAX, pattern=r"^[^\s#/?%\\]+$", strict=True),
    AfterValidator(_printable),
    AfterValidator(_not_a_path_step),
]

Nonce = Annotated[
    str,
    Field(min_length=1, max_length=NONCE_LENGTH_MAX, pattern=r"^\S(.*\S)?$", strict=True),
    AfterValidator(_printable),
    AfterValidator(_not_reserved),
]

MetadataKey = Annotated[str, Field(pattern=rf"^[A-Za-z0-9_.:-]{{1,{METADATA_KEY_LENGTH_MAX}}}$", strict=True)]

Magnitude = Annotated[int, Field(ge=1, le=AMOUNT_MAX, strict=True)]

Metadata = Annotated[dict[MetadataKey, StrictStr], Field(max_length=METADATA_KEYS_MAX), AfterValidator(_small)]


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
    """One immutable line of an owner's ledger.

    `id` counts the owner's entries from 1. `amount` (signed) and `balance_after` are in credits. `hash` is the hex
    SHA-256 of the entry's own JSON without `hash`, in the canonical form of RFC 8785 (keys sorted, no spaces), and
    `prev_hash` is the hash of the entry before it, 64 zeros for the first: change one and every later one shows it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    id: StrictInt
    operation: StrictStr
    owner_id: StrictStr
    amount: StrictInt
    nonce: StrictStr
    created_at: Instant
    updated_at: Instant
    balance_after: StrictInt
    metadata: dict[StrictStr, StrictStr]
    prev_hash: StrictStr
    hash: StrictStr

    @classmethod
    def after(cls, head: "Head", request: OperationRequest, *, amount: int, now: datetime) -> Self:
        """The entry that `request` adds on top of `head`; later than the last one even if the clock says otherwise."""
        time = _in_utc(now if head.updated_at is None else max(now, head.updated_at + TIME_STEP_MIN))
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
        return cls.model_construct(**fields, hash=_hash_of(fields | written))  # of what has been validated

    def computed_hash(self) -> str:
        """The hash that the entry's other fields ask for; differs from `hash` when the entry was tampered with."""
        return _hash_of(self.model_dump(exclude={"hash"}))

    def answers(self, request: OperationRequest, *, amount: int) -> bool:
        """Whether `request` asks for what this entry did."""
        return (self.operation, self.amount, self.metadata) == (request.operation, amount, request.metadata)


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


def _hash_of(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(CANONICAL.encode(fields).encode()).hexdigest()
