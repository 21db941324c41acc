"""What one request uses of DynamoDB, counted call by call and logged when the request ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

__all__ = ["RequestMetrics", "current_request_metrics", "measure_request"]


@dataclass(kw_only=True)
class RequestMetrics:
    """Counts of one request, in the order in which they come about."""

    dynamodb_requests: int = 0
    """Requests sent to DynamoDB, answered or not."""
    dynamodb_seconds: float = 0.0
    """How long they took, together."""
    read_units: float = 0.0
    write_units: float = 0.0
    """Capacity that DynamoDB says was consumed; it says nothing of a transaction that it cancels."""
    attempts: int = 0
    """Transactions begun to append the entry; one that is sent again because its outcome is unknown counts once."""
    stale_heads: int = 0
    """Transactions cancelled because another writer had moved the balance, each begun anew from the fresh one."""
    retries: int = 0
    """Pauses before another try: after conflicts, throttling and lost answers, and from the second stale head on."""


_CURRENT: ContextVar[RequestMetrics | None] = ContextVar("request_metrics", default=None)


def current_request_metrics() -> RequestMetrics:
    """What the request of this task or thread has used so far; nobody asks for it when no request is measured."""
    return _CURRENT.get() or RequestMetrics()


@contextmanager
def measure_request() -> Iterator[RequestMetrics]:
    """Measure what is done inside, in the threads that it waits for too."""
    metrics = RequestMetrics()
    token = _CURRENT.set(metrics)
    try:
        yield metrics
    finally:
        _CURRENT.reset(token)
