"""One structured log line, and its metrics, per request.

Names and counts only: no token, no metadata, no nonce, and of an owner's or a caller's id no more than a hash.
"""

import logging
import os
import re
from collections.abc import Mapping
from time import perf_counter
from typing import Any

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ledger_core.errors import RequestState
from ledger_core.fields import owner_hash
from ledger_core.http.problems import INTERNAL
from ledger_core.http.request_context import context_of
from ledger_core.observability import RequestMetrics, measure_request, request_lines

__all__ = ["CAPACITY_HEADER", "OUTCOMES", "Telemetry"]

CAPACITY_HEADER = "return-consumed-capacity"
"""A request that has it gets `consumed-capacity` with its answer: capacity units, and requests sent to DynamoDB."""

OUTCOMES: Mapping[str, str] = {
    "accepted": "Accepted",
    "answered": "Answered",
    "duplicate_nonce": "Duplicate",
    "insufficient_balance": "Insufficient",
}
"""The metric that counts a request, by its code; any other code is counted as Failed and the state it failed in."""
ALARMING = frozenset({"contention", "unavailable", "internal"})
"""Codes that are counted under their own name as well."""

logger = logging.getLogger(__name__)


class Telemetry:
    """ASGI middleware that measures each request, and tells of it when it ends, however it ends."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._lines = request_lines()
        self._cold_start = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request, status, begun = Request(scope), 500, perf_counter()

        async def send_with_capacity(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if CAPACITY_HEADER in request.headers:
                    told = f"read={usage.read_units}, write={usage.write_units}, requests={usage.dynamodb_requests}"
                    message["headers"] = [*message["headers"], (b"consumed-capacity", told.encode())]
            await send(message)

        with measure_request() as usage:
            try:
                await self._app(scope, receive, send_with_capacity)
            except BaseException:  # a request that is cancelled has no answer either
                context_of(scope).fail(INTERNAL, RequestState.PROCESSING)
                raise
            finally:
                try:
                    self.tell(request, status, usage, perf_counter() - begun)
                except Exception:  # what is answered does not depend on what is logged
                    logger.exception("a request's log line could not be written")

    def tell(self, request: Request, status: int, usage: RequestMetrics, seconds: float) -> None:
        """Write the line of one request that ended with `status` after `seconds`."""
        context = context_of(request.scope)
        caller = context.caller
        line: dict[str, Any] = {
            "request_id": context.request_id,
            "function_request_id": getattr(request.scope.get("aws.context"), "aws_request_id", None),
            "trace_id": _trace_id(),
            "method": request.method,
            "route": getattr(request.scope.get("route"), "path", None),
            "status": status,
            "code": context.code,
            "state": context.failed_in or RequestState.COMPLETED,
            "owner": owner_hash(context.owner_id) if context.owner_id else None,
            "operation": context.operation,
            "client_id": caller and caller.client_id,
            "caller": owner_hash(caller.subject) if caller and caller.subject else None,
            "attempts": usage.attempts,
            "retries": usage.retries,
            "stale_heads": usage.stale_heads,
            "dynamodb_requests": usage.dynamodb_requests,
            "dynamodb_ms": round(usage.dynamodb_seconds * 1000, 3),
            "read_units": usage.read_units,
            "write_units": usage.write_units,
            "latency_ms": round(seconds * 1000, 3),
            "cold_start": self._cold_start,
        }
        counts = {
            OUTCOMES.get(context.code, f"Failed{context.failed_in}"): 1,
            **({context.code.capitalize(): 1} if context.code in ALARMING else {}),
            "Retries": usage.retries,
            "StaleHeads": usage.stale_heads,
            "ReadUnits": usage.read_units,
            "WriteUnits": usage.write_units,
        }
        self._lines.write(line, {**counts, "Latency": line["latency_ms"]})
        self._cold_start = False


def _trace_id() -> str | None:
    """The X-Ray trace that this invocation belongs to."""
    root = re.match(r"Root=([^;]+)", os.environ.get("_X_AMZN_TRACE_ID", ""))
    return root and root[1]
