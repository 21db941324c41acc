"""What is around every request and every answer, whatever route it is for: paths, methods, bodies, headers, queries."""

from collections.abc import Container, Sequence
from json import JSONDecoder, detect_encoding
from typing import Any

from fastapi import Request
from fastapi.dependencies.utils import get_flat_params
from fastapi.exceptions import RequestValidationError
from fastapi.params import Cookie, Header, Path
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ledger_core.http.problems import REQUEST_ID_HEADER
from ledger_core.http.request_context import context_of

__all__ = ["BODY_BYTES_MAX", "Answers", "Bodies", "HeadAsGet", "check_query", "route_path"]

BODY_BYTES_MAX = 16 * 1024
ELSEWHERE = (Path, Header, Cookie)
"""What declares a parameter that is not in the query."""
NO_STORE = (b"cache-control", b"no-store")


class _RepeatedKeyError(Exception):
    pass


def _without_repetition(pairs: Sequence[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        raise _RepeatedKeyError


_KEYS = JSONDecoder(object_pairs_hook=_without_repetition)


def route_path(scope: Scope) -> str:
    """The path that a route has, without the base path that the API is under."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _with_base_path(path: str, base_path: str) -> str:
    """A path as ASGI has it, below the base path; gateways hand it on with or without that."""
    if path == base_path:
        return f"{path}/"
    return path if path.startswith(f"{base_path}/") else f"{base_path}{path}"


async def check_query(request: Request) -> None:
    """Refuse parameters that the route does not have: a misspelt one would be passed over in silence.

    Raises:
        RequestValidationError: there are some.
    """
    if not request.scope.get("query_string"):
        return
    route: APIRoute = request.scope["route"]
    fields = get_flat_params(route.dependant)  # those of a model say nothing of where they are
    known = {field.alias for field in fields if not isinstance(field.field_info, ELSEWHERE)}
    if unknown := [name for name in request.query_params if name not in known]:
        raise RequestValidationError(
            [
                {"type": "extra_forbidden", "loc": ("query", name), "msg": "There is no such parameter"}
                for name in unknown
            ]
        )


class Answers:
    """ASGI middleware, the outermost: every answer has the request's id, and none that a token opens is kept.

    An answer to HEAD has no body. Requests may have the base path or not; from here on all have it.
    """

    def __init__(self, app: ASGIApp, *, open_paths: Container[str], base_path: str) -> None:
        self._app = app
        self._open_paths = open_paths
        self._base_path = base_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._base_path:
            scope["path"], scope["root_path"] = _with_base_path(scope["path"], self._base_path), self._base_path
        has_body = scope["method"] != "HEAD"

        async def send_complete(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), (REQUEST_ID_HEADER, context_of(scope).request_id.encode())]
                if route_path(scope) not in self._open_paths and all(name != NO_STORE[0] for name, _ in headers):
                    headers.append(NO_STORE)
                message["headers"] = headers
            elif not has_body:
                message["body"] = b""
            await send(message)

        await self._app(scope, receive, send_complete)


class HeadAsGet:
    """ASGI middleware, the innermost: what can be asked for by GET can be by HEAD."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("method") != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_as_head(message: Message) -> None:
            scope["method"] = "HEAD"  # servers look at it when they send
            await send(message)

        scope["method"] = "GET"
        try:
            await self._app(scope, receive, send_as_head)
        finally:
            scope["method"] = "HEAD"


class Bodies:
    """ASGI middleware that refuses a body, when it is read, that is too large, compressed, or has a key twice."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""

        async def receive_checked() -> Message:
            nonlocal body
            message = await receive()
            if message["type"] == "http.request":
                body += message.get("body", b"")
                if len(body) > BODY_BYTES_MAX:
                    raise HTTPException(413, f"The body exceeds {BODY_BYTES_MAX} bytes.")
                if not message.get("more_body"):
                    _check_coding(scope)
                    _check_keys(body)
            return message

        await self._app(scope, receive_checked, send)


def _check_coding(scope: Scope) -> None:
    for name, value in scope["headers"]:
        if name == b"content-encoding" and value.strip().lower() not in {b"", b"identity"}:
            detail = "The body must be sent as it is, without Content-Encoding."
            raise HTTPException(415, detail, headers={"accept-encoding": "identity"})


def _check_keys(body: bytes) -> None:
    """Of two values under one key every reader would take another; what is no JSON is for the reader to refuse."""
    try:
        _KEYS.decode(body.decode(detect_encoding(body), "surrogatepass"))
    except _RepeatedKeyError:
        # FastAPI hands on no other exception that the reading of a body raises.
        raise HTTPException(422, "body: an object has the same key twice") from None
    except (ValueError, RecursionError):
        pass
