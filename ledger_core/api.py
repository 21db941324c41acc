"""From routers to an ASGI app and a Lambda handler, whose every failure is a problem document (RFC 9457).

Each problem has `code`, `state` and `request_id`, and names fields without repeating what was in them.
"""

import asyncio
import base64
import logging
import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any
from uuid import uuid4

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from mangum import Mangum
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ledger_core.errors import DuplicateNonceError, InsufficientBalanceError, LedgerError, RequestState, StoreError

__all__ = ["BODY_BYTES_MAX", "RESPONSES", "STATUS", "create_api", "create_handler"]

BODY_BYTES_MAX = 16 * 1024
MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 1

STATUS: Mapping[str, int] = {
    "invalid": 422,
    "unknown_operation": 422,
    "duplicate_nonce": 409,
    "insufficient_balance": 402,
    "unauthorized": 401,
    "forbidden": 403,
    "contention": 503,
    "unavailable": 503,
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

RESPONSES: dict[int | str, dict[str, Any]] = {
    kind: {
        "description": description,
        "content": {
            MEDIA_TYPE: {
                "schema": {
                    "type": "object",
                    "title": "Problem",
                    "required": ["title", "status", "code", "state", "detail", "request_id"],
                    "properties": {
                        "title": {"type": "string"},
                        "status": {"type": "integer"},
                        "code": {"type": "string", "enum": sorted({*STATUS, *CODE.values()})},
                        "state": {"type": "string", "enum": list(RequestState)},
                        "detail": {"type": "string"},
                        "request_id": {"type": "string"},
                    },
                }
            }
        },
    }
    for kind, description in (("4XX", "The request is refused; nothing is written."), ("5XX", "Try again later."))
}
"""For the OpenAPI document."""

logger = logging.getLogger(__name__)


def create_api(title: str, *routers: APIRouter) -> FastAPI:
    """An ASGI app of the ledger's router and the app's own."""
    # A missing Content-Type is taken for JSON, a wrong one is refused.
    api = FastAPI(title=title, strict_content_type=False, redirect_slashes=False)
    for router in routers:
        api.include_router(router)
    api.add_middleware(_BodyLimit)
    api.add_exception_handler(LedgerError, _ledger_problem)
    api.add_exception_handler(RequestValidationError, _validation_problem)
    api.add_exception_handler(HTTPException, _http_problem)
    api.add_exception_handler(Exception, _unforeseen_problem)
    return api


def create_handler(api: FastAPI) -> Callable[[dict[str, Any], Any], dict[str, Any]]:
    """A Lambda handler of `api` for the events of API Gateway's HTTP API (payload 2.0 and 1.0) and REST API."""
    adapter = Mangum(api, lifespan="off", text_mime_types=["text/", "application/json", MEDIA_TYPE])

    def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
        if event.get("isBase64Encoded"):
            try:
                base64.b64decode(event.get("body") or "", validate=True)
            except ValueError:  # the adapter would fail on it; this is refused as the JSON it is not
                event = {**event, "isBase64Encoded": False, "body": "not Base64"}
        _ensure_event_loop()
        try:
            return adapter(event, context)
        except Exception:  # of the adapter, before the API saw the event; the API answers for its own failures
            logger.exception("this event cannot be read as an HTTP request")
            request = Request({"type": "http", "headers": [], "aws.event": event})
            problem = _problem(request, 422, "invalid", RequestState.RECEIVED, "The request cannot be read.")
            return {"statusCode": 422, "headers": dict(problem.headers), "body": bytes(problem.body).decode()}

    return handler


def _ensure_event_loop() -> None:
    """The adapter uses the thread's event loop; give it one in a thread that has none, or none any more."""
    try:
        asyncio.get_event_loop()
    except RuntimeError:
        asyncio.set_event_loop(asyncio.new_event_loop())


async def _ledger_problem(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, LedgerError)
    status, detail, more, headers = STATUS[error.code], str(error), dict[str, Any](), {}
    if isinstance(error, DuplicateNonceError):
        more = {"replay": error.replay, "entry": error.entry.model_dump(mode="json")}
        if getattr(request.state, "nonce_in_header", False):
            status = 422  # the convention of Idempotency-Key for another request under a used key
    elif isinstance(error, InsufficientBalanceError):
        more = {"balance": error.balance, "required": error.required}
    elif isinstance(error, StoreError):
        return await _unforeseen_problem(request, error)
    if status == 503:
        headers = {"retry-after": str(RETRY_AFTER_SECONDS)}
    return _problem(request, status, error.code, error.state, detail, more, headers)


async def _validation_problem(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if any(e["loc"][0] == "body" for e in error.errors()) and not re.fullmatch(
        r"(application/(.+\+)?json)?", media_type
    ):
        detail = "The body must be JSON, with Content-Type: application/json."
        return _problem(request, 415, CODE[415], RequestState.RECEIVED, detail)
    errors = [{"field": _field(e), "message": _message(e)} for e in error.errors()]
    detail = "; ".join(f"{e['field']}: {e['message']}" for e in errors)
    return _problem(request, 422, "invalid", RequestState.VALIDATING, detail, {"errors": errors})


async def _http_problem(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 400:  # what FastAPI says of a body in which it cannot even look for an error
        return _problem(request, 422, "invalid", RequestState.VALIDATING, "body: cannot be read as JSON")
    code, headers = CODE.get(error.status_code, "invalid"), dict(error.headers or {})
    return _problem(request, error.status_code, code, RequestState.RECEIVED, str(error.detail), {}, headers)


async def _unforeseen_problem(request: Request, error: Exception) -> JSONResponse:
    state = error.state if isinstance(error, LedgerError) else RequestState.PROCESSING
    logger.error("request_id=%s failed", _request_id(request), exc_info=error)
    return _problem(request, 500, "internal", state, "The ledger failed; its log tells why under this request id.")


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
    if status == 503:
        logger.warning("request_id=%s %s in %s: %s", _request_id(request), code, state, detail)
    body = {
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "state": state,
        "detail": detail,
        "request_id": _request_id(request),
        **(more or {}),
    }
    return JSONResponse(body, status, dict(headers or {}), MEDIA_TYPE)


def _request_id(request: Request) -> str:
    """API Gateway's id of the request, or one of ours; the same whenever it is asked for."""
    if not hasattr(request.state, "request_id"):
        context = (request.scope.get("aws.event") or {}).get("requestContext") or {}
        request.state.request_id = context.get("requestId") or str(uuid4())
    return str(request.state.request_id)


class _BodyLimit:
    """Stop reading a body at BODY_BYTES_MAX."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size = 0

        async def receive_up_to_limit() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > BODY_BYTES_MAX:
                raise HTTPException(413, f"The body exceeds {BODY_BYTES_MAX} bytes.")
            return message

        await self._app(scope, receive_up_to_limit, send)
