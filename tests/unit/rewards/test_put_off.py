"""Postponed owners and interrupted pages: each owner is rewarded and counted once."""

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from functions.example_app.operations import ExampleAppOperations
from ledger_core import BaseLedgerOperations, LedgerOperationType
from ledger_core.periods import Period
from ledger_core.posting import OperationProcessor
from ledger_core.rewards import Reward, Segment, Sweep, Tally, sweep
from ledger_core.rewards import batch_writer as batches
from tests.fakes.cloud import Cloud, patched
from tests.fakes.sweeps import DAY, REWARD, conflicting, counts, owners_of, spoil, swept
from tests.support import NOON, spend

LATER = Reward.of(ExampleAppOperations, "DAILY_REWARD", Period.parse("2026-11-23"))


class ButOneOperations(BaseLedgerOperations):
    """A reward for each owner except owner-1."""

    APP_CONFIG = dict(ExampleAppOperations.APP_CONFIG)
    SCHEDULED = {
        LedgerOperationType.DAILY_REWARD: lambda account, _day: account.owner_id != "owner-1"
    }


BUT_ONE = Reward.of(ButOneOperations, "DAILY_REWARD", DAY)


@pytest.fixture(autouse=True)
def one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the order of the writes certain."""
    for module in (batches, sweep):
        monkeypatch.setattr(module, "TRANSACTIONS_MAX", 1)


class Writes:
    """Count the sweep's writes, call a function before each, and let time pass only by them."""

    def __init__(
        self, before: Callable[[int, dict[str, Any]], object] = lambda _number, _arguments: None
    ) -> None:
        self.made = 0
        self._before = before

    def __call__(self, real: Callable[..., Any], **arguments: Any) -> Any:
        update = arguments["TransactItems"][-1]["Update"]
        if "ExpressionAttributeNames" not in update:  # no mark, so no write of the sweep
            return real(**arguments)
        self.made += 1
        self._before(self.made, arguments)
        return real(**arguments)

    def sweep(
        self, cloud: Cloud, segment: Segment, writes: int, reward: Reward = REWARD, **options: Any
    ) -> Segment:
        """Run a segment for the time of some writes."""
        timing: Any = {
            "monotonic": lambda: float(self.made),
            "sleep": lambda _seconds: None,
            "random": lambda: 0.0,
        }
        return Sweep(cloud.store(), reward, **timing).run(segment, seconds=writes - 0.5, **options)


def begun(reward: Reward = REWARD, **place: Any) -> Segment:
    (segment,) = Segment.all_of(reward, 1, NOON)
    return segment.model_copy(update=place)


def in_conflict(hot: set[str], arguments: dict[str, Any]) -> None:
    """Raise a conflict for a write to one of the hot owners."""
    conflicting(hot)(lambda **_: None, **arguments)


@pytest.mark.parametrize("hot_writes", [3, 9, 30])
@pytest.mark.parametrize("writes", [2, 3, 5, 8])
def test_each_owner_of_an_interrupted_page_is_counted_once(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, writes: int, hot_writes: int
) -> None:
    """The time may be up after any write; in the end each owner counts once, as one outcome."""
    monkeypatch.setattr(sweep, "PAGE_OWNERS_MAX", 8)
    monkeypatch.setattr(batches, "WRITES_MAX", 2)
    cloud.seed(1)
    swept(cloud)
    owners = ["owner-0", *cloud.seed(13, first=1)]
    spoil(cloud, owners[2], "balance", {"S": "lots"})
    hot = set(owners[3:6])
    tallies: list[Tally] = []
    segment = begun()

    def in_conflict_at_first(number: int, arguments: dict[str, Any]) -> None:
        if number <= hot_writes:
            in_conflict(hot, arguments)

    made = Writes(in_conflict_at_first)
    with patched(cloud.dynamodb, transact_write_items=made):
        while not segment.finished:
            message = Segment.model_validate_json(segment.model_dump_json())
            segment = made.sweep(
                cloud,
                message,
                writes,
                BUT_ONE,
                on_page=lambda tally: tallies.append(tally.model_copy()),
            )
            assert min(counts(segment)) >= 0
    assert counts(segment) == (11, 1, 1, 1)
    names = ("granted", "already", "skipped", "failed")
    for name, count in zip(names, counts(segment), strict=True):
        assert min(getattr(tally, name) for tally in tallies) >= 0
        assert sum(getattr(tally, name) for tally in tallies) == count
    cloud.check([owners[0], *owners[3:]], [str(DAY)])


def test_owner_is_not_postponed_from_an_interrupted_page(cloud: Cloud) -> None:
    """The page is read again with the owner, so the owner is counted once."""
    owners = cloud.seed(120)
    made = Writes(lambda number, arguments: in_conflict({owners[3]}, arguments))
    with patched(cloud.dynamodb, transact_write_items=made):
        done = made.sweep(cloud, begun(), 8)
    assert (done.scanned, done.postponed) == (True, [owners[3]])
    with patched(cloud.dynamodb, transact_write_items=made):
        cut = [made.sweep(cloud, begun(LATER), writes, LATER) for writes in (1, 2)]
    assert not [segment for segment in cut if segment.scanned or segment.postponed]
    last = swept_on(cloud, cut[-1], LATER)
    assert sum(counts(last)) == last.tally.rewarded == 120


def test_account_of_an_erased_postponed_owner_is_not_opened_again(cloud: Cloud) -> None:
    """An erased owner is skipped, and the other postponed owner is rewarded."""
    gone, left, empty = cloud.seed(3)
    table = cloud.tables["LEDGER_ACCOUNTS_TABLE"]
    for owner_id in (gone, empty):
        cloud.dynamodb.delete_item(TableName=table, Key={"account": {"S": owner_id}})
    spoil(cloud, empty, "mark:DAILY_REWARD:day", {"S": "2026-11-21"})
    done = swept_on(cloud, begun(scanned=True, postponed=[gone, left, empty]))
    assert (counts(done), done.finished) == ((1, 0, 2, 0), True)
    accounts = [cloud.store().account(owner, consistent=True) for owner in (gone, left, empty)]
    assert [account.entry_count for account in accounts] == [0, 2, 0]
    assert cloud.store().accounts_with(REWARD.nonce, [gone, left, empty]) == {left}


def test_postponed_owner_on_the_next_page_is_counted_once(cloud: Cloud) -> None:
    """A postponed owner is left out of the page, also if the account is malformed."""
    owners = cloud.seed(6)
    spoil(cloud, owners[1], "balance", {"S": "lots"})
    assert counts(swept_on(cloud, begun(postponed=owners[:3]))) == (5, 0, 0, 1)


def swept_on(cloud: Cloud, segment: Segment, reward: Reward = REWARD) -> Segment:
    """Run a segment for 60 seconds."""
    return Sweep(cloud.store(), reward, sleep=lambda _: None).run(segment, seconds=60)


def test_page_with_a_moved_account_left_is_read_again(cloud: Cloud) -> None:
    """If the time is up before a moved account is written, the page is not complete."""
    owners = cloud.seed(4)
    processor = OperationProcessor(cloud.store(), ExampleAppOperations)

    def moved(number: int, _arguments: dict[str, Any]) -> None:
        if number == 1:
            processor.process(spend(1, "between", owner_id=owners[2]))

    made = Writes(moved)
    with patched(cloud.dynamodb, transact_write_items=made):
        done = made.sweep(cloud, begun(), 2)
    assert (counts(done), done.scanned, done.start) == ((3, 0, 0, 0), False, None)
    last = swept_on(cloud, done)
    assert (counts(last), last.finished) == ((4, 0, 0, 0), True)
    cloud.check([owners[2]], [str(DAY)], others=2)


@pytest.mark.parametrize(("writes", "granted"), [(2, 1), (1, 0)])
def test_page_with_a_part_of_a_refused_batch_left_is_read_again(
    cloud: Cloud, writes: int, granted: int
) -> None:
    """If the time is up before each owner was tried alone, the page is not complete."""
    owners = cloud.seed(2)

    def refused(_number: int, arguments: dict[str, Any]) -> None:
        if len(owners_of(arguments)) == 2:
            error: Any = {"Error": {"Code": "ValidationException", "Message": "no"}}
            raise ClientError(error, "TransactWriteItems")

    made = Writes(refused)
    with patched(cloud.dynamodb, transact_write_items=made):
        done = made.sweep(cloud, begun(), writes)
    assert (counts(done), done.scanned) == ((granted, 0, 0, 0), False)
    last = swept_on(cloud, done)
    assert (counts(last), last.finished) == ((2, 0, 0, 0), True)
    cloud.check(owners, [str(DAY)])


@pytest.mark.parametrize("is_postponed", [False, True])
def test_mark_of_a_later_period_stays(cloud: Cloud, is_postponed: bool) -> None:
    """If a sweep of the next day writes first, this day is granted too, and the mark stays."""
    owners = cloud.seed(5)
    made = Writes(lambda number, _arguments: number == 1 and swept_on(cloud, begun(LATER), LATER))
    with patched(cloud.dynamodb, transact_write_items=made):
        postponed = owners if is_postponed else []
        done = swept_on(cloud, begun(scanned=is_postponed, postponed=postponed))
    assert (counts(done), done.finished) == ((5, 0, 0, 0), True)
    accounts = [cloud.store().account(owner_id, consistent=True) for owner_id in owners]
    assert [account.marks for account in accounts] == [{"DAILY_REWARD:day": "2026-11-23"}] * 5
    cloud.check(owners, ["2026-11-22", "2026-11-23"])


def test_sweep_sees_an_account_that_was_just_opened(cloud: Cloud) -> None:
    """Pages and postponed owners are read strongly consistent, so no new account is missed."""
    owners = cloud.seed(4)

    def old_page(real: Callable[..., Any], **arguments: Any) -> Any:
        answer = real(**arguments)
        return answer if arguments.get("ConsistentRead") else {**answer, "Items": []}

    def old_row(real: Callable[..., Any], **arguments: Any) -> Any:
        answer = real(**arguments)
        return answer if arguments.get("ConsistentRead") else {**answer, "Item": {}}

    with patched(cloud.dynamodb, scan=old_page, get_item=old_row):
        assert counts(swept_on(cloud, begun())) == (4, 0, 0, 0)
        postponed = begun(LATER, scanned=True, postponed=owners)
        assert counts(swept_on(cloud, postponed, LATER)) == (4, 0, 0, 0)
    cloud.check(owners, ["2026-11-22", "2026-11-23"])
