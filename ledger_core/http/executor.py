"""Where a request's calls to DynamoDB run, and how much time they have.

Under a server a call runs in a thread, so that requests overlap; in Lambda, where there is one request at a time, it
runs where it is and no thread is paid for.
"""

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from fastapi import Request

from ledger_core.errors import UnavailableError
from ledger_core.http.request_context import context_of
from ledger_core.posting import TIMEOUT_SECONDS
from ledger_core.settings import CONNECT_SECONDS_MAX, CONNECTIONS_MAX, READ_SECONDS_MAX

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

__all__ = ["Executor", "is_in_lambda", "seconds_left"]

T = TypeVar("T")


class Executor:
    """As many at once as there are connections."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(CONNECTIONS_MAX)
        self._threads: ThreadPoolExecutor | None = None

    async def run(self, request: Request, call: Callable[[float], T]) -> T:
        """What `call` answers, given the seconds that it has: where it is in Lambda, else in a thread.

        The time that a request waits for a thread is taken from what it has, for all of its calls.
        """
        seconds = seconds_left(request)
        if is_in_lambda(request):
            return call(seconds)
        loop = asyncio.get_running_loop()
        context = context_of(request.scope)
        if context.deadline is None:
            context.deadline = loop.time() + seconds
        deadline = context.deadline
        try:
            async with asyncio.timeout_at(deadline) as waiting, self._turns:
                waiting.reschedule(None)  # for a call that is under way is waited for
                run = partial(copy_context().run, lambda: call(deadline - loop.time()))
                return await _to_its_end(loop.run_in_executor(self._executor(), run))
        except TimeoutError:
            if not waiting.expired():
                raise
            raise UnavailableError("The requests before this one took all the time there was.") from None

    def _executor(self) -> "ThreadPoolExecutor":
        if self._threads is None:
            from concurrent.futures import ThreadPoolExecutor  # which Lambda does not pay for

            self._threads = ThreadPoolExecutor(CONNECTIONS_MAX)
        return self._threads


async def _to_its_end(running: "asyncio.Future[T]") -> T:
    """What a thread comes to. It is waited for even by who is cancelled, whose place it has until then."""
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


def is_in_lambda(request: Request) -> bool:
    """Whether a request came to a Lambda function, which has one request at a time."""
    return "aws.context" in request.scope


def seconds_left(request: Request) -> float:
    """How long to keep trying: in Lambda, as long as the last call would still end before the function's time does."""
    remaining_time = getattr(request.scope.get("aws.context"), "get_remaining_time_in_millis", None)
    if remaining_time is None:
        return TIMEOUT_SECONDS
    return min(TIMEOUT_SECONDS, float(remaining_time()) / 1000 - CONNECT_SECONDS_MAX - READ_SECONDS_MAX)
