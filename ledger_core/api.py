"""From routers to an ASGI app and a Lambda handler that know who is calling, and tell of every request."""

import asyncio
import base64
import logging
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from mangum import Mangum
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ledger_core.access import Caller
from ledger_core.document import complete
from ledger_core.errors import UnauthorizedError
from ledger_core.problems import PROBLEM_MEDIA_TYPE, handle_errors, ledger_problem, unreadable_problem
from ledger_core.settings import AuthMode
from ledger_core.telemetry import Telemetry

__all__ = ["BODY_BYTES_MAX", "OPEN_PATHS", "create_api", "create_handler"]

BODY_BYTES_MAX = 16 * 1024
OPEN_PATHS = frozenset({"/health"})
"""What anybody may ask for."""

logger = logging.getLogger(__name__)


def create_api(title: str, *routers: APIRouter, auth: AuthMode) -> FastAPI:
    """An ASGI app of the ledger's router and the app's own.

    Every path but OPEN_PATHS needs a known caller, who is then `request.state.caller`.

    Args:
        title: the app's name in its OpenAPI document.
        routers: LedgerRouter, and the app's own.
        auth: how callers are known; AuthMode.NONE lets everybody do everything.
    """
    api = _Api(
        title=title,
        strict_content_type=False,  # a missing one is taken for JSON, a wrong one is refused
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # which ours is, and tells no values
    )
    api.auth = auth
    for router in routers:
        api.include_router(router)
    if auth is AuthMode.NONE:
        logger.warning("LEDGER_AUTH=none: everybody may do everything")
    handle_errors(api)
    api.add_middleware(_BodyLimit)
    api.add_middleware(_Authentication, auth=auth)
    api.add_middleware(Telemetry)  # the last one added is the outermost
    return api


def create_handler(api: FastAPI) -> Callable[[dict[str, Any], Any], dict[str, Any]]:
    """A Lambda handler of `api` for the events of API Gateway's HTTP API (payload 2.0 and 1.0) and REST API."""
    # It would tell of each request too, with the path, in which the owner's id is.
    logging.getLogger("mangum").setLevel(logging.WARNING)
    adapter = Mangum(api, lifespan="off", text_mime_types=["application/json", PROBLEM_MEDIA_TYPE, "text/"])

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
            problem = unreadable_problem(Request({"type": "http", "headers": [], "aws.event": event}))
            return {
                "statusCode": problem.status_code,
                "headers": dict(problem.headers),
                "body": bytes(problem.body).decode(),
            }

    return handler


def _ensure_event_loop() -> None:
    """The adapter uses the thread's event loop; give it one in a thread that has none, or none any more."""
    try:
        asyncio.get_event_loop()
    except RuntimeError:
        asyncio.set_event_loop(asyncio.new_event_loop())


class _Api(FastAPI):
    """Whose document tells of refusals and tokens too."""

    auth: AuthMode

    def openapi(self) -> dict[str, Any]:
        return complete(super().openapi(), tokens=self.auth is AuthMode.JWT, open_paths=OPEN_PATHS)


class _Authentication:
    """Deny by default: turn away whoever is not known before anything of the request is looked at."""

    def __init__(self, app: ASGIApp, *, auth: AuthMode) -> None:
        self._app = app
        self._auth = auth

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                scope.setdefault("state", {})["caller"] = self._caller(scope)
            except UnauthorizedError as error:
                if scope["path"] not in OPEN_PATHS:
                    response = await ledger_problem(Request(scope), error)
                    await response(scope, receive, send)
                    return
        elif scope["type"] == "websocket":  # whose caller nobody checks
            await send({"type": "websocket.close", "code": 1008})
            return
        await self._app(scope, receive, send)

    def _caller(self, scope: Scope) -> Caller:
        return Caller.anybody() if self._auth is AuthMode.NONE else Caller.from_event(scope.get("aws.event") or {})


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
