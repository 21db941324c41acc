"""Every failure as a problem document (RFC 9457).

Each has `code`, `state` and `request_id`, and names fields without repeating what was in them. The code and the state
are left in the request's state too, for the log.
"""

import logging
import re
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Scope

from ledger_core.errors import DuplicateNonceError, InsufficientBalanceError, LedgerError, RequestState, StoreError
from ledger_core.http.authorization import Caller

__all__ = [
    "CODE",
    "ERRORS_MAX",
    "HEADERS",
    "PROBLEM_MEDIA_TYPE",
    "REQUEST_ID_HEADER",
    "STATUS",
    "TITLES",
    "handle_errors",
    "is_json",
    "ledger_problem",
    "request_id",
    "unforeseen_problem",
    "unreadable_problem",
]

PROBLEM_MEDIA_TYPE = "application/problem+json"
REQUEST_ID_HEADER = b"x-request-id"
"""Of every answer."""
RETRY_AFTER_SECONDS = 1
ERRORS_MAX = 10
"""Errors that one 422 names, however many there are."""

STATUS: Mapping[str, int] = {
    "invalid": 422,
    "unknown_operation": 422,
    "duplicate_nonce": 409,
    "insufficient_balance": 402,
    "unauthorized": 401,
    "forbidden": 403,
    "contention": 503,
    "unavailable": 503,
    "too_long": 422,
    "internal": 500,
}
"""By the code of a LedgerError."""

CODE: Mapping[int, str] = {
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
}
"""By the status of what HTTP itself refuses; `invalid` for any other 4xx."""

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
"""By status, as RFC 9110 has them, for Python's own change with its version; `Error` for any other of an app's."""

HEADERS: Mapping[int, Mapping[str, str]] = {
    401: {"www-authenticate": "Bearer"},
    503: {"retry-after": str(RETRY_AFTER_SECONDS)},
}
"""What goes with an answer, by its status."""

JSON = re.compile(r"(application/(.+\+)?json)?")

logger = logging.getLogger(__name__)


def handle_errors(api: FastAPI) -> None:
    """Answer every error that `api` meets with its problem document."""
    api.add_exception_handler(LedgerError, ledger_problem)
    api.add_exception_handler(RequestValidationError, _validation_problem)
    api.add_exception_handler(HTTPException, _http_problem)
    api.add_exception_handler(Exception, _unforeseen_problem)


def is_json(request: Request) -> bool:
    """Whether the body is declared to be JSON, or nothing."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return JSON.fullmatch(media_type) is not None


async def ledger_problem(request: Request, error: Exception) -> JSONResponse:
    """The problem that a LedgerError is."""
    assert isinstance(error, LedgerError)
    status, detail, more = STATUS[error.code], str(error), dict[str, Any]()
    if isinstance(error, DuplicateNonceError):
        more = {"replay": error.replay}
        if _may_read(request):
            more["entry"] = error.entry.model_dump(mode="json")
        else:
            detail = f"The nonce was used, for {'the same' if error.replay else 'a different'} request."
        if getattr(request.state, "nonce_in_header", False):
            status = 422  # the convention of Idempotency-Key for another request under a used key
    elif isinstance(error, InsufficientBalanceError):
        more = {"required": error.required}
        if _may_read(request):
            more["balance"] = error.balance
        else:
            detail = f"The operation takes {error.required} credits and the balance is less."
    elif isinstance(error, StoreError):
        return unforeseen_problem(request, error)
    return _problem(request, status, error.code, error.state, detail, more)


def unreadable_problem(request: Request) -> JSONResponse:
    """The problem of what cannot even be read as an HTTP request."""
    return _problem(request, 422, "invalid", RequestState.RECEIVED, "The request cannot be read.")


def unforeseen_problem(request: Request, error: Exception) -> JSONResponse:
    """The problem that a fault of the ledger is; the log tells what it was."""
    state = error.state if isinstance(error, LedgerError) else RequestState.PROCESSING
    told = request_id(request.scope)
    logger.error("request_id=%s failed", told, exc_info=error, extra={"request_id": told})
    return _problem(request, 500, "internal", state, "The ledger failed; its log tells why under this request id.")


def _may_read(request: Request) -> bool:
    """Whether the caller may learn of the owner's ledger; who may only write gets no balance from a refusal."""
    caller: Caller = request.state.caller
    return caller.may_read(getattr(request.state, "owner_id", ""))  # "" is nobody: no owner has been named


async def _validation_problem(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    if any(e["loc"][0] == "body" for e in error.errors()) and not is_json(request):
        detail = "The body must be JSON, with Content-Type: application/json."
        return _problem(request, 415, CODE[415], RequestState.RECEIVED, detail)
    found = error.errors()
    errors = [{"field": _field(e), "message": _message(e)} for e in found[:ERRORS_MAX]]
    detail = "; ".join(f"{e['field']}: {e['message']}" for e in errors)
    if len(found) > ERRORS_MAX:
        detail += f"; and {len(found) - ERRORS_MAX} more"
    return _problem(request, 422, "invalid", RequestState.VALIDATING, detail, {"errors": errors})


async def _http_problem(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 400:  # what FastAPI says of a body in which it cannot even look for an error
        return _problem(request, 422, "invalid", RequestState.VALIDATING, "body: cannot be read as JSON")
    code, headers = CODE.get(error.status_code, "invalid"), dict(error.headers or {})
    if "GET" in (methods := headers.get("Allow", "").split(", ")):
        headers["Allow"] = ", ".join(sorted({"HEAD", *methods}))
    state = RequestState.VALIDATING if error.status_code == 422 else RequestState.RECEIVED
    return _problem(request, error.status_code, code, state, str(error.detail), headers=headers)


async def _unforeseen_problem(request: Request, error: Exception) -> JSONResponse:
    return unforeseen_problem(request, error)


def _field(error: Mapping[str, Any]) -> str:
    return "body" if error["type"] == "json_invalid" else ".".join(map(str, error["loc"]))


def _message(error: Mapping[str, Any]) -> str:
    if error["type"] == "string_pattern_mismatch":
        return "Holds characters that are not allowed here"
    return str(error["msg"]).removeprefix("Value error, ")


def _problem(
    request: Request,
    status: int,
    code: str,
    state: RequestState,
    detail: str,
    more: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    request.state.code, request.state.failed_in = code, state
    body = {
        "title": TITLES.get(status, "Error"),
        "status": status,
        "code": code,
        "state": state,
        "detail": detail,
        "request_id": request_id(request.scope),
        **(more or {}),
    }
    return JSONResponse(body, status, {**HEADERS.get(status, {}), **(headers or {})}, PROBLEM_MEDIA_TYPE)


def request_id(scope: Scope) -> str:
    """API Gateway's id of the request, or one of ours; the same whenever it is asked for."""
    state = scope.setdefault("state", {})
    if "request_id" not in state:
        context = (scope.get("aws.event") or {}).get("requestContext") or {}
        state["request_id"] = str(context.get("requestId") or uuid4())
    known: str = state["request_id"]
    return known
