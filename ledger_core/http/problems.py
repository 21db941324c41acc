"""Every failure as a problem (RFC 9457): the ledger's own, an app's, and those of HTTP itself.

Each problem has `code`, `state` and `request_id`. It names the fields that are wrong, and never
repeats their values. The code and the state go to the request's log line too.
"""

import logging
import re
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ledger_core.errors import (
    DuplicateNonceError,
    InsufficientBalanceError,
    LedgerError,
    RequestState,
    UnknownFormatError,
)
from ledger_core.http.request_context import RequestContext, context_of

__all__ = [
    "CODE",
    "ERRORS_MAX",
    "HEADERS",
    "INTERNAL",
    "PROBLEM_MEDIA_TYPE",
    "REQUEST_ID_HEADER",
    "TITLES",
    "fault_problem",
    "handle_errors",
    "is_json",
    "ledger_problem",
    "unreadable_problem",
]

PROBLEM_MEDIA_TYPE = "application/problem+json"
REQUEST_ID_HEADER = b"x-request-id"
"""The header of every answer with the request's id."""
RETRY_AFTER_SECONDS = 1
ERRORS_MAX = 10
"""The most errors that a 422 names."""
INTERNAL = "internal"
"""The code of every fault. Only the log says what failed."""
NEWER_FORMAT = "A newer version of the ledger wrote this; upgrade this deployment."
BODY_UNREADABLE = "There was an error parsing the body"
"""What FastAPI says, with a status of 400, of a body that it cannot read at all."""

CODE: Mapping[int, str] = {
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
    422: "invalid",
    500: INTERNAL,
}
"""The code of an HTTPException, by its status. For any other status it is the title, as `gone`."""
STATE: Mapping[int, RequestState] = {
    400: RequestState.VALIDATING,
    401: RequestState.RECEIVED,
    403: RequestState.RECEIVED,
    404: RequestState.RECEIVED,
    405: RequestState.RECEIVED,
    413: RequestState.RECEIVED,
    415: RequestState.RECEIVED,
    422: RequestState.VALIDATING,
}
"""The state in which an HTTPException fails, by its status; `Processing` for any other status."""

TITLES: Mapping[int, str] = {
    400: "Bad Request",
    401: "Unauthorized",
    402: "Payment Required",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    408: "Request Timeout",
    409: "Conflict",
    410: "Gone",
    411: "Length Required",
    412: "Precondition Failed",
    413: "Content Too Large",
    414: "URI Too Long",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
"""As in RFC 9110: Python's titles change with its version. Any other status is an `Error`."""

HEADERS: Mapping[int, Mapping[str, str]] = {
    401: {"www-authenticate": "Bearer"},
    503: {"retry-after": str(RETRY_AFTER_SECONDS)},
}
"""Headers of an answer, by its status; an app's HTTPException may have others instead."""

JSON = re.compile(r"(application/(.+\+)?json)?")

logger = logging.getLogger(__name__)


def handle_errors(api: FastAPI) -> None:
    """Answer every error of `api` with its problem."""
    api.add_exception_handler(LedgerError, ledger_problem)
    api.add_exception_handler(RequestValidationError, _validation_problem)
    api.add_exception_handler(HTTPException, _http_problem)
    api.add_exception_handler(Exception, _fault_problem)


def is_json(request: Request) -> bool:
    """True if the request declares its body to be JSON, or declares no type."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return JSON.fullmatch(media_type) is not None


async def ledger_problem(request: Request, error: Exception) -> JSONResponse:
    """The problem of a LedgerError: its status, code, state and message."""
    assert isinstance(error, LedgerError)
    context = context_of(request.scope)
    if isinstance(error, DuplicateNonceError):
        return _duplicate_problem(context, error)
    if isinstance(error, InsufficientBalanceError):
        return _insufficient_problem(context, error)
    if isinstance(error, UnknownFormatError):
        _log_fault(context, error)  # its message names attributes of the tables
        return _problem(context, error.status, error.code, error.state, NEWER_FORMAT)
    if error.status == 500:
        return fault_problem(request, error)
    return _problem(context, error.status, error.code, error.state, str(error))


def unreadable_problem(request: Request) -> JSONResponse:
    """The problem of an event that is no HTTP request."""
    detail = "The request cannot be read."
    return _problem(context_of(request.scope), 422, CODE[422], RequestState.RECEIVED, detail)


def fault_problem(request: Request, error: Exception) -> JSONResponse:
    """The problem of a fault of the ledger or of the app, which is written to the log."""
    context = context_of(request.scope)
    state = error.state if isinstance(error, LedgerError) else RequestState.PROCESSING
    _log_fault(context, error)
    detail = "request: the ledger failed; give its operator the request_id"
    return _problem(context, 500, INTERNAL, state, detail)


def _log_fault(context: RequestContext, error: Exception) -> None:
    logger.error(
        "request_id=%s failed",
        context.request_id,
        exc_info=error,
        extra={"request_id": context.request_id},
    )


def _duplicate_problem(context: RequestContext, error: DuplicateNonceError) -> JSONResponse:
    detail = str(error)
    members: dict[str, Any] = {"replay": error.replay}
    if _may_read(context):
        members["entry"] = error.entry.model_dump(mode="json")
    else:
        same = "the same" if error.replay else "a different"
        detail = f"The nonce was used, for {same} request."
    status = error.status
    if context.nonce_in_header:
        status = 422  # the convention of Idempotency-Key when another request has a used key
    return _problem(context, status, error.code, error.state, detail, members)


def _insufficient_problem(context: RequestContext, error: InsufficientBalanceError) -> JSONResponse:
    detail = str(error)
    members: dict[str, Any] = {"required": error.required}
    if _may_read(context):
        members["balance"] = error.balance
    else:
        detail = f"The operation takes {error.required} credits and the balance is less."
    return _problem(context, error.status, error.code, error.state, detail, members)


def _may_read(context: RequestContext) -> bool:
    """True if the caller may read the account: only then does a refusal name its balance."""
    # Without an owner, only a caller who may read any account may read it.
    owner_id = context.owner_id or ""
    return context.caller is not None and context.caller.may_read(owner_id)


async def _validation_problem(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    context = context_of(request.scope)
    found = error.errors()
    if any(e["loc"][0] == "body" for e in found) and not is_json(request):
        detail = "The body must be JSON, with Content-Type: application/json."
        return _problem(context, 415, CODE[415], RequestState.RECEIVED, detail)
    errors = [{"field": _field(e), "message": _message(e)} for e in found[:ERRORS_MAX]]
    detail = "; ".join(f"{e['field']}: {e['message']}" for e in errors)
    if len(found) > ERRORS_MAX:
        detail += f"; and {len(found) - ERRORS_MAX} more"
    return _problem(context, 422, CODE[422], RequestState.VALIDATING, detail, {"errors": errors})


async def _http_problem(request: Request, error: Exception) -> Response:
    """The answer that an HTTPException means: its status, its detail of any type, its headers."""
    assert isinstance(error, HTTPException)
    context = context_of(request.scope)
    status = error.status_code
    if (status, error.detail) == (400, BODY_UNREADABLE):
        detail = "body: cannot be read; send JSON"
        return _problem(context, 422, CODE[422], RequestState.VALIDATING, detail)
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    if status < 400:
        return Response(status_code=status, headers=headers)
    methods = headers.get("allow", "").split(", ")
    if "GET" in methods:
        headers["allow"] = ", ".join(sorted({"HEAD", *methods}))
    code = CODE.get(status) or _title(status).lower().replace(" ", "_")
    state = STATE.get(status, RequestState.PROCESSING)
    return _problem(context, status, code, state, error.detail, headers=headers)


async def _fault_problem(request: Request, error: Exception) -> JSONResponse:
    return fault_problem(request, error)


def _field(error: Mapping[str, Any]) -> str:
    return "body" if error["type"] == "json_invalid" else ".".join(map(str, error["loc"]))


def _message(error: Mapping[str, Any]) -> str:
    if error["type"] == "string_pattern_mismatch":
        return "Holds characters that are not allowed here"
    return str(error["msg"]).removeprefix("Value error, ")


def _title(status: int) -> str:
    return TITLES.get(status, "Error")


def _problem(
    context: RequestContext,
    status: int,
    code: str,
    state: RequestState,
    detail: Any,
    members: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    context.fail(code, state)
    problem = {
        "title": _title(status),
        "status": status,
        "code": code,
        "state": state,
        "detail": detail,
        "request_id": context.request_id,
        **(members or {}),
    }
    all_headers = {**HEADERS.get(status, {}), **(headers or {})}
    return JSONResponse(problem, status, all_headers, PROBLEM_MEDIA_TYPE)
