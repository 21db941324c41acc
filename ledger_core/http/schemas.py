"""What the ledger takes and gives over HTTP, besides entries themselves."""

import re
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictStr,
    TypeAdapter,
    ValidationError,
    create_model,
)
from pydantic_core import PydanticCustomError

from ledger_core.errors import InvalidRequestError
from ledger_core.fields import Instant, Metadata, Nonce
from ledger_core.http.field_descriptions import HEADERS
from ledger_core.models import LedgerEntry, OperationRequest

__all__ = [
    "KEYED",
    "REPLAYABLE",
    "UNKNOWN_OPERATION",
    "Balance",
    "Health",
    "History",
    "Operation",
    "Operations",
    "QueryInstant",
    "SignedReceipt",
    "entry_request",
    "one_nonce",
    "sent_once",
]

REPLAYABLE: dict[int | str, dict[str, Any]] = {
    200: {
        "headers": {
            "Idempotency-Replayed": {
                "description": HEADERS["idempotency-replayed"],
                "schema": {"type": "string", "const": "true"},
            }
        }
    }
}
"""For the OpenAPI document: an answer may be one that was given before."""
KEYED: dict[str, Any] = {
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "description": "The nonce, in quotes or without; sent once, and without a comma.",
            "required": False,
            "schema": {"type": "string", "minLength": 1},
        }
    ]
}
"""For the OpenAPI document: the header that a nonce may come in, which is read where repetitions show."""

UNKNOWN_OPERATION = "unknown_operation"
"""The type of a validation error: the app has no operation of that name."""
NONCE: TypeAdapter[str] = TypeAdapter(Nonce)
QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
"""A string as RFC 8941 writes it."""
RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d+)?)?([Zz]|[+-]\d\d:\d\d)")


def _written_as_time(value: Any) -> Any:
    if isinstance(value, str) and not RFC_3339.fullmatch(value):  # pydantic would take "5" for an epoch
        raise ValueError("must be a time with its offset, as in 2026-11-22T09:30:00Z; in a URL, write + as %2B")
    return value


QueryInstant = Annotated[Instant, BeforeValidator(_written_as_time)]


def _empty_if_null(value: Any) -> Any:
    return {} if value is None else value


def entry_request(operations: Iterable[StrEnum]) -> type[OperationRequest]:
    """The model of the body of POST /ledger/entry: the request that a processor of `operations` takes.

    Only its nonce may be missing, because it may come in the `Idempotency-Key` header instead.
    """
    by_name = {str(operation): operation for operation in operations}
    names = ", ".join(by_name)

    def member(name: str) -> StrEnum:
        if name not in by_name:
            raise PydanticCustomError(UNKNOWN_OPERATION, f"must be one of {names}")
        return by_name[name]

    named = Field(json_schema_extra={"enum": list(by_name)})
    return create_model(
        "EntryRequest",
        __base__=OperationRequest,
        __doc__="An operation to post. The nonce goes here or in the `Idempotency-Key` header.",
        operation=(Annotated[StrictStr, named, AfterValidator(member)], ...),
        nonce=(Nonce | None, None),
        metadata=(Annotated[Metadata, BeforeValidator(_empty_if_null)], {}),
    )


class Balance(BaseModel):
    """What an owner has, in credits, after `entry_count` entries, the last of them at `updated_at`."""

    model_config = ConfigDict(from_attributes=True)

    owner_id: str
    balance: int
    entry_count: int
    updated_at: Instant | None


class SignedReceipt(BaseModel):
    """A receipt, as a compact JWS."""

    receipt: str


class Health(BaseModel):
    """What a process says that answers."""

    status: Literal["ok"] = "ok"


class History(BaseModel):
    """One page of entries, newest first; `next_cursor` opens the next one, null at the end."""

    entries: list[LedgerEntry]
    next_cursor: str | None


class Operation(BaseModel):
    """One operation that the app takes; `magnitude_*` are null where its amount is fixed."""

    operation: str
    amount: int
    magnitude_min: int | None
    magnitude_max: int | None
    self_service: bool


class Operations(BaseModel):
    """Every operation that the app takes."""

    operations: list[Operation]


def sent_once(keys: Sequence[str]) -> str | None:
    """The one `Idempotency-Key` of a request, None without any.

    Raises:
        InvalidRequestError: there are several, as lines, or joined by a comma, as API Gateway hands them on.
    """
    if len(keys) > 1 or any("," in key for key in keys):
        raise InvalidRequestError("Idempotency-Key: must be sent once, and hold no comma")
    return keys[0].strip(" \t") if keys else None


def one_nonce(in_body: str | None, in_header: str | None) -> str:
    """The one nonce of a request. The header's may stand in quotes, as its draft standard has it, or without."""
    if in_header is None:
        if in_body is None:
            raise InvalidRequestError("nonce: is missing; send it in the body, or as the Idempotency-Key header")
        return in_body
    quoted = QUOTED.fullmatch(in_header)
    if not in_header.isascii() or ('"' in in_header and not quoted):
        raise InvalidRequestError("Idempotency-Key: must be ASCII, and quoted whole or without quotes")
    try:
        nonce = NONCE.validate_python(re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else in_header)
    except ValidationError as error:
        raise InvalidRequestError(f"Idempotency-Key: {error.errors()[0]['msg']}") from None
    if in_body not in {None, nonce}:
        raise InvalidRequestError("nonce: differs from the Idempotency-Key header; send one of them")
    return nonce
