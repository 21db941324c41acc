"""Sweeps that are killed, repeated, overlapped, delivered twice: each owner has one reward for the period, not two."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
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
    """Many requests for few owners, so that there is much to be killed between."""
    monkeypatch.setattr(sweep, "PAGE_OWNERS_MAX", 15)
    monkeypatch.setattr(batches, "WRITES_MAX", 4)


@contextmanager
def beside(work: Callable[[int], None], threads: int = 1) -> Iterator[None]:
    """Do something again and again, in so many threads, while the block runs."""
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
        for one in working:
            one.result()


@pytest.mark.parametrize("after", [True, False], ids=["after it is answered", "before it is sent"])
def test_killed_at_any_request_and_run_again(cloud: Cloud, after: bool) -> None:
    """Whichever request is the last of the schedule or of a worker, the rest comes once, from what the queue has."""
    owners, days = cloud.seed(OWNERS), list[str]()
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
            cloud.drain(cloud.function(Life(9)))  # the next one does not last either
        cloud.run(day)  # the scheduler has no answer, and starts the function again
    assert len(days) >= 6
    cloud.check(owners, [*days, day])
    assert cloud.dead_letters() == []


def test_messages_come_twice_and_out_of_order(cloud: Cloud) -> None:
    """Old and new places of a segment, in any order and at the same time, grant nothing twice."""
    owners, function = cloud.seed(OWNERS), cloud.function()
    function({"period": DAY, "segments": 3}, Context())
    seen = []
    while records := cloud.records():
        seen += records
        copies = [*reversed(records), *records]
        with ThreadPoolExecutor(4) as pool:
            list(
                pool.map(
                    lambda one: cloud.function()({"Records": [one]}, Context(STOP_SECONDS + 1)),
                    copies,
                )
            )
        for record in records:
            cloud.sqs.delete_message(QueueUrl=cloud.url, ReceiptHandle=record["receiptHandle"])
    cloud.drain()
    for record in reversed(seen):
        assert function({"Records": [record]}, Context()) == {"batchItemFailures": []}
    cloud.drain()
    cloud.check(owners, [DAY])


def test_run_again_grants_nothing(cloud: Cloud) -> None:
    """The next minute, or after a week of other days, a day that was granted is granted."""
    owners = cloud.seed(OWNERS)
    week = [f"2026-11-{day}" for day in range(20, 27)]
    for day in [week[0], week[0], *week, week[0]]:
        cloud.run(day)
    cloud.check(owners, week)


def test_two_dates_at_once(cloud: Cloud) -> None:
    """Runs of two days at the same time give each owner both, and the later one stays marked."""
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
    assert {one.marks["DAILY_REWARD:day"] for one in accounts} == {"2026-11-22"}


def test_owners_spend_while_they_are_rewarded(cloud: Cloud) -> None:
    """Four clients spend and add all the while: nobody is passed over, nothing is lost, nothing negative."""
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
        cloud.check(
            [owner_id], days, others=sum(one.operation != "DAILY_REWARD" for one in entries)
        )


def test_owners_appear_during_the_scan(cloud: Cloud) -> None:
    """Who was there when it began is rewarded by it; who comes meanwhile, by it or by the next one."""
    before, came = cloud.seed(OWNERS), list[str]()

    def come(_number: int) -> None:
        owner_id = f"new-{len(came)}"
        processor.process(operation(owner_id=owner_id))
        came.append(owner_id)

    processor = OperationProcessor(cloud.store(), ExampleAppOperations)
    with beside(come):
        cloud.run(DAY, segments=3)
    cloud.check(before, [DAY])
    cloud.run(DAY)
    assert came
    cloud.check([*before, *came], [DAY])


def test_clock_passes_midnight(cloud: Cloud) -> None:
    """The day is the one of the scheduled time, however late it gets."""
    owners = cloud.seed(10)
    times = iter(
        [
            datetime(2026, 11, 22, 23, 59, 59, tzinfo=UTC) + timedelta(seconds=step)
            for step in range(1000)
        ]
    )
    cloud.clock = lambda: next(times)
    cloud.run("day", time="2026-11-22T23:59:00Z")
    cloud.check(owners, ["2026-11-22"])
    assert next(times).date().isoformat() == "2026-11-23"


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/Santiago"])
@pytest.mark.parametrize("first", ["2026-03-25", "2026-10-21", "2026-12-29"])
def test_clocks_change(cloud: Cloud, zone: str, first: str) -> None:
    """A week of days at four o'clock, through summer and winter time: each day once, by the calendar of the zone."""
    owners = cloud.seed(2)
    days = [Period.parse(first).first_day + timedelta(days=day) for day in range(7)]
    for day in days:
        due = datetime(day.year, day.month, day.day, 4, tzinfo=ZoneInfo(zone)).astimezone(UTC)
        cloud.run("day", segments=1, time=due.isoformat(), time_zone=zone)
    cloud.check(owners, [day.isoformat() for day in days])


def test_time_runs_out_again_and_again(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker with little time puts the rest back, with its place; what all did together is counted once."""
    owners, function = cloud.seed(OWNERS), cloud.function()
    monkeypatch.setattr(sweep, "PAGE_OWNERS_MAX", 6)
    ticks = iter(range(10_000))
    monkeypatch.setattr("functions.daily_reward.function.Sweep", slow(lambda: float(next(ticks))))
    function({"period": DAY, "segments": 2}, Context())
    rounds, places = 0, set[str | None]()
    finished: list[Segment] = []
    monkeypatch.setattr(
        "functions.daily_reward.runs.Runs.finish",
        lambda _self, _nonce, segment: finished.append(segment),
    )
    while records := cloud.records():
        places |= {Segment.model_validate_json(one["body"]).start for one in records}
        for record in records:
            assert function({"Records": [record]}, Context(STOP_SECONDS + 6)) == {
                "batchItemFailures": []
            }
            cloud.sqs.delete_message(QueueUrl=cloud.url, ReceiptHandle=record["receiptHandle"])
        rounds += 1
    assert rounds >= 3
    assert len(places) > 3
    cloud.check(owners, [DAY])
    assert sum(one.tally.granted for one in finished) == OWNERS
    assert sum(one.tally.already for one in finished) == 0


def slow(monotonic: Callable[[], float]) -> Callable[..., sweep.Sweep]:
    """A sweep on a clock of its own."""
    real = sweep.Sweep
    return lambda *arguments: real(*arguments, monotonic=monotonic)
