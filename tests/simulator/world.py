"""A world of tasks, processes that crash, time and DynamoDB, where one thing happens at a time.

A task runs until it waits for DynamoDB, for time or for another task. Then the world chooses the
next event. All chance comes from `Choices`, so the same choices make the same history.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any, Self, TypeVar

from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError
from greenlet import getcurrent, greenlet

from tests.simulator.model import ModelDynamoDB, Transaction, client_error, of_single_write
from tests.support import CONFIRMED

__all__ = [
    "BEGINNING",
    "FAULTS",
    "Choices",
    "CrashedError",
    "Executor",
    "Process",
    "Stream",
    "World",
]

BEGINNING = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
STEP_SECONDS = 0.001
FREEZE_SECONDS = 700.0
"""Longer than DynamoDB remembers a token, and than any caller waits."""
LAGS_SECONDS = (0.0, 0.005, 0.1, 1.0)
"""How far the index may be behind, and eventually consistent reads at most."""
SKEWS_SECONDS = (0.0, -2.0, 2.0, -3600.0, 3600.0)
STEPS_TO_END = 10_000
"""By which all must have come to an end after the faults."""

FAULTS = (
    "throttled",
    "failed",
    "never sent",
    "answer lost",
    "late",
    "conflict",
    "failed after all",
    "200 of another",
    "200 and no body",
    "frozen",
    "frozen after all",
)
"""The faults of a request.

A request that "failed after all" is written in spite of its 500. A late request is written after
its caller gave up. A "200 of another" comes from a proxy that does not forward the request. A
frozen process stops before it sends the request, or before it gets the answer of a write.
"""
SLEEPS_SHARE = 0.5
"""How often the monotonic clock stands still while a process is frozen."""
FAULTS_SHARE = 0.12
CRASHES_SHARE = 0.006
SKEWS_SHARE = 0.02

T = TypeVar("T")


class CrashedError(BaseException):
    """The process is gone: nothing catches this but who called it from outside."""


class Stream:
    """The choices of a stream: drawn by chance, or repeated, and 0 after the last one."""

    def __init__(self, chance: random.Random | None, repeat: Sequence[int]) -> None:
        self._random = chance
        self._repeat = repeat
        self.made: list[int] = []

    @property
    def exhausted(self) -> bool:
        """Whether all that was to be repeated has been."""
        return not self._random and len(self.made) >= len(self._repeat)

    def below(self, count: int) -> int:
        if self._random:
            choice = int(self._random.random() * count)
        else:
            choice = 0 if self.exhausted else min(self._repeat[len(self.made)], count - 1)
        self.made.append(choice)
        return choice

    def chance(self, share: float) -> bool:
        return self.below(1000) >= 1000 * (1 - share)

    def of(self, what: Sequence[T]) -> T:
        return what[self.below(len(what))]


class Choices:
    """All random choices, in independent streams: drawn from a seed, or repeated."""

    def __init__(
        self, seed: int | None = None, *, repeat: Mapping[str, Sequence[int]] | None = None
    ) -> None:
        self._seed = seed
        self._repeat = repeat or {}
        self._streams: dict[str, Stream] = {}

    def __getitem__(self, name: str) -> Stream:
        if name not in self._streams:
            chance = None if self._seed is None else random.Random(f"{self._seed} {name}")
            self._streams[name] = Stream(chance, self._repeat.get(name, ()))
        return self._streams[name]

    @property
    def made(self) -> dict[str, list[int]]:
        """Those that were made; to repeat them makes the same history."""
        return {name: stream.made for name, stream in self._streams.items()}


@dataclass(eq=False)
class Task:
    """Something that goes on, in a process unless that is None."""

    name: str
    process: "Process | None"
    greenlet: Any = None
    wakes_at: float = 0.0
    waits_for: Callable[[], bool] | None = None
    """What wakes it before that."""
    result: Any = None
    error: BaseException | None = None
    done: bool = False


@dataclass(eq=False)
class Process:
    """A Lambda environment or a server, with its own clock; a crash deletes its memory."""

    world: "World"
    name: str
    is_server: bool = False
    """Whether it takes several requests at once; an environment of Lambda takes one."""
    skew_seconds: float = 0.0
    slept_seconds: float = 0.0
    crashed: bool = False
    busy: bool = False
    post: Any = None
    """What serves its requests, once it has begun to."""

    def clock(self) -> datetime:
        if self.world.chance("clocks", SKEWS_SHARE):
            self.skew_seconds = self.world.choices["clocks"].of(SKEWS_SECONDS)
        return BEGINNING + timedelta(seconds=self.world.now + self.skew_seconds)

    def monotonic(self) -> float:
        return self.world.now - self.slept_seconds

    def freeze(self) -> None:
        if self.world.choices["faults"].chance(SLEEPS_SHARE):
            self.slept_seconds += FREEZE_SECONDS
        self.world.sleep(FREEZE_SECONDS)

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        """The client of DynamoDB."""
        if operation.startswith("_"):
            raise AttributeError(operation)
        return lambda **arguments: self.world.request(self, operation, arguments)


class World:
    """Everything there is, from the first step to the last.

    Args:
        choices: the chance.
        tables, index: as for `ModelDynamoDB`.
        tell: is told every step.
    """

    def __init__(
        self,
        choices: Choices,
        tables: Mapping[str, str],
        *,
        index: tuple[str, str, str],
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.choices = choices
        self.dynamodb = ModelDynamoDB(tables, index=index, now=lambda: self.now)
        self.now = 0.0
        self.steps = 0
        self.requests = 0
        self.calm = False
        """Whether there are no faults any more."""
        self.faults: dict[str, int] = dict.fromkeys((*FAULTS, "crash"), 0)
        self._tell = tell
        self._tasks: list[Task] = []
        self._events: list[Callable[[], None]] = []
        self._current: Task | None = None
        self._hub: Any = getcurrent()

    def tell(self, what: str, of: str = "") -> None:
        if self._tell:
            name = self._current.name if self._current else ""
            self._tell(f"{self.steps:5} {self.now:9.3f}s  {of or name:<12} {what}")

    def chance(self, stream: str, share: float) -> bool:
        """Whether something bad happens."""
        return not self.calm and self.choices[stream].chance(share)

    def spawn(self, name: str, run: Callable[[], Any], process: Process | None = None) -> Task:
        task = Task(name, process)

        def body() -> None:
            try:
                task.result = run()
            except BaseException as error:  # the task that waits for it is told, or else the world
                task.error = error
            task.done = True

        task.greenlet = greenlet(body, self._hub)
        self._tasks.append(task)
        return task

    def run(self, until: Callable[["World"], bool] = lambda world: False) -> None:
        """Let everything happen, until nothing is left to."""
        last, turns = inf, self.choices["turns"]
        while self._tasks or self._events:
            self.calm = self.calm or until(self)
            last = min(last, self.steps + STEPS_TO_END) if self.calm else inf
            if self.dynamodb.unindexed:
                self.dynamodb.follow()
            ready = [task for task in self._tasks if self._is_ready(task)]
            if not ready and not self._events:
                self.now = min(task.wakes_at for task in self._tasks)
                if self.now == inf:
                    raise AssertionError("all wait for one another")
                continue
            self.steps += 1
            self.now += STEP_SECONDS
            if self.steps > last:
                raise AssertionError("it does not come to an end")
            choice = turns.below(len(ready) + len(self._events))
            if choice < len(ready):
                self._resume(ready[choice])
            else:
                self._events.pop(choice - len(ready))()
        self.dynamodb.follow(to_the_end=True)

    def invoke(self, process: Process, run: Callable[[], T]) -> T:
        """Run something in a process, and wait for it.

        Raises:
            CrashedError: the process crashed in the middle.
        """
        task = self._task
        task.process, task.name, name = process, f"{task.name}@{process.name}", task.name
        try:
            return run()
        finally:
            task.process, task.name = None, name

    def sleep(self, seconds: float) -> None:
        self.wait_for(None, deadline=self.now + seconds)

    def wait_for(self, is_over: Callable[[], bool] | None, *, deadline: float = inf) -> bool:
        """Wait until something is so; False when the time was up before."""
        self._task.waits_for, self._task.wakes_at = is_over, deadline
        self._hub.switch()
        return is_over is None or is_over()

    def request(self, process: Process, operation: str, arguments: dict[str, Any]) -> Any:
        """What a client of DynamoDB gets."""
        self.sleep(0.0)
        self.requests += 1
        fault = self._fault(process)
        if self._tell:
            self.tell(f"{operation} {_in_words(arguments)}" + (f"  [{fault}]" if fault else ""))
        if fault == "frozen":
            process.freeze()
        elif fault == "never sent":
            raise EndpointConnectionError(endpoint_url="dynamodb")
        elif fault == "throttled":
            raise client_error("ThrottlingException")
        elif fault == "failed":
            raise client_error("InternalServerError", status=500)
        elif fault == "200 of another":
            return {}
        flight = _Flight(self, operation, arguments, self._busy(operation, arguments, fault))
        self._events.append(flight.arrive)
        if fault != "late":
            self.wait_for(lambda: flight.landed)
        if fault == "frozen after all" and operation == "transact_write_items":
            process.freeze()
        if fault in {"late", "answer lost", "frozen after all"}:
            raise ReadTimeoutError(endpoint_url="dynamodb")
        if fault == "failed after all":
            raise client_error("InternalServerError", status=500)
        if fault == "200 and no body":
            return {}
        if flight.error:
            self.tell(f"-> {_reasons(flight.error)}")
            raise flight.error
        return flight.answer

    def land(self, event: Callable[[], None]) -> None:
        """Let something happen at a later step."""
        self._events.append(event)

    @property
    def _task(self) -> Task:
        assert self._current is not None
        return self._current

    def _is_ready(self, task: Task) -> bool:
        if task.wakes_at <= self.now or (task.process and task.process.crashed):
            return True
        return task.waits_for is not None and task.waits_for()

    def _fault(self, process: Process) -> str | None:
        if not self.chance("faults", FAULTS_SHARE):
            return None
        fault = self.choices["faults"].of(FAULTS)
        self.faults[fault] += 1
        return fault

    def _busy(self, operation: str, arguments: dict[str, Any], fault: str | None) -> dict[int, str]:
        if fault != "conflict" or operation != "transact_write_items":
            return {}
        return {
            self.choices["faults"].below(len(arguments["TransactItems"])): "TransactionConflict"
        }

    def _resume(self, task: Task) -> None:
        if task.process and not task.process.crashed and self.chance("crashes", CRASHES_SHARE):
            self.faults["crash"] += 1
            self.tell("crashes", of=task.process.name)
            task.process.crashed = True
        self._current = task
        if task.process and task.process.crashed:
            task.done = not task.greenlet  # had not begun
            if not task.done:
                task.greenlet.throw(CrashedError())
        else:
            task.greenlet.switch()
        self._current = None
        if task.done:
            self._tasks.remove(task)
            if task.error and not task.process:
                raise task.error


class _Flight:
    """A request on its way to DynamoDB and back."""

    def __init__(
        self, world: World, operation: str, arguments: dict[str, Any], busy: dict[int, str]
    ) -> None:
        self._world, self._operation, self._arguments, self._busy = (
            world,
            operation,
            arguments,
            busy,
        )
        self.landed = False
        self.answer: Any = dict(CONFIRMED)
        self.error: ClientError | None = None

    def arrive(self) -> None:
        world, operation, arguments = self._world, self._operation, self._arguments
        try:
            if operation in {"put_item", "update_item"}:
                kind = "Put" if operation == "put_item" else "Update"
                self._commit_later(world.dynamodb.prepare(TransactItems=[{kind: arguments}]))
                return
            if operation == "transact_write_items":
                self._commit_later(world.dynamodb.prepare(**arguments, busy=self._busy))
                return
            if operation == "get_item":
                arguments["stale"] = self._is_stale(arguments)
            self.answer = getattr(world.dynamodb, operation)(**arguments)
        except ClientError as error:
            self.error = (
                of_single_write(error) if operation in {"put_item", "update_item"} else error
            )
        self.landed = True

    def _commit_later(self, transaction: Transaction) -> None:
        def commit() -> None:
            self._world.dynamodb.commit(
                transaction, lag_seconds=self._world.choices["lag"].of(LAGS_SECONDS)
            )
            self.landed = True

        self._world.land(commit)

    def _is_stale(self, arguments: dict[str, Any]) -> bool:
        changed_at = self._world.dynamodb.changed_at(arguments["TableName"], arguments["Key"])
        return self._world.now - changed_at < LAGS_SECONDS[-1] and self._world.chance("lag", 0.5)


class Executor:
    """A pool of tasks where the ledger has one of threads; all belong to one process."""

    def __init__(self, world: World, process: Process) -> None:
        self._world, self._process = world, process
        self._tasks: list[Task] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._process.crashed:
            self._world.wait_for(lambda: all(task.done for task in self._tasks))

    def submit(self, run: Callable[[], Any]) -> "_Future":
        name = f"{self._process.name}.{len(self._tasks) % 4}"
        self._tasks.append(self._world.spawn(name, run, self._process))
        return _Future(self._world, self._tasks[-1])


@dataclass
class _Future:
    world: World
    task: Task

    def result(self) -> Any:
        self.world.wait_for(lambda: self.task.done)
        if self.task.error:
            raise self.task.error
        return self.task.result


def _in_words(arguments: Mapping[str, Any]) -> str:
    """What a request is about."""
    words = []
    for one in arguments.get("TransactItems", [{"": arguments}]):
        ((kind, what),) = one.items()
        item = what.get("Item") or what.get("Key") or what.get("ExpressionAttributeValues") or {}
        values = what.get("ExpressionAttributeValues", {}) if kind == "Update" else item
        key = next(
            (item[name]["S"] for name in ("entry_key", "account", ":account") if name in item), ""
        )
        told = ("id", "amount", "balance_after", ":known_count", ":entry_count", ":balance")
        words.append(
            " ".join(
                [kind, key, *(f"{name}={values[name]['N']}" for name in told if name in values)]
            ).strip()
        )
    return ", ".join(words[:4]) + (f" and {len(words) - 4} more" if len(words) > 4 else "")


def _reasons(error: ClientError) -> str:
    reasons = [reason["Code"] for reason in error.response.get("CancellationReasons", ())]
    return f"{error.response['Error']['Code']} {reasons if len(reasons) < 5 else ''}".strip()
