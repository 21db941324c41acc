"""The bodies of requests and answers, besides the entry itself, and the two places of a nonce."""

import re
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Annotated, Any, Literal

from fastapi import Query
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
from ledger_core.fields import APP_PATTERN, UNIT_PATTERN, Instant, Metadata, Nonce
from ledger_core.http.field_descriptions import HEADERS
from ledger_core.models import LedgerEntry, OperationRequest

__all__ = [
    "IDEMPOTENCY_KEY",
    "REPLAYED",
    "UNKNOWN_OPERATION",
    "Balance",
    "Health",
    "History",
    "Operation",
    "Operations",
    "QueryApp",
    "QueryInstant",
    "QueryUnit",
    "SignedReceipt",
    "entry_request",
    "idempotency_key",
    "nonce_of",
]

REPLAYED: dict[int | str, dict[str, Any]] = {
    200: {
        "headers": {
            "Idempotency-Replayed": {
                "description": HEADERS["idempotency-replayed"],
                "schema": {"type": "string", "const": "true"},
            }
        }
    }
}
"""The `responses` of a route whose answer may be the answer of an earlier request."""
IDEMPOTENCY_KEY: dict[str, Any] = {
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
"""The `openapi_extra` of a route that takes its nonce in the header. `idempotency_key` reads the
header, because FastAPI would hide that it was sent twice."""

UNKNOWN_OPERATION = "unknown_operation"
"""The type of a validation error: the app has no operation of that name."""
NONCE: TypeAdapter[str] = TypeAdapter(Nonce)
QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
"""A string in the syntax of RFC 8941."""
RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d+)?)?([Zz]|[+-]\d\d:\d\d)")


def _check_rfc_3339(value: Any) -> Any:
    # Pydantic would read "5" as seconds since 1970.
    if isinstance(value, str) and not RFC_3339.fullmatch(value):
        example = "2026-11-22T09:30:00Z"
        raise ValueError(f"must be a time with its offset, as {example}; in a URL, write + as %2B")
    return value


QueryInstant = Annotated[Instant, BeforeValidator(_check_rfc_3339)]
QueryUnit = Annotated[str, Query(pattern=UNIT_PATTERN)]
QueryApp = Annotated[str, Query(pattern=APP_PATTERN)]


def _empty_if_null(value: Any) -> Any:
    return {} if value is None else value


def entry_request(operations: Iterable[StrEnum]) -> type[OperationRequest]:
    """The model of the body of POST /ledger/entry: a request for a processor of `operations`.

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
    """An account after `entry_count` entries, the last of which is of `updated_at`."""

    model_config = ConfigDict(from_attributes=True)

    owner_id: str
    unit: str
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
    """A page of entries, newest first. `next_cursor` opens the next page; null on the last page."""

    entries: list[LedgerEntry]
    next_cursor: str | None


class Operation(BaseModel):
    """An operation that the app takes. Its `magnitude_*` are null if its amount is fixed."""

    operation: str
    amount: int
    magnitude_min: int | None
    magnitude_max: int | None
    self_service: bool
    unit: str


class Operations(BaseModel):
    """Every operation that the app takes."""

    operations: list[Operation]


def idempotency_key(keys: Sequence[str]) -> str | None:
    """The `Idempotency-Key` of a request; None if it has no such header.

    Raises:
        InvalidRequestError: the header was sent twice. A server hands on two lines; API Gateway
            joins them with a comma.
    """
    if len(keys) > 1 or any("," in key for key in keys):
        raise InvalidRequestError("Idempotency-Key: was sent twice or holds a comma; send one key")
    return keys[0].strip(" \t") if keys else None


def nonce_of(in_body: str | None, in_header: str | None) -> str:
    """The nonce of a request. In the header it may stand in quotes, as the draft standard says.

    Raises:
        InvalidRequestError: there is no nonce, it is malformed, or the two places differ.
    """
    if in_header is None:
        if in_body is None:
            raise InvalidRequestError("nonce: is missing; send it, or an Idempotency-Key header")
        return in_body
    nonce = _nonce_in(in_header)
    if in_body not in {None, nonce}:
        raise InvalidRequestError("nonce: differs from the Idempotency-Key header; send either")
    return nonce


def _nonce_in(header: str) -> str:
    quoted = QUOTED.fullmatch(header)
    if not header.isascii() or ('"' in header and not quoted):
        raise InvalidRequestError("Idempotency-Key: is malformed; send ASCII, in quotes or not")
    text = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else header
    try:
        return NONCE.validate_python(text)
    except ValidationError as error:
        raise InvalidRequestError(f"Idempotency-Key: {error.errors()[0]['msg']}") from None
