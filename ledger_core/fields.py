"""The fields of requests and entries, each with its limits.

Times are UTC with microseconds, written `2026-11-22T09:30:00.000000Z`: fixed width, so that text
sorts as time.
"""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, Field, PlainSerializer, StrictStr

__all__ = [
    "AMOUNT_MAX",
    "APP_LENGTH_MAX",
    "APP_PATTERN",
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
    "TIME_STEP_MIN",
    "UNIT_LENGTH_MAX",
    "UNIT_PATTERN",
    "Instant",
    "Magnitude",
    "Metadata",
    "Nonce",
    "OwnerId",
    "format_time",
    "in_utc",
    "owner_hash",
]

AMOUNT_MAX = 1_000_000_000
"""The most credits that one operation may move, either way."""
OWNER_ID_LENGTH_MAX = 128
NONCE_LENGTH_MAX = 128
NONCE_PREFIX_RESERVED = "ledger:"
NONCE_PREFIX_SELF = "@self:"
"""Before the nonce of what an owner posts itself, so that it takes none of an application's."""
NONCE_PREFIXES_RESERVED = (NONCE_PREFIX_RESERVED, "@")
"""What no caller's nonce begins with."""
APP_LENGTH_MAX = 32
APP_PATTERN = rf"^[a-z][a-z0-9-]{{0,{APP_LENGTH_MAX - 1}}}$"
NONCE_STORED_LENGTH_MAX = len("@:") + APP_LENGTH_MAX + NONCE_LENGTH_MAX
UNIT_LENGTH_MAX = 16
UNIT_PATTERN = rf"^[A-Z][A-Z0-9_]{{0,{UNIT_LENGTH_MAX - 1}}}$"
METADATA_KEYS_MAX = 16
METADATA_KEY_LENGTH_MAX = 64
METADATA_BYTES_MAX = 1024
"""Of all keys and values together, in UTF-8."""
BALANCE_MAX = 2**53 - 1
"""The largest integer that every JSON reader keeps exact."""

YEAR_MIN = 1969
YEAR_MAX = 9999
"""Exclusive, of every instant."""

TIME_STEP_MIN = timedelta(microseconds=1)


def format_time(time: datetime) -> str:
    """A UTC time as fixed-width text that sorts as time."""
    return time.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def owner_hash(owner_id: str) -> str:
    """What logs know an owner by: the first 16 hex digits of the id's SHA-256."""
    return hashlib.sha256(owner_id.encode()).hexdigest()[:16]


def in_utc(time: datetime) -> datetime:
    """The same instant in UTC; ValueError outside of the years that an instant may lie in."""
    if not YEAR_MIN < time.year < YEAR_MAX:  # with a year to spare for the offset
        raise ValueError(f"must lie between the years {YEAR_MIN} and {YEAR_MAX}")
    return time.astimezone(UTC)


def _printable(text: str) -> str:
    # Decoders put U+FFFD in the place of bytes that are no text.
    if not text.isprintable() or "\ufffd" in text:
        raise ValueError("must not hold control, format or unassigned characters")
    return text


def _not_a_path_step(owner_id: str) -> str:
    if owner_id in {".", ".."}:
        raise ValueError("must not be a step of a path")
    return owner_id


def _not_reserved(nonce: str) -> str:
    if nonce.startswith(NONCE_PREFIXES_RESERVED):
        raise ValueError(
            f"must not begin with {' or '.join(NONCE_PREFIXES_RESERVED)}, "
            "which the ledger keeps for itself"
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
    AfterValidator(in_utc),
    PlainSerializer(format_time),
    Field(json_schema_extra={"format": "date-time"}),
]

OwnerId = Annotated[
    str,
    # A nonce may hold '#', an owner may not, so `owner_id#nonce` names one pair only; the rest keep
    # URLs unambiguous.
    Field(
        min_length=1,
        max_length=OWNER_ID_LENGTH_MAX,
        pattern=r"^[^\s#/?%\\]+$",
        strict=True,
        description="Whose ledger it is: the id that the app knows its user by.",
        examples=["ada"],
    ),
    AfterValidator(_printable),
    AfterValidator(_not_a_path_step),
]

Nonce = Annotated[
    str,
    Field(
        min_length=1,
        max_length=NONCE_LENGTH_MAX,
        pattern=r"^\S(.*\S)?$",
        strict=True,
        description="Names the request: the ledger accepts a nonce once for each owner. "
        "Send the same nonce again when an answer got lost.",
        examples=["order-1001"],
    ),
    AfterValidator(_printable),
    AfterValidator(_not_reserved),
]

MetadataKey = Annotated[
    str, Field(pattern=rf"^[A-Za-z0-9_.:-]{{1,{METADATA_KEY_LENGTH_MAX}}}$", strict=True)
]

Magnitude = Annotated[
    int,
    Field(
        ge=1,
        le=AMOUNT_MAX,
        strict=True,
        description="How many credits, without a sign: the operation says whether they are added "
        "or taken. Only for operations that let the caller choose.",
        examples=[5],
    ),
]

Metadata = Annotated[
    dict[MetadataKey, StrictStr],
    Field(
        max_length=METADATA_KEYS_MAX,
        description="What the app wants to know about the entry later. "
        "The ledger keeps it and never reads it.",
        examples=[{"order_id": "1001"}],
    ),
    AfterValidator(_small),
]
