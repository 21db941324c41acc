"""From routers to an ASGI app and a Lambda handler that know who is calling, and tell of every request."""

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
from ledger_core.http.middleware import BODY_BYTES_MAX, Answers, Bodies, HeadAsGet, check_query, route_path
from ledger_core.http.openapi import complete, operation_id
from ledger_core.http.problems import handle_errors, ledger_problem, unreadable_problem
from ledger_core.http.request_context import context_of
from ledger_core.http.telemetry import CAPACITY_HEADER, Telemetry
from ledger_core.settings import AuthMode

__all__ = ["BODY_BYTES_MAX", "OPEN_PATHS", "create_api", "create_handler"]

OPEN_PATHS = frozenset({"/health", "/openapi.json"}) | DOCS_PATHS
"""What anybody may ask for; a gateway may be stricter."""

ALLOWED_HEADERS = ("authorization", "content-type", "idempotency-key", CAPACITY_HEADER)
EXPOSED_HEADERS = (
    "allow",
    "consumed-capacity",
    "idempotency-replayed",
    "retry-after",
    "www-authenticate",
    "x-request-id",
)
"""What pages of other origins may send, and what of an answer they may read."""

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
    """An ASGI app of the ledger's router and the app's own.

    Every path except OPEN_PATHS needs a known caller; `caller_of(request)` says who it is.

    Args:
        title: the app's name in its OpenAPI document.
        routers: LedgerRouter, and the app's own.
        auth: how callers are known; AuthMode.NONE lets everybody do everything.
        base_path: what comes before every path, as a stage's or a mapping's; requests may have it or not.
        allowed_origins: whose pages may call from a browser, where no gateway answers that.
        info: the OpenAPI document's `version`, `description`, `contact` and `license`.
        tags: what the tags of the app's own routes mean, by name.
    """
    api = _Api(
        title=title,
        strict_content_type=False,  # a missing one is taken for JSON, a wrong one is refused
        redirect_slashes=False,
        docs_url=None,  # whose parts come from elsewhere; ours are here
        redoc_url=None,
        dependencies=[Depends(check_query)],
        generate_unique_id_function=operation_id,  # which clients name their functions by
        telemetry={"tracing": False, "metrics": False, "logs": False},  # which ours is, and tells no values
    )
    api.auth, api.base_path, api.allowed_origins = auth, base_path, allowed_origins
    api.info, api.tags = info, tags
    for router in routers:
        api.include_router(router)
    add_docs(api)
    if auth is AuthMode.NONE:
        logger.warning("LEDGER_AUTH=none: everybody may do everything")
    handle_errors(api)
    api.add_middleware(HeadAsGet)
    api.add_middleware(Bodies)
    api.add_middleware(_Authentication, auth=auth)  # the last one added is the outermost
    return api


def create_handler(api: FastAPI) -> Callable[[dict[str, Any], Any], dict[str, Any]]:
    """A Lambda handler of `api` for the events of API Gateway's HTTP API (payload 2.0 and 1.0) and REST API."""
    return Gateway(api)


class _Api(FastAPI):
    """Whose document tells of refusals and tokens too, and whose every answer passes what is around it."""

    auth: AuthMode
    base_path: str
    allowed_origins: Sequence[str]
    info: Mapping[str, Any]
    tags: Mapping[str, str]

    def build_middleware_stack(self) -> ASGIApp:
        stack = super().build_middleware_stack()
        if self.allowed_origins:
            from starlette.middleware.cors import CORSMiddleware  # which Lambda does not pay for

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
    """Deny by default: refuse an unknown caller before anything else of the request is looked at."""

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
        elif scope["type"] == "websocket":  # whose caller nobody checks
            await send({"type": "websocket.close", "code": 1008})
            return
        await self._app(scope, receive, send)

    def _caller(self, scope: Scope) -> Caller:
        return Caller.anybody() if self._auth is AuthMode.NONE else Caller.from_event(scope.get("aws.event") or {})
