"""Where the calls of a request to DynamoDB run, and how much time they have.

Under a server a call runs in a thread, so that requests overlap. In Lambda, where a process has one
request at a time, it runs where it is, without a thread.
"""

import asyncio
import math
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import nullcontext
from typing import TypeVar

from anyio import CapacityLimiter, WouldBlock, to_thread
from fastapi import Request

from ledger_core.errors import UnavailableError
from ledger_core.http.request_context import context_of
from ledger_core.posting import TIMEOUT_SECONDS
from ledger_core.settings import CONNECT_SECONDS_MAX, CONNECTIONS_MAX, READ_SECONDS_MAX

__all__ = ["SLOW_CALLS_MAX", "Executor", "is_in_lambda", "seconds_left"]

SLOW_CALLS_MAX = 8
"""The most slow calls that run at once. The other connections are always free for short calls."""

TIME_IS_UP = "The requests before this one took all the time; send it again."

T = TypeVar("T")


class Executor:
    """Runs at most CONNECTIONS_MAX calls at once, of which at most SLOW_CALLS_MAX are slow."""

    def __init__(self) -> None:
        self._calls = CapacityLimiter(CONNECTIONS_MAX)
        self._slow_calls = CapacityLimiter(SLOW_CALLS_MAX)
        self._threads = CapacityLimiter(math.inf)
        """Does not limit: a call waits for its turn before it gets a thread."""

    async def run(
        self,
        request: Request,
        call: Callable[[float], T],
        *,
        is_slow: bool = False,
    ) -> T:
        """The result of `call`, which is given the seconds that the request has left.

        All waits and calls of a request share its time. A request waits for a call that has begun,
        even if it is cancelled.

        Args:
            request: the request that makes the call.
            call: blocks its thread.
            is_slow: true if it may send many requests to DynamoDB, as an audit does.

        Raises:
            UnavailableError: the time was up before the call began.
        """
        if is_in_lambda(request):
            return call(seconds_left(request))
        loop = asyncio.get_running_loop()
        deadline = _deadline_of(request, loop.time())
        slow_turn = _Turn(self._slow_calls) if is_slow else nullcontext()
        try:
            async with asyncio.timeout_at(deadline) as waiting, slow_turn, _Turn(self._calls):
                waiting.reschedule(None)  # because a call that has begun is waited for
                return await self._in_thread(lambda: call(deadline - loop.time()))
        except TimeoutError:
            if waiting.expired():
                raise UnavailableError(TIME_IS_UP) from None
            raise  # the call itself raised it

    async def wait(self, request: Request, turn: "Future[None]") -> None:
        """Wait until another request has done its part. The waiting takes no thread.

        Raises:
            UnavailableError: the time of the request was up before.
        """
        try:
            async with asyncio.timeout_at(_deadline_of(request, asyncio.get_running_loop().time())):
                await asyncio.shield(asyncio.wrap_future(turn))
        except TimeoutError:
            raise UnavailableError(TIME_IS_UP) from None

    async def _in_thread(self, call: Callable[[], T]) -> T:
        """The result of a call in a thread. It is waited for even if the request is cancelled."""
        ended: Future[None] = Future()

        def call_unless_cancelled() -> T:
            if not ended.set_running_or_notify_cancel():
                raise asyncio.CancelledError
            try:
                return call()
            finally:
                ended.set_result(None)

        try:
            return await to_thread.run_sync(call_unless_cancelled, limiter=self._threads)
        except asyncio.CancelledError:
            if not ended.cancel():
                await asyncio.wrap_future(ended)
            raise


class _Turn:
    """A turn in a limiter, which a request has until it leaves the context.

    It takes a free turn at once; the limiter's own context would go through the event loop first.
    """

    def __init__(self, limiter: CapacityLimiter) -> None:
        self._limiter = limiter

    async def __aenter__(self) -> None:
        try:
            self._limiter.acquire_on_behalf_of_nowait(self)
        except WouldBlock:
            await self._limiter.acquire_on_behalf_of(self)

    async def __aexit__(self, *_: object) -> None:
        self._limiter.release_on_behalf_of(self)


def is_in_lambda(request: Request) -> bool:
    """True if the request came to a Lambda function, which has one request at a time."""
    return "aws.context" in request.scope


def seconds_left(request: Request) -> float:
    """How long to keep trying. In Lambda the last call must end in the function's own time."""
    remaining_time = getattr(request.scope.get("aws.context"), "get_remaining_time_in_millis", None)
    if remaining_time is None:
        return TIMEOUT_SECONDS
    remaining_seconds = float(remaining_time()) / 1000
    return min(TIMEOUT_SECONDS, remaining_seconds - CONNECT_SECONDS_MAX - READ_SECONDS_MAX)


def _deadline_of(request: Request, now: float) -> float:
    """When the time of a request is up, which begins with the first wait or call."""
    context = context_of(request.scope)
    if context.deadline is None:
        context.deadline = now + seconds_left(request)
    return context.deadline
