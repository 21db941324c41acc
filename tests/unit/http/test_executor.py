"""How a server's requests wait for their turns, and what happens to those that wait no longer."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from fastapi import Request

from ledger_core.errors import UnavailableError
from ledger_core.http.executor import Executor
from ledger_core.http.request_context import context_of
from ledger_core.posting import TIMEOUT_SECONDS
from ledger_core.settings import CONNECTIONS_MAX

SECONDS_MAX = 30


def request() -> Request:
    return Request({"type": "http"})


def in_a_loop(run: Callable[[Executor], Coroutine[Any, Any, None]]) -> None:
    async def begin() -> None:
        await run(Executor())

    asyncio.run(asyncio.wait_for(begin(), SECONDS_MAX))


def test_time_out_of_the_call_itself_is_its_own() -> None:
    """It does not take a place in the line."""

    def fail(_seconds: float) -> None:
        raise TimeoutError("of the call")

    async def run(calls: Executor) -> None:
        with pytest.raises(TimeoutError, match="of the call"):
            await calls.run(request(), fail)

    in_a_loop(run)


def test_cancelled_request_waits_for_its_call() -> None:
    """A call that is under way is not left behind."""

    async def run(calls: Executor) -> None:
        go_on, begun = threading.Event(), threading.Event()

        def call(_seconds: float) -> None:
            begun.set()
            assert go_on.wait(SECONDS_MAX)

        first = asyncio.create_task(calls.run(request(), call))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        first.cancel()
        await asyncio.sleep(0.05)
        assert not first.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await first

    in_a_loop(run)


def test_calls_of_one_request_have_its_time_in_common(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second has what the first has left."""
    monkeypatch.setattr("ledger_core.http.executor.TIMEOUT_SECONDS", 5)

    async def run(calls: Executor) -> None:
        one = request()
        first = await calls.run(one, lambda seconds: seconds)
        await asyncio.sleep(0.02)
        assert await calls.run(one, lambda seconds: seconds) <= first - 0.02

    in_a_loop(run)


def test_no_more_calls_at_once_than_there_are_connections() -> None:
    """Those beyond wait for a turn, and as long as they have time; one that ends makes room for one."""

    async def run(calls: Executor) -> None:
        go_on, begun = threading.Semaphore(0), list[float]()

        def call(seconds: float) -> None:
            begun.append(seconds)
            assert go_on.acquire(timeout=SECONDS_MAX)

        running = [asyncio.create_task(calls.run(request(), call)) for _ in range(CONNECTIONS_MAX + 2)]
        while len(begun) < CONNECTIONS_MAX:
            await asyncio.sleep(0.001)
        late = request()
        context_of(late.scope).deadline = asyncio.get_running_loop().time()
        with pytest.raises(UnavailableError):
            await calls.run(late, call)
        assert len(begun) == CONNECTIONS_MAX
        go_on.release()
        while len(begun) < CONNECTIONS_MAX + 1:
            await asyncio.sleep(0.001)
        assert sum(task.done() for task in running) <= 1
        for _ in running:
            go_on.release()
        await asyncio.gather(*running)
        assert len(begun) == CONNECTIONS_MAX + 2

    in_a_loop(run)


def test_time_spent_waiting_is_part_of_the_time_there_is() -> None:
    """A call has what is left of the time, not all of it."""

    async def run(calls: Executor) -> None:
        go_on, loop = threading.Event(), asyncio.get_running_loop()
        first = [
            asyncio.create_task(calls.run(request(), lambda _: go_on.wait(SECONDS_MAX))) for _ in range(CONNECTIONS_MAX)
        ]
        await asyncio.sleep(0)
        begun = loop.time()
        second = asyncio.create_task(calls.run(request(), lambda seconds: seconds))
        await asyncio.sleep(0.05)
        waited = loop.time() - begun
        go_on.set()
        assert await second <= TIMEOUT_SECONDS - waited
        assert all(await asyncio.gather(*first))

    in_a_loop(run)
