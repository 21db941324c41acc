"""Where a request's calls to DynamoDB run, and how much time they have.

Under a server a call runs in a thread, so that requests overlap; in Lambda, where there is one request at a time, it
runs where it is and no thread is paid for.
"""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import Request

from ledger_core.errors import UnavailableError
from ledger_core.processor import TIMEOUT_SECONDS
from ledger_core.settings import CONNECT_SECONDS_MAX, CONNECTIONS_MAX, READ_SECONDS_MAX

__all__ = ["Calls"]

T = TypeVar("T")


class Calls:
    """As many at once as there are connections."""

    def __init__(self) -> None:
        self._threads = asyncio.Semaphore(CONNECTIONS_MAX)  # waited for within a request's time, as the limiter is not
        self._limiter = CapacityLimiter(CONNECTIONS_MAX)

    async def run(self, request: Request, call: Callable[[float], T], queue: asyncio.Lock | None = None) -> T:
        """What `call` answers, given the seconds that it has: where it is in Lambda, else in a thread.

        The time that a request waits, for its turn in `queue` and for a thread, is taken from what it has.
        """
        timeout_seconds = _timeout_seconds(request)
        if _in_lambda(request):
            return call(timeout_seconds)
        now = asyncio.get_running_loop().time
        deadline = now() + timeout_seconds
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout_at(deadline):
                    if queue is not None:
                        await held.enter_async_context(queue)
                    await held.enter_async_context(self._threads)
            except TimeoutError:
                raise UnavailableError("The requests before this one took all the time there was.") from None
            return await to_thread.run_sync(lambda: call(deadline - now()), limiter=self._limiter)


def _in_lambda(request: Request) -> bool:
    return "aws.context" in request.scope


def _timeout_seconds(request: Request) -> float:
    """How long to keep trying: in Lambda, as long as the last call would still end before the function's time does."""
    remaining_time = getattr(request.scope.get("aws.context"), "get_remaining_time_in_millis", None)
    if remaining_time is None:
        return TIMEOUT_SECONDS
    return min(TIMEOUT_SECONDS, float(remaining_time()) / 1000 - CONNECT_SECONDS_MAX - READ_SECONDS_MAX)
