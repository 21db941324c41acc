"""Rules of every request and answer on all routes: paths, methods, bodies, headers, queries."""

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
"""Declarations of parameters that are not in the query."""
NO_STORE = (b"cache-control", b"no-store")


class _RepeatedKeyError(Exception):
    pass


def _without_repetition(pairs: Sequence[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        raise _RepeatedKeyError


_KEYS = JSONDecoder(object_pairs_hook=_without_repetition)


def route_path(scope: Scope) -> str:
    """The path of a request without the base path, as routes declare it."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _with_base_path(path: str, base_path: str) -> str:
    """A path below the base path, as ASGI wants it. A gateway may have taken the base path off."""
    if path == base_path:
        return f"{path}/"
    return path if path.startswith(f"{base_path}/") else f"{base_path}{path}"


async def check_query(request: Request) -> None:
    """Refuse parameters that the route does not have; FastAPI would ignore a misspelt parameter.

    Raises:
        RequestValidationError: the query has such parameters.
    """
    if not request.scope.get("query_string"):
        return
    route: APIRoute = request.scope["route"]
    fields = get_flat_params(route.dependant)  # fields of a model have no place
    known = {field.alias for field in fields if not isinstance(field.field_info, ELSEWHERE)}
    if unknown := [name for name in request.query_params if name not in known]:
        raise RequestValidationError(
            [
                {
                    "type": "extra_forbidden",
                    "loc": ("query", name),
                    "msg": "There is no such parameter",
                }
                for name in unknown
            ]
        )


class Answers:
    """ASGI middleware, the outermost: headers that every answer has, and the base path.

    Every answer has the request's id. An answer that needs a token is not cached. An answer to HEAD
    has no body. A request that comes without the base path gets it.
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
            scope["path"] = _with_base_path(scope["path"], self._base_path)
            scope["root_path"] = self._base_path
        has_body = scope["method"] != "HEAD"

        async def send_complete(message: Message) -> None:
            if message["type"] == "http.response.start":
                request_id = context_of(scope).request_id.encode()
                headers = [*message.get("headers", ()), (REQUEST_ID_HEADER, request_id)]
                is_open = route_path(scope) in self._open_paths
                if not is_open and all(name != NO_STORE[0] for name, _ in headers):
                    headers.append(NO_STORE)
                message["headers"] = headers
            elif not has_body:
                message["body"] = b""
            await send(message)

        await self._app(scope, receive, send_complete)


class HeadAsGet:
    """ASGI middleware, the innermost: every route that takes GET takes HEAD."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("method") != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_as_head(message: Message) -> None:
            scope["method"] = "HEAD"  # servers read it when they send
            await send(message)

        scope["method"] = "GET"
        try:
            await self._app(scope, receive, send_as_head)
        finally:
            scope["method"] = "HEAD"


class Bodies:
    """ASGI middleware that refuses a body if it is too large, compressed, or has a key twice."""

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
                    raise HTTPException(413, f"body: exceeds {BODY_BYTES_MAX} bytes; send less")
                if not message.get("more_body"):
                    _check_coding(scope)
                    _check_keys(body)
            return message

        await self._app(scope, receive_checked, send)


def _check_coding(scope: Scope) -> None:
    for name, value in scope["headers"]:
        if name == b"content-encoding" and value.strip().lower() not in {b"", b"identity"}:
            detail = "body: is compressed; send it without Content-Encoding"
            raise HTTPException(415, detail, headers={"accept-encoding": "identity"})


def _check_keys(body: bytes) -> None:
    """Refuse an object that has a key twice, because readers differ in which value they take.

    A body that is not JSON is refused later, by the reader of the route.
    """
    try:
        _KEYS.decode(body.decode(detect_encoding(body), "surrogatepass"))
    except _RepeatedKeyError:
        # FastAPI hands on no other exception that the reading of a body raises.
        raise HTTPException(422, "body: an object has a key twice; send each key once") from None
    except (ValueError, RecursionError):
        pass
