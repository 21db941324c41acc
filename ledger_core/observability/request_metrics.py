"""Count what a request uses of DynamoDB. The counts are logged when the request ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

__all__ = ["RequestMetrics", "current_request_metrics", "measure_request"]


@dataclass(kw_only=True)
class RequestMetrics:
    """The counts of one request."""

    dynamodb_requests: int = 0
    """Requests sent to DynamoDB, answered or not."""
    dynamodb_seconds: float = 0.0
    """The time that these requests took, in total."""
    read_units: float = 0.0
    write_units: float = 0.0
    """Capacity that DynamoDB reports. It reports none for a transaction that it cancels."""
    attempts: int = 0
    """Transactions planned. One that is sent again because its outcome is unknown counts once."""
    stale_heads: int = 0
    """Transactions cancelled because another writer moved the account, and then planned anew."""
    retries: int = 0
    """Pauses before a retry: after conflicts, throttling, lost answers, repeated stale heads."""


_CURRENT: ContextVar[RequestMetrics | None] = ContextVar("request_metrics", default=None)


def current_request_metrics() -> RequestMetrics:
    """The counts of the request that this task or thread works for.

    While no request is measured, these are counts that nothing reads.
    """
    return _CURRENT.get() or RequestMetrics()


@contextmanager
def measure_request() -> Iterator[RequestMetrics]:
    """Count what happens in this context, and in the threads that it waits for."""
    metrics = RequestMetrics()
    token = _CURRENT.set(metrics)
    try:
        yield metrics
    finally:
        _CURRENT.reset(token)
