"""Translate events of API Gateway into ASGI requests, and answers back. Mangum does the work.

A failure before the app has the request is refused as unreadable. A failure after that is a fault,
because the operation may have been posted.
"""

import asyncio
import base64
import logging
import warnings
from collections.abc import Callable, Mapping
from contextlib import closing
from contextvars import copy_context
from typing import Any

from fastapi import Request
from mangum import Mangum
from mangum.protocols import HTTPCycle
from mangum.types import ASGI
from starlette.types import Scope

from ledger_core.http.problems import PROBLEM_MEDIA_TYPE, REQUEST_ID_HEADER, fault_problem
from ledger_core.http.request_context import context_of

__all__ = ["UNREADABLE", "Gateway"]

UNREADABLE = "aws.unreadable"
"""The key in a scope that marks a request which could not be read."""
NO_STORE = (b"cache-control", b"no-store")
SCHEMES = frozenset({"http", "https"})
GUESSED = frozenset({"host", "x-forwarded-port"})
"""Headers from which Mangum reads the port, which nothing needs. Clients may send any text."""

logger = logging.getLogger(__name__)


class Gateway:
    """A Lambda handler of an ASGI app. It works in any thread, also while an event loop runs."""

    def __init__(self, api: ASGI) -> None:
        # Mangum would log the path of each request, which holds the owner's id.
        logging.getLogger("mangum").setLevel(logging.WARNING)
        self._api = api
        with warnings.catch_warnings():  # asyncio warns if this thread has no event loop yet
            warnings.simplefilter("ignore", DeprecationWarning)
            _event_loop()
        text_types = ["application/json", PROBLEM_MEDIA_TYPE, "text/"]
        self._adapter = Mangum(api, lifespan="off", text_mime_types=text_types)

    def __call__(self, event: Any, context: Any) -> dict[str, Any]:
        if not _event_loop().is_running():
            return self._answer(event, context)
        from concurrent.futures import ThreadPoolExecutor  # Lambda does not import it

        def answer() -> dict[str, Any]:
            with closing(asyncio.new_event_loop()) as loop:
                asyncio.set_event_loop(loop)
                return self._answer(event, context)

        with ThreadPoolExecutor(1) as thread:  # no two event loops can run in a thread
            return thread.submit(copy_context().run, answer).result()

    def _answer(self, event: Any, context: Any) -> dict[str, Any]:
        try:
            try:
                scope, body, translate = self._read(event, context)
            except Exception:
                scope, body, translate = self._read(_cleaned(event), context)
        except Exception:
            logger.exception("this event cannot be read as an HTTP request")
            scope = _unreadable_scope(event, context)
            body = b""
            translate = _answer_of_any_api
        try:
            return translate(HTTPCycle(scope, body)(self._api))
        except Exception as error:
            problem = fault_problem(Request(scope), error)
            request_id = (REQUEST_ID_HEADER, context_of(scope).request_id.encode())
            headers = [*problem.raw_headers, request_id, NO_STORE]
            answer = {"status": problem.status_code, "headers": headers, "body": problem.body}
            return _answer_of_any_api(answer)

    def _read(
        self, event: Any, context: Any
    ) -> tuple[Scope, bytes, Callable[[Any], dict[str, Any]]]:
        if event.get("isBase64Encoded"):
            try:
                base64.b64decode(event.get("body") or "", validate=True)
            except ValueError:  # the app refuses this text, because it is not JSON
                event = {**event, "isBase64Encoded": False, "body": "not Base64"}
        handler = self._adapter.infer(event, context)
        scope: Scope = handler.scope
        if scope["scheme"] not in SCHEMES:
            scope["scheme"] = "https"
        return scope, handler.body, handler


def _event_loop() -> asyncio.AbstractEventLoop:
    """The event loop of this thread, for Mangum; a new event loop if it is missing or closed."""
    try:
        loop = asyncio.get_event_loop()
    except RuntimeError:
        loop = None
    if loop is None or loop.is_closed():
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
    return loop


def _cleaned(event: Any) -> dict[str, Any]:
    """An event without the parts that Mangum cannot read and that are no part of the request."""
    context = _mapping(event["requestContext"])
    http = context.get("http")
    if isinstance(http, Mapping):
        context |= {"http": {"sourceIp": None, "path": event.get("rawPath"), **http}}
    return {
        **event,
        "headers": _cleaned_headers(event.get("headers")),
        "multiValueHeaders": _cleaned_headers(event.get("multiValueHeaders")),
        "rawQueryString": event.get("rawQueryString") or "",
        "isBase64Encoded": bool(event.get("isBase64Encoded")),
        "requestContext": {**context, "identity": _mapping(context.get("identity"))},
    }


def _cleaned_headers(headers: Any) -> dict[str, Any]:
    kept = {name: value for name, value in _mapping(headers).items() if value is not None}
    return {name: value for name, value in kept.items() if name.lower() not in GUESSED}


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _unreadable_scope(event: Any, context: Any) -> Scope:
    """The scope of a request of which only the id is known, if that."""
    request_id = _mapping(_mapping(event).get("requestContext")).get("requestId")
    known = {"requestId": request_id} if isinstance(request_id, str) else {}
    return {
        "type": "http",
        "method": "",
        "path": "",
        "query_string": b"",
        "headers": [],
        "aws.event": {"requestContext": known},
        "aws.context": context,
        UNREADABLE: True,
    }


def _answer_of_any_api(response: Any) -> dict[str, Any]:
    """An answer in the form that HTTP APIs and REST APIs both take."""
    raw = response["headers"]
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in raw}
    return {
        "statusCode": response["status"],
        "headers": headers,
        "body": response["body"].decode(),
    }
