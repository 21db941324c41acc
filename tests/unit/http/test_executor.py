"""The executor: how requests of a server wait for a turn, and what ends the wait."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from fastapi import Request

from ledger_core.errors import UnavailableError
from ledger_core.http.executor import SLOW_CALLS_MAX, Executor
from ledger_core.http.request_context import context_of
from ledger_core.posting import TIMEOUT_SECONDS
from ledger_core.settings import CONNECTIONS_MAX

SECONDS_MAX = 30
AUDITS = 100


def request() -> Request:
    return Request({"type": "http"})


def in_a_loop(run: Callable[[Executor], Coroutine[Any, Any, None]]) -> None:
    async def begin() -> None:
        await run(Executor())

    asyncio.run(asyncio.wait_for(begin(), SECONDS_MAX))


def test_timeout_error_of_a_call_is_raised() -> None:
    """A timeout of the call is not taken for a timeout of the wait."""

    def fail(_seconds: float) -> None:
        raise TimeoutError("of the call")

    async def run(calls: Executor) -> None:
        with pytest.raises(TimeoutError, match="of the call"):
            await calls.run(request(), fail)

    in_a_loop(run)


def test_cancelled_request_waits_for_its_call() -> None:
    """A cancelled request ends only after the call that it has begun."""

    async def run(calls: Executor) -> None:
        go_on = threading.Event()
        begun = threading.Event()

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


def test_calls_of_a_request_share_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second call has the time that the first has left."""
    monkeypatch.setattr("ledger_core.http.executor.TIMEOUT_SECONDS", 5)

    async def run(calls: Executor) -> None:
        same = request()
        first = await calls.run(same, lambda seconds: seconds)
        await asyncio.sleep(0.02)
        assert await calls.run(same, lambda seconds: seconds) <= first - 0.02

    in_a_loop(run)


def test_calls_at_once_are_limited_to_the_connections() -> None:
    """Other calls wait for a turn while they have time; each call that ends frees a turn."""

    async def run(calls: Executor) -> None:
        go_on = threading.Semaphore(0)
        begun: list[float] = []

        def call(seconds: float) -> None:
            begun.append(seconds)
            assert go_on.acquire(timeout=SECONDS_MAX)

        running = [
            asyncio.create_task(calls.run(request(), call)) for _ in range(CONNECTIONS_MAX + 2)
        ]
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


def test_wait_for_a_turn_is_part_of_the_time() -> None:
    """A call that has waited has the rest of the time."""

    async def run(calls: Executor) -> None:
        go_on = threading.Event()
        loop = asyncio.get_running_loop()
        blocking = [
            calls.run(request(), lambda _: go_on.wait(SECONDS_MAX)) for _ in range(CONNECTIONS_MAX)
        ]
        first = [asyncio.create_task(call) for call in blocking]
        await asyncio.sleep(0)
        late = request()
        second = asyncio.create_task(calls.run(late, lambda seconds: seconds))
        await asyncio.sleep(0.05)
        deadline = context_of(late.scope).deadline
        assert deadline is not None
        seconds_left = deadline - loop.time()
        go_on.set()
        assert await second <= seconds_left < TIMEOUT_SECONDS
        assert all(await asyncio.gather(*first))

    in_a_loop(run)


async def until(is_true: Callable[[], bool]) -> None:
    """Wait for a condition; `in_a_loop` limits the time."""
    while not is_true():
        await asyncio.sleep(0.001)


def test_slow_calls_leave_turns_to_other_calls() -> None:
    """While 100 audits hang, only `SLOW_CALLS_MAX` of them run, and other calls run at once."""

    async def run(calls: Executor) -> None:
        go_on = threading.Event()
        begun: list[float] = []

        def audit(seconds: float) -> None:
            begun.append(seconds)
            assert go_on.wait(SECONDS_MAX)

        audits = [
            asyncio.create_task(calls.run(request(), audit, is_slow=True)) for _ in range(AUDITS)
        ]
        await until(lambda: len(begun) == SLOW_CALLS_MAX)
        for _ in range(CONNECTIONS_MAX):
            assert await calls.run(request(), lambda _: True)
        assert (len(begun), [audit for audit in audits if audit.done()]) == (SLOW_CALLS_MAX, [])
        go_on.set()
        await asyncio.gather(*audits)
        assert len(begun) == AUDITS

    in_a_loop(run)


def test_slow_calls_have_few_turns() -> None:
    """Slow calls take at most a quarter of the connections."""
    assert 1 < SLOW_CALLS_MAX <= CONNECTIONS_MAX / 4


def test_call_that_has_begun_may_end_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The request is answered with the result of the call, and not with a timeout."""
    monkeypatch.setattr("ledger_core.http.executor.TIMEOUT_SECONDS", 0.05)

    async def run(calls: Executor) -> None:
        go_on = threading.Event()
        running = asyncio.create_task(calls.run(request(), lambda _: go_on.wait(SECONDS_MAX)))
        await asyncio.sleep(0.1)
        assert not running.done()
        go_on.set()
        assert await running is True

    in_a_loop(run)


def test_cancelled_request_keeps_its_turn_until_its_call_ends() -> None:
    """Cancelled requests whose calls still run count as calls at once."""

    async def run(calls: Executor) -> None:
        go_on = threading.Event()
        begun: list[float] = []

        def call(seconds: float) -> None:
            begun.append(seconds)
            assert go_on.wait(SECONDS_MAX)

        first = [asyncio.create_task(calls.run(request(), call)) for _ in range(CONNECTIONS_MAX)]
        await until(lambda: len(begun) == CONNECTIONS_MAX)
        for task in first:
            task.cancel()
        later = [asyncio.create_task(calls.run(request(), call)) for _ in range(3)]
        await asyncio.sleep(0.05)
        assert len(begun) == CONNECTIONS_MAX
        go_on.set()
        await asyncio.gather(*later)
        ended = await asyncio.gather(*first, return_exceptions=True)
        assert {type(outcome) for outcome in ended} == {asyncio.CancelledError}

    in_a_loop(run)


@pytest.mark.parametrize("slow", [False, True])
def test_request_that_is_cancelled_while_it_waits_makes_no_call(slow: bool) -> None:
    """The request ends at once, and its turn goes to the next request."""

    async def run(calls: Executor) -> None:
        go_on = threading.Event()
        begun: list[float] = []

        def call(seconds: float) -> None:
            begun.append(seconds)
            assert go_on.wait(SECONDS_MAX)

        turns = SLOW_CALLS_MAX if slow else CONNECTIONS_MAX
        first = [
            asyncio.create_task(calls.run(request(), call, is_slow=slow)) for _ in range(turns)
        ]
        await until(lambda: len(begun) == turns)
        waiting = asyncio.create_task(calls.run(request(), call, is_slow=slow))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        go_on.set()
        await asyncio.gather(*first)
        assert await calls.run(request(), lambda _: True, is_slow=slow)
        assert len(begun) == turns

    in_a_loop(run)


def test_call_that_is_cancelled_before_it_begins_is_not_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Even if a thread takes the call later, the call does nothing."""
    kept: list[Callable[[], object]] = []

    async def run_sync(call: Callable[[], object], **_: object) -> None:
        kept.append(call)
        await asyncio.sleep(SECONDS_MAX)

    monkeypatch.setattr("ledger_core.http.executor.to_thread.run_sync", run_sync)

    async def run(calls: Executor) -> None:
        made: list[float] = []
        task = asyncio.create_task(calls.run(request(), made.append))
        await until(lambda: len(kept) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(asyncio.CancelledError):
            kept[0]()
        assert made == []

    in_a_loop(run)
