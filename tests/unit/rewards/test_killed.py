"""Killed, repeated and overlapping sweeps grant each owner a period's reward once."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from functions.daily_reward.function import STOP_SECONDS
from functions.example_app.operations import ExampleAppOperations
from ledger_core import InsufficientBalanceError
from ledger_core.periods import Period
from ledger_core.posting import OperationProcessor
from ledger_core.rewards import Segment, sweep
from ledger_core.rewards import batch_writer as batches
from tests.fakes.cloud import Cloud, Context, KilledError, Life
from tests.support import operation, spend

OWNERS = 50
DAY = "2026-11-22"


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a sweep of few owners send many requests, at which it can be killed."""
    monkeypatch.setattr(sweep, "PAGE_OWNERS_MAX", 15)
    monkeypatch.setattr(batches, "WRITES_MAX", 4)


@contextmanager
def beside(work: Callable[[int], None], threads: int = 1) -> Iterator[None]:
    """Repeat some work in threads while the block runs."""
    done = threading.Event()

    def again(number: int) -> None:
        while not done.is_set():
            work(number)

    with ThreadPoolExecutor(threads) as pool:
        working = [pool.submit(again, number) for number in range(threads)]
        try:
            yield
        finally:
            done.set()
        for future in working:
            future.result()


@pytest.mark.parametrize("after", [True, False], ids=["after it is answered", "before it is sent"])
def test_killed_at_any_request_and_run_again(cloud: Cloud, after: bool) -> None:
    """The function may be killed at any request; the messages on the queue grant the rest once."""
    owners = cloud.seed(OWNERS)
    days: list[str] = []
    life = Life()
    while True:
        day = f"2026-{1 + len(days) // 28:02}-{1 + len(days) % 28:02}"
        life = Life(1 + 3 * len(days), after)
        with suppress(KilledError):
            cloud.run(day, function=cloud.function(life))
        if not life.ended:
            break
        days.append(day)
        with suppress(KilledError):
            cloud.drain(cloud.function(Life(9)))  # the next worker is killed too
        cloud.run(day)  # the scheduler has no answer, so it starts the function again
    assert len(days) >= 6
    cloud.check(owners, [*days, day])
    assert cloud.dead_letters() == []


def test_messages_come_twice_and_out_of_order(cloud: Cloud) -> None:
    """Old and new places of a segment, in any order and at the same time, grant no reward twice."""
    owners = cloud.seed(OWNERS)
    function = cloud.function()
    function({"period": DAY, "segments": 3}, Context())
    seen = []

    def receive(record: dict[str, Any]) -> None:
        cloud.function()({"Records": [record]}, Context(STOP_SECONDS + 1))

    while records := cloud.records():
        seen += records
        copies = [*reversed(records), *records]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(receive, copies))
        for record in records:
            cloud.sqs.delete_message(QueueUrl=cloud.url, ReceiptHandle=record["receiptHandle"])
    cloud.drain()
    for record in reversed(seen):
        assert function({"Records": [record]}, Context()) == {"batchItemFailures": []}
    cloud.drain()
    cloud.check(owners, [DAY])


def test_run_again_grants_nothing(cloud: Cloud) -> None:
    """A second run of a day grants nothing, at once or after a week of other days."""
    owners = cloud.seed(OWNERS)
    week = [f"2026-11-{day}" for day in range(20, 27)]
    for day in [week[0], week[0], *week, week[0]]:
        cloud.run(day)
    cloud.check(owners, week)


def test_two_dates_at_once(cloud: Cloud) -> None:
    """Runs of two days at the same time grant both rewards, and the mark of the later day stays."""
    owners = cloud.seed(OWNERS)
    for day in ("2026-11-22", "2026-11-21"):
        cloud.function()({"period": day, "segments": 2}, Context())
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: cloud.drain(), range(3)))
    cloud.drain()
    for day in ("2026-11-21", "2026-11-22"):
        cloud.run(day)
    cloud.check(owners, ["2026-11-21", "2026-11-22"])
    accounts = [cloud.store().account(owner_id, consistent=True) for owner_id in owners]
    assert {account.marks["DAILY_REWARD:day"] for account in accounts} == {"2026-11-22"}


def test_owners_spend_while_they_are_rewarded(cloud: Cloud) -> None:
    """While four clients spend, each owner is rewarded, and no entry is lost."""
    owners = cloud.seed(OWNERS)
    accepted = [0] * 4

    def client(number: int) -> None:
        owner_id = owners[(accepted[number] * 7 + number * 3) % OWNERS]
        with suppress(InsufficientBalanceError):
            processor.process(spend(1, f"{number}-{accepted[number]}", owner_id=owner_id))
        accepted[number] += 1

    processor = OperationProcessor(cloud.store(), ExampleAppOperations)
    days = ["2026-11-22", "2026-11-23", "2026-11-24"]
    with beside(client, 4):
        for day in days:
            cloud.run(day, segments=3)
    assert min(accepted) > 5
    store = cloud.store()
    for owner_id in owners:
        entries, _ = store.page(owner_id, limit=1000)
        others = [entry for entry in entries if entry.operation != "DAILY_REWARD"]
        cloud.check([owner_id], days, others=len(others))


def test_owners_appear_during_the_scan(cloud: Cloud) -> None:
    """A sweep rewards each owner from before its begin; a new owner gets the next sweep or this."""
    before = cloud.seed(OWNERS)
    new: list[str] = []

    def sign_up(_number: int) -> None:
        owner_id = f"new-{len(new)}"
        processor.process(operation(owner_id=owner_id))
        new.append(owner_id)

    processor = OperationProcessor(cloud.store(), ExampleAppOperations)
    with beside(sign_up):
        cloud.run(DAY, segments=3)
    cloud.check(before, [DAY])
    cloud.run(DAY)
    assert new
    cloud.check([*before, *new], [DAY])


def test_clock_passes_midnight(cloud: Cloud) -> None:
    """The day is that of the scheduled time, also if the sweep ends after midnight."""
    owners = cloud.seed(10)
    late = datetime(2026, 11, 22, 23, 59, 59, tzinfo=UTC)
    times = iter([late + timedelta(seconds=step) for step in range(1000)])
    cloud.clock = lambda: next(times)
    cloud.run("day", time="2026-11-22T23:59:00Z")
    cloud.check(owners, ["2026-11-22"])
    assert next(times).date().isoformat() == "2026-11-23"


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/Santiago"])
@pytest.mark.parametrize("first", ["2026-03-25", "2026-10-21", "2026-12-29"])
def test_clocks_change(cloud: Cloud, zone: str, first: str) -> None:
    """Each day of the time zone is granted once, also when its clocks change."""
    owners = cloud.seed(2)
    days = [Period.parse(first).first_day + timedelta(days=day) for day in range(7)]
    for day in days:
        due = datetime(day.year, day.month, day.day, 4, tzinfo=ZoneInfo(zone)).astimezone(UTC)
        cloud.run("day", segments=1, time=due.isoformat(), time_zone=zone)
    cloud.check(owners, [day.isoformat() for day in days])


def test_time_runs_out_again_and_again(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker with little time puts the rest of its segment back; each owner is counted once."""
    owners = cloud.seed(OWNERS)
    function = cloud.function()
    monkeypatch.setattr(sweep, "PAGE_OWNERS_MAX", 6)
    ticks = iter(range(10_000))
    monkeypatch.setattr("functions.daily_reward.function.Sweep", slow(lambda: float(next(ticks))))
    function({"period": DAY, "segments": 2}, Context())
    rounds = 0
    places: set[str | None] = set()
    finished: list[Segment] = []
    monkeypatch.setattr(
        "functions.daily_reward.runs.Runs.finish",
        lambda _self, _nonce, segment: finished.append(segment),
    )
    while records := cloud.records():
        places |= {Segment.model_validate_json(record["body"]).start for record in records}
        for record in records:
            answer = function({"Records": [record]}, Context(STOP_SECONDS + 6))
            assert answer == {"batchItemFailures": []}
            cloud.sqs.delete_message(QueueUrl=cloud.url, ReceiptHandle=record["receiptHandle"])
        rounds += 1
    assert rounds >= 3
    assert len(places) > 3
    cloud.check(owners, [DAY])
    assert sum(segment.tally.granted for segment in finished) == OWNERS
    assert sum(segment.tally.already for segment in finished) == 0


def slow(monotonic: Callable[[], float]) -> Callable[..., sweep.Sweep]:
    """A sweep with another monotonic clock."""
    real = sweep.Sweep
    return lambda *arguments: real(*arguments, monotonic=monotonic)
