"""Owners who are put off, and pages that the time cuts off: nobody is left out, counted twice, or begun anew."""

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
    """Everybody is rewarded but one."""

    APP_CONFIG = dict(ExampleAppOperations.APP_CONFIG)
    SCHEDULED = {
        LedgerOperationType.DAILY_REWARD: lambda account, _day: account.owner_id != "owner-1"
    }


BUT_ONE = Reward.of(ButOneOperations, "DAILY_REWARD", DAY)


@pytest.fixture(autouse=True)
def one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it is certain which write comes when."""
    for module in (batches, sweep):
        monkeypatch.setattr(module, "TRANSACTIONS_MAX", 1)


class Writes:
    """Counts those to DynamoDB, which are the only time that passes, and does something before some of them."""

    def __init__(
        self, before: Callable[[int, dict[str, Any]], object] = lambda _number, _arguments: None
    ) -> None:
        self.made = 0
        self._before = before

    def __call__(self, real: Callable[..., Any], **arguments: Any) -> Any:
        if (
            "ExpressionAttributeNames" not in arguments["TransactItems"][-1]["Update"]
        ):  # without a mark: an owner's own
            return real(**arguments)
        self.made += 1
        self._before(self.made, arguments)
        return real(**arguments)

    def sweep(
        self, cloud: Cloud, segment: Segment, writes: int, reward: Reward = REWARD, **options: Any
    ) -> Segment:
        """What becomes of a segment in the time of so many writes."""
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
    """Raise for a write to one of them."""
    conflicting(hot)(lambda **_: None, **arguments)


@pytest.mark.parametrize("hot_writes", [3, 9, 30])
@pytest.mark.parametrize("writes", [2, 3, 5, 8])
def test_time_that_cuts_pages_off_counts_each_owner_once(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, writes: int, hot_writes: int
) -> None:
    """Granted, had it, not eligible, failed, put off: whenever the time is up, each is one in the end, and no count is
    ever negative."""
    monkeypatch.setattr(sweep, "PAGE_OWNERS_MAX", 8)
    monkeypatch.setattr(batches, "WRITES_MAX", 2)
    cloud.seed(1)
    swept(cloud)
    owners = ["owner-0", *cloud.seed(13, first=1)]
    spoil(cloud, owners[2], "balance", {"S": "lots"})
    hot, told, segment = set(owners[3:6]), list[Tally](), begun()
    made = Writes(
        lambda number, arguments: in_conflict(hot if number <= hot_writes else set(), arguments)
    )
    with patched(cloud.dynamodb, transact_write_items=made):
        while not segment.finished:
            message = Segment.model_validate_json(segment.model_dump_json())
            segment = made.sweep(
                cloud, message, writes, BUT_ONE, on_page=lambda one: told.append(one.model_copy())
            )
            assert min(counts(segment)) >= 0
    assert counts(segment) == (11, 1, 1, 1)
    for name, count in zip(
        ("granted", "already", "skipped", "failed"), counts(segment), strict=True
    ):
        assert min(getattr(one, name) for one in told) >= 0
        assert sum(getattr(one, name) for one in told) == count
    cloud.check([owners[0], *owners[3:]], [str(DAY)])


def test_owner_put_off_on_a_page_that_is_cut_off_is_counted_once(cloud: Cloud) -> None:
    """It is not put off with that page, which is read again: else it would be met there as one that has it already."""
    owners = cloud.seed(120)
    made = Writes(lambda number, arguments: in_conflict({owners[3]}, arguments))
    with patched(cloud.dynamodb, transact_write_items=made):
        done = made.sweep(cloud, begun(), 8)
    assert (done.scanned, done.postponed) == (True, [owners[3]])
    with patched(cloud.dynamodb, transact_write_items=made):
        cut = [made.sweep(cloud, begun(LATER), writes, LATER) for writes in (1, 2)]
    assert not [one for one in cut if one.scanned or one.postponed]
    last = swept_on(cloud, cut[-1], LATER)
    assert sum(counts(last)) == last.tally.rewarded == 120


def test_owner_put_off_and_erased_meanwhile_gets_no_new_ledger(cloud: Cloud) -> None:
    """Whose account is gone, is gone: there is no entry, the first of a ledger least of all; who is left is granted."""
    gone, left, empty = cloud.seed(3)
    table = cloud.tables["LEDGER_ACCOUNTS_TABLE"]
    for owner_id in (gone, empty):
        cloud.dynamodb.delete_item(TableName=table, Key={"account": {"S": owner_id}})
    spoil(cloud, empty, "mark:DAILY_REWARD:day", {"S": "2026-11-21"})
    done = swept_on(cloud, begun(scanned=True, postponed=[gone, left, empty]))
    assert (counts(done), done.finished) == ((1, 0, 2, 0), True)
    assert [
        cloud.store().account(one, consistent=True).entry_count for one in (gone, left, empty)
    ] == [0, 2, 0]
    assert cloud.store().accounts_with(REWARD.nonce, [gone, left, empty]) == {left}


def test_owner_put_off_twice_is_counted_once(cloud: Cloud) -> None:
    """Who is both put off and on the page that comes next is met once, whether the balance can be read or not."""
    owners = cloud.seed(6)
    spoil(cloud, owners[1], "balance", {"S": "lots"})
    assert counts(swept_on(cloud, begun(postponed=owners[:3]))) == (5, 0, 0, 1)


def swept_on(cloud: Cloud, segment: Segment, reward: Reward = REWARD) -> Segment:
    """What becomes of it in all the time there is."""
    return Sweep(cloud.store(), reward, sleep=lambda _: None).run(segment, seconds=60)


def test_page_is_complete_only_when_who_was_set_aside_is_seen_to(cloud: Cloud) -> None:
    """The time is up when all but the one whose balance moved have it: the page is not left behind, nor is that one."""
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
def test_page_is_complete_only_when_each_half_of_a_refused_batch_is_seen_to(
    cloud: Cloud, writes: int, granted: int
) -> None:
    """DynamoDB refuses two owners together, and the time is up before both were tried apart."""
    owners = cloud.seed(2)

    def refused(_number: int, arguments: dict[str, Any]) -> None:
        if len(owners_of(arguments)) == 2:
            raise ClientError(
                {"Error": {"Code": "ValidationException", "Message": "no"}}, "TransactWriteItems"
            )

    made = Writes(refused)
    with patched(cloud.dynamodb, transact_write_items=made):
        done = made.sweep(cloud, begun(), writes)
    assert (counts(done), done.scanned) == ((granted, 0, 0, 0), False)
    last = swept_on(cloud, done)
    assert (counts(last), last.finished) == ((2, 0, 0, 0), True)
    cloud.check(owners, [str(DAY)])


@pytest.mark.parametrize("put_off", [False, True])
def test_mark_of_a_later_period_that_came_first_stays(cloud: Cloud, put_off: bool) -> None:
    """A sweep of the next day wins the race for the same owners: this one's reward is added, and the mark is not set
    back, for it is as fresh as the head that the lost race told of."""
    owners = cloud.seed(5)
    made = Writes(lambda number, _arguments: number == 1 and swept_on(cloud, begun(LATER), LATER))
    with patched(cloud.dynamodb, transact_write_items=made):
        done = swept_on(cloud, begun(scanned=put_off, postponed=owners if put_off else []))
    assert (counts(done), done.finished) == ((5, 0, 0, 0), True)
    accounts = [cloud.store().account(owner_id, consistent=True) for owner_id in owners]
    assert [one.marks for one in accounts] == [{"DAILY_REWARD:day": "2026-11-23"}] * 5
    cloud.check(owners, ["2026-11-22", "2026-11-23"])


def test_sweep_sees_what_was_written_just_before(cloud: Cloud) -> None:
    """Pages, and owners put off, are read strongly consistent: any other read may not show who began just now, and the
    sweep would not come back."""
    owners = cloud.seed(4)

    def old_page(real: Callable[..., Any], **arguments: Any) -> Any:
        answer = real(**arguments)
        return answer if arguments.get("ConsistentRead") else {**answer, "Items": []}

    def old_row(real: Callable[..., Any], **arguments: Any) -> Any:
        answer = real(**arguments)
        return answer if arguments.get("ConsistentRead") else {**answer, "Item": {}}

    with patched(cloud.dynamodb, scan=old_page, get_item=old_row):
        assert counts(swept_on(cloud, begun())) == (4, 0, 0, 0)
        assert counts(swept_on(cloud, begun(LATER, scanned=True, postponed=owners), LATER)) == (
            4,
            0,
            0,
            0,
        )
    cloud.check(owners, ["2026-11-22", "2026-11-23"])
