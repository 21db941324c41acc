"""Make an ASGI app and a Lambda handler of routers. Both know the caller, and log every request."""

import logging
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from ledger_core.errors import UnauthorizedError
from ledger_core.http.authorization import Caller
from ledger_core.http.docs_page import DOCS_PATHS, add_docs
from ledger_core.http.lambda_handler import UNREADABLE, Gateway
from ledger_core.http.middleware import (
    BODY_BYTES_MAX,
    Answers,
    Bodies,
    HeadAsGet,
    check_query,
    route_path,
)
from ledger_core.http.openapi import complete, operation_id
from ledger_core.http.problems import handle_errors, ledger_problem, unreadable_problem
from ledger_core.http.request_context import context_of
from ledger_core.http.telemetry import CAPACITY_HEADER, Telemetry
from ledger_core.settings import AuthMode

__all__ = ["BODY_BYTES_MAX", "OPEN_PATHS", "create_api", "create_handler"]

OPEN_PATHS = frozenset({"/health", "/openapi.json"}) | DOCS_PATHS
"""Paths that need no token. A gateway before the app may be stricter."""

ALLOWED_HEADERS = ("authorization", "content-type", "idempotency-key", CAPACITY_HEADER)
"""Headers that a page of an allowed origin may send."""
EXPOSED_HEADERS = (
    "allow",
    "consumed-capacity",
    "idempotency-replayed",
    "retry-after",
    "www-authenticate",
    "x-request-id",
)
"""Headers of an answer that a page of an allowed origin may read."""

logger = logging.getLogger(__name__)


def create_api(
    title: str,
    *routers: APIRouter,
    auth: AuthMode,
    base_path: str = "",
    allowed_origins: Sequence[str] = (),
    info: Mapping[str, Any] = MappingProxyType({}),
    tags: Mapping[str, str] = MappingProxyType({}),
) -> FastAPI:
    """An ASGI app of the ledger's router and of the app's own routers.

    Every path except OPEN_PATHS needs a known caller; `caller_of(request)` says who it is.

    Args:
        title: the name of the app in its OpenAPI description.
        routers: a LedgerRouter, and the app's own routers.
        auth: how callers are known. With AuthMode.NONE every caller may do everything.
        base_path: the path of a stage or of a mapping. Requests may come with it or without it.
        allowed_origins: the origins whose pages may call, if no gateway handles CORS.
        info: `version`, `description`, `contact` and `license` of the OpenAPI description.
        tags: the meaning of the tags of the app's own routes, by name.
    """
    api = _Api(
        title=title,
        strict_content_type=False,  # a body without a type is read as JSON
        redirect_slashes=False,
        docs_url=None,  # FastAPI's page loads its files from another host; `add_docs` adds ours
        redoc_url=None,
        dependencies=[Depends(check_query)],
        generate_unique_id_function=operation_id,  # generated clients name their functions by it
        telemetry={"tracing": False, "metrics": False, "logs": False},  # ours logs no values
    )
    api.auth = auth
    api.base_path = base_path
    api.allowed_origins = allowed_origins
    api.info = info
    api.tags = tags
    for router in routers:
        api.include_router(router)
    add_docs(api)
    if auth is AuthMode.NONE:
        logger.warning("LEDGER_AUTH=none: every caller may do everything")
    handle_errors(api)
    api.add_middleware(HeadAsGet)
    api.add_middleware(Bodies)
    api.add_middleware(_Authentication, auth=auth)  # the last middleware added is the outermost
    return api


def create_handler(api: FastAPI) -> Callable[[dict[str, Any], Any], dict[str, Any]]:
    """A Lambda handler of `api` for events of an HTTP API (payload 1.0 or 2.0) or a REST API."""
    return Gateway(api)


class _Api(FastAPI):
    """A FastAPI app inside the ledger's middleware, with a complete OpenAPI description."""

    auth: AuthMode
    base_path: str
    allowed_origins: Sequence[str]
    info: Mapping[str, Any]
    tags: Mapping[str, str]

    def build_middleware_stack(self) -> ASGIApp:
        stack = super().build_middleware_stack()
        if self.allowed_origins:
            from starlette.middleware.cors import CORSMiddleware  # Lambda does not import it

            stack = CORSMiddleware(
                stack,
                allow_origins=self.allowed_origins,
                allow_methods=["*"],
                allow_headers=ALLOWED_HEADERS,
                expose_headers=EXPOSED_HEADERS,
            )
        return Answers(Telemetry(stack), open_paths=OPEN_PATHS, base_path=self.base_path)

    def openapi(self) -> dict[str, Any]:
        return complete(
            super().openapi(),
            tokens=self.auth is AuthMode.JWT,
            open_paths=OPEN_PATHS,
            info=self.info,
            tags=self.tags,
        )


class _Authentication:
    """Deny by default: refuse an unknown caller before any other check of the request."""

    def __init__(self, app: ASGIApp, *, auth: AuthMode) -> None:
        self._app = app
        self._auth = auth

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if UNREADABLE in scope:
            await unreadable_problem(Request(scope))(scope, receive, send)
            return
        if scope["type"] == "http":
            try:
                context_of(scope).caller = self._caller(scope)
            except UnauthorizedError as error:
                if route_path(scope) not in OPEN_PATHS:
                    response = await ledger_problem(Request(scope), error)
                    await response(scope, receive, send)
                    return
        elif scope["type"] == "websocket":  # its caller is not checked
            await send({"type": "websocket.close", "code": 1008})
            return
        await self._app(scope, receive, send)

    def _caller(self, scope: Scope) -> Caller:
        if self._auth is AuthMode.NONE:
            return Caller.unrestricted()
        return Caller.from_event(scope.get("aws.event") or {})
