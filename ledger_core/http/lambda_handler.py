"""API Gateway's events as requests to an ASGI app, and what it answers as API Gateway takes it.

Mangum translates. What fails before the app has the request is refused as unreadable; what fails after that is a
fault, for the work may have been done.
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
"""In the scope of a request that is to be refused because nobody could read it."""
NO_STORE = (b"cache-control", b"no-store")
SCHEMES = frozenset({"http", "https"})
GUESSED = frozenset({"host", "x-forwarded-port"})
"""Headers from which the adapter makes the server's port, and which any proxy or client may have written."""

logger = logging.getLogger(__name__)


class Gateway:
    """A Lambda handler of an ASGI app, wherever it is called: in Lambda, in a thread, or where an event loop runs."""

    def __init__(self, api: ASGI) -> None:
        # It would tell of each request too, with the path, in which the owner's id is.
        logging.getLogger("mangum").setLevel(logging.WARNING)
        self._api = api
        with warnings.catch_warnings():  # that a thread had no loop yet; from now on it has
            warnings.simplefilter("ignore", DeprecationWarning)
            _event_loop()
        self._adapter = Mangum(api, lifespan="off", text_mime_types=["application/json", PROBLEM_MEDIA_TYPE, "text/"])

    def __call__(self, event: Any, context: Any) -> dict[str, Any]:
        if not _event_loop().is_running():
            return self._answer(event, context)
        from concurrent.futures import ThreadPoolExecutor  # which Lambda does not pay for

        def answer() -> dict[str, Any]:
            with closing(asyncio.new_event_loop()) as loop:
                asyncio.set_event_loop(loop)
                return self._answer(event, context)

        with ThreadPoolExecutor(1) as thread:  # a loop of its own, as no two can run in one
            return thread.submit(copy_context().run, answer).result()

    def _answer(self, event: Any, context: Any) -> dict[str, Any]:
        try:
            try:
                scope, body, translate = self._read(event, context)
            except Exception:
                scope, body, translate = self._read(_tidied(event), context)
        except Exception:
            logger.exception("this event cannot be read as an HTTP request")
            scope, body, translate = _unreadable_scope(event, context), b"", _plainly
        try:
            return translate(HTTPCycle(scope, body)(self._api))
        except Exception as error:
            problem = fault_problem(Request(scope), error)
            known_as = (REQUEST_ID_HEADER, context_of(scope).request_id.encode())
            headers = [*problem.raw_headers, known_as, NO_STORE]
            return _plainly({"status": problem.status_code, "headers": headers, "body": problem.body})

    def _read(self, event: Any, context: Any) -> tuple[Scope, bytes, Callable[[Any], dict[str, Any]]]:
        if event.get("isBase64Encoded"):
            try:
                base64.b64decode(event.get("body") or "", validate=True)
            except ValueError:  # this is refused as the JSON it is not
                event = {**event, "isBase64Encoded": False, "body": "not Base64"}
        handler = self._adapter.infer(event, context)
        scope: Scope = handler.scope
        if scope["scheme"] not in SCHEMES:
            scope["scheme"] = "https"
        return scope, handler.body, handler


def _event_loop() -> asyncio.AbstractEventLoop:
    """The thread's, which the adapter uses; a new one in a thread that has none, or none any more."""
    try:
        loop = asyncio.get_event_loop()
    except RuntimeError:
        loop = None
    if loop is None or loop.is_closed():
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
    return loop


def _tidied(event: Any) -> dict[str, Any]:
    """An event without what keeps it from being read and is no part of what is asked for."""
    context = _mapping(event["requestContext"])
    http = context.get("http")
    if isinstance(http, Mapping):
        context |= {"http": {"sourceIp": None, "path": event.get("rawPath"), **http}}
    return {
        **event,
        "headers": _tidied_headers(event.get("headers")),
        "multiValueHeaders": _tidied_headers(event.get("multiValueHeaders")),
        "rawQueryString": event.get("rawQueryString") or "",
        "isBase64Encoded": bool(event.get("isBase64Encoded")),
        "requestContext": {**context, "identity": _mapping(context.get("identity"))},
    }


def _tidied_headers(headers: Any) -> dict[str, Any]:
    kept = {name: value for name, value in _mapping(headers).items() if value is not None}
    return {name: value for name, value in kept.items() if name.lower() not in GUESSED}


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _unreadable_scope(event: Any, context: Any) -> Scope:
    """A request of which no more is known than its id."""
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


def _plainly(response: Any) -> dict[str, Any]:
    """In the form that every kind of API takes."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in response["headers"]}
    return {"statusCode": response["status"], "headers": headers, "body": response["body"].decode()}
