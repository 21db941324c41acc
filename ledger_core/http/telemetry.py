"""Write a structured log line, with metrics, for every request.

A line has names and counts only: no token, no metadata, no nonce. It has the hash of an owner's or
a caller's id, never the id.
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
"""A request with this header gets `consumed-capacity`: capacity units, and requests to DynamoDB."""

OUTCOMES: Mapping[str, str] = {
    "accepted": "Accepted",
    "answered": "Answered",
    "duplicate_nonce": "Duplicate",
    "insufficient_balance": "Insufficient",
}
"""The metric that counts a request, by its code. Any other code counts by the state of the failure,
as `FailedValidating`."""
ALARMS: Mapping[str, str] = {
    "contention": "Contention",
    "internal": "Internal",
    "unavailable": "Unavailable",
    "unknown_format": "Internal",
}
"""The metric that counts a request as well if an operator may have to act, by its code."""

logger = logging.getLogger(__name__)


class Telemetry:
    """ASGI middleware that measures each request, and writes its line when it ends in any way."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._lines = request_lines()
        self._cold_start = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        status = 500
        begun = perf_counter()

        async def send_with_capacity(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if CAPACITY_HEADER in request.headers:
                    consumed = (b"consumed-capacity", _consumed(metrics).encode())
                    message["headers"] = [*message["headers"], consumed]
            await send(message)

        with measure_request() as metrics:
            try:
                await self._app(scope, receive, send_with_capacity)
            except BaseException:  # a cancelled request has no answer either
                context_of(scope).fail(INTERNAL, RequestState.PROCESSING)
                raise
            finally:
                try:
                    self.write(request, status, metrics, perf_counter() - begun)
                except Exception:  # the answer must not depend on the log
                    logger.exception("a request's log line could not be written")

    def write(self, request: Request, status: int, metrics: RequestMetrics, seconds: float) -> None:
        """Write the line of a request that ended with `status` after `seconds`."""
        context = context_of(request.scope)
        caller = context.caller
        line: dict[str, Any] = {
            "request_id": context.request_id,
            "function_request_id": getattr(
                request.scope.get("aws.context"), "aws_request_id", None
            ),
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
            "attempts": metrics.attempts,
            "retries": metrics.retries,
            "stale_heads": metrics.stale_heads,
            "dynamodb_requests": metrics.dynamodb_requests,
            "dynamodb_ms": round(metrics.dynamodb_seconds * 1000, 3),
            "read_units": metrics.read_units,
            "write_units": metrics.write_units,
            "latency_ms": round(seconds * 1000, 3),
            "cold_start": self._cold_start,
        }
        counts = {
            OUTCOMES.get(context.code, f"Failed{context.failed_in}"): 1,
            "Retries": metrics.retries,
            "StaleHeads": metrics.stale_heads,
            "ReadUnits": metrics.read_units,
            "WriteUnits": metrics.write_units,
        }
        if context.code in ALARMS:
            counts[ALARMS[context.code]] = 1
        self._lines.write(line, {**counts, "Latency": line["latency_ms"]})
        self._cold_start = False


def _consumed(metrics: RequestMetrics) -> str:
    units = f"read={metrics.read_units}, write={metrics.write_units}"
    return f"{units}, requests={metrics.dynamodb_requests}"


def _trace_id() -> str | None:
    """The X-Ray trace of the current call of the function."""
    root = re.match(r"Root=([^;]+)", os.environ.get("_X_AMZN_TRACE_ID", ""))
    return root and root[1]
