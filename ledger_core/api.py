"""From routers to an ASGI app and a Lambda handler that know who is calling, and tell of every request."""

import logging
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ledger_core.access import Caller
from ledger_core.docs import DOCS_PATHS, add_docs
from ledger_core.document import complete
from ledger_core.errors import UnauthorizedError
from ledger_core.gateway import UNREADABLE, Gateway
from ledger_core.problems import handle_errors, ledger_problem, unreadable_problem
from ledger_core.settings import AuthMode
from ledger_core.telemetry import Telemetry

__all__ = ["BODY_BYTES_MAX", "OPEN_PATHS", "create_api", "create_handler"]

BODY_BYTES_MAX = 16 * 1024
OPEN_PATHS = frozenset({"/health", "/openapi.json"}) | DOCS_PATHS
"""What anybody may ask for; a gateway may be stricter."""

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
        docs_url=None,  # whose parts come from elsewhere; ours are here
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # which ours is, and tells no values
    )
    api.auth = auth
    for router in routers:
        api.include_router(router)
    add_docs(api)
    if auth is AuthMode.NONE:
        logger.warning("LEDGER_AUTH=none: everybody may do everything")
    handle_errors(api)
    api.add_middleware(_BodyLimit)
    api.add_middleware(_Authentication, auth=auth)
    api.add_middleware(Telemetry)  # the last one added is the outermost
    return api


def create_handler(api: FastAPI) -> Callable[[dict[str, Any], Any], dict[str, Any]]:
    """A Lambda handler of `api` for the events of API Gateway's HTTP API (payload 2.0 and 1.0) and REST API."""
    return Gateway(api)


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
        if UNREADABLE in scope:
            await unreadable_problem(Request(scope))(scope, receive, send)
            return
        if scope["type"] == "http":
            try:
                scope.setdefault("state", {})["caller"] = self._caller(scope)
            except UnauthorizedError as error:
                if scope["path"].removeprefix(scope.get("root_path", "")) not in OPEN_PATHS:
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
