"""A sweep, request by request: what it costs, who gets the reward, and what it does when something is in the way."""

import logging
import re
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from functions.example_app.operations import ExampleAppOperations, ExampleAppOperationType
from ledger_core import (
    BaseLedgerOperations,
    InvalidRequestError,
    LedgerOperationType,
    UnavailableError,
    UnknownOperationError,
)
from ledger_core.dynamodb import WRITES_MAX
from ledger_core.errors import StoreError
from ledger_core.fields import BALANCE_MAX, owner_hash
from ledger_core.operations import active_within, every_owner
from ledger_core.periods import Period
from ledger_core.posting import OperationProcessor
from ledger_core.rewards import SEGMENTS_MAX, Reward, Segment, Sweep, sweep
from ledger_core.rewards import batch_writer as batches
from ledger_core.rewards.progress import POSTPONED_MAX
from ledger_core.rewards.sweep import PAGE_OWNERS_MAX
from tests.fakes.cloud import Cloud, patched
from tests.fakes.sweeps import (
    BUSY,
    DAY,
    REWARD,
    cancellation,
    conflicting,
    counts,
    owners_of,
    spoil,
    swept,
)
from tests.support import NOON, add, operation, spend, wire

UTC_TEXT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"


def test_fifty_owners_take_two_requests_and_the_next_sweep_one(cloud: Cloud) -> None:
    """A page is one read, fifty owners are one write; who has the reward costs a read and no write."""
    owners = cloud.seed(50)
    sent = wire(cloud.dynamodb)
    first, second = swept(cloud), swept(cloud)
    assert sent == ["Scan", "TransactWriteItems", "Scan"]
    assert (counts(first), counts(second)) == ((50, 0, 0, 0), (0, 50, 0, 0))
    assert (first.tally.dynamodb_requests, second.tally.dynamodb_requests) == (2, 1)
    assert second.tally.write_units == 0 < second.tally.read_units
    assert first.finished
    assert second.finished
    cloud.check(owners, [str(DAY)])


def test_hundred_owners_take_three_requests(cloud: Cloud) -> None:
    """One read and two writes; of more owners, two thousand of whom are a page, little more than two a hundred."""
    cloud.seed(100)
    sent = wire(cloud.dynamodb)
    assert counts(swept(cloud)) == (100, 0, 0, 0)
    assert sorted(sent) == ["Scan", "TransactWriteItems", "TransactWriteItems"]
    assert 1 / PAGE_OWNERS_MAX + 1 / WRITES_MAX < 0.03


def test_earlier_period_run_again_costs_reads_and_no_write(cloud: Cloud) -> None:
    """Where the mark is of a later day the entries tell, a hundred to a request; the mark stays."""
    owners = cloud.seed(60)
    later = Reward.of(ExampleAppOperations, "DAILY_REWARD", Period.parse("2026-11-29"))
    for reward in (REWARD, later):
        swept(cloud, reward)
    cloud.seed(10, first=60)
    sent = wire(cloud.dynamodb)
    assert counts(swept(cloud)) == (10, 60, 0, 0)
    assert sent == ["Scan", "TransactGetItems", "TransactWriteItems"]
    accounts = [cloud.store().account(owner_id, consistent=True) for owner_id in owners]
    assert {account.marks["DAILY_REWARD:day"] for account in accounts} == {"2026-11-29"}


def test_missed_period_is_granted_later_and_the_later_mark_stays(cloud: Cloud) -> None:
    """Who was missed last week gets it this week, once."""
    owners = cloud.seed(3)
    later = Reward.of(ExampleAppOperations, "DAILY_REWARD", Period.parse("2026-11-29"))
    swept(cloud, later)
    assert (counts(swept(cloud)), counts(swept(cloud))) == ((3, 0, 0, 0), (0, 3, 0, 0))
    cloud.check(owners, ["2026-11-22", "2026-11-29"])
    assert cloud.store().account(owners[0], consistent=True).marks == {
        "DAILY_REWARD:day": "2026-11-29"
    }


def test_dry_run_writes_nothing(cloud: Cloud) -> None:
    """It counts what a run would do, to the owner."""
    owners = cloud.seed(60)
    swept(cloud, Reward.of(ExampleAppOperations, "DAILY_REWARD", Period.parse("2026-11-29")))
    sent = wire(cloud.dynamodb)
    assert counts(swept(cloud, dry_run=True)) == (60, 0, 0, 0)
    assert sent == ["Scan", "TransactGetItems"]
    cloud.check(owners, ["2026-11-29"])


def test_head_that_moved_is_recomputed_and_does_not_spoil_the_others_twice(cloud: Cloud) -> None:
    """One owner spends between page and write: its fresh head comes with the reasons; 49 go at once, it goes after."""
    owners = cloud.seed(50)
    processor = OperationProcessor(cloud.store(), ExampleAppOperations)
    batches_sent: list[list[str]] = []

    def write(real: Callable[..., Any], **arguments: Any) -> Any:
        batches_sent.append(owners_of(arguments))
        if len(batches_sent) == 1:
            processor.process(spend(2, "between", owner_id=owners[7]))
        return real(**arguments)

    with patched(cloud.dynamodb, transact_write_items=write):
        assert counts(swept(cloud)) == (50, 0, 0, 0)
    assert [len(batch) for batch in batches_sent] == [50, 1, 49, 1]  # the second is the owner's own
    assert batches_sent[-1] == [owners[7]]
    cloud.check([*owners[:7], *owners[8:]], [str(DAY)])
    cloud.check([owners[7]], [str(DAY)], others=2)


def test_conflict_sets_one_owner_back_and_shrinks_the_batches(cloud: Cloud) -> None:
    """The owner in conflict comes last; batches halve after each conflict and grow again with each that is finished."""
    owners = cloud.seed(200)
    sizes, pauses = list[int](), list[float]()
    conflicts = iter(range(2))

    def write(real: Callable[..., Any], **arguments: Any) -> Any:
        batch = owners_of(arguments)
        sizes.append(len(batch))
        if next(conflicts, None) is not None:
            reasons = [{"Code": "None"} for _ in arguments["TransactItems"]]
            reasons[-1] = BUSY
            raise cancellation(reasons)
        return real(**arguments)

    monkey = pytest.MonkeyPatch()
    monkey.setattr(batches, "TRANSACTIONS_MAX", 1)
    with monkey.context(), patched(cloud.dynamodb, transact_write_items=write):
        segment = Segment.all_of(REWARD, 1, NOON)[0]
        done = Sweep(cloud.store(), REWARD, sleep=pauses.append, random=lambda: 1.0).run(
            segment, seconds=60
        )
    monkey.undo()
    assert counts(done) == (200, 0, 0, 0)
    assert sizes[:6] == [50, 25, 12, 17, 22, 27]
    assert max(sizes[6:]) > 27
    assert pauses == [0.025, 0.05]
    cloud.check(owners[::4], [str(DAY)])


@pytest.mark.parametrize(
    "trouble", ["ThrottlingException", "ProvisionedThroughputExceededException", "answer lost"]
)
def test_whole_batch_in_trouble_is_sent_again_smaller(cloud: Cloud, trouble: str) -> None:
    """After throttling, or an answer that was lost, everybody has one reward, and is counted as granted now."""
    owners, sizes = cloud.seed(50), list[int]()

    def write(real: Callable[..., Any], **arguments: Any) -> Any:
        sizes.append(len(owners_of(arguments)))
        if len(sizes) > 1:
            return real(**arguments)
        if trouble == "answer lost":
            real(**arguments)
            raise ReadTimeoutError(endpoint_url="http://dynamodb")
        raise ClientError(
            {"Error": {"Code": trouble, "Message": "slow down"}}, "TransactWriteItems"
        )

    with patched(cloud.dynamodb, transact_write_items=write):
        assert counts(swept(cloud)) == (50, 0, 0, 0)
    assert sizes[:2] == [50, 25]
    cloud.check(owners, [str(DAY)])


def test_granted_by_another_worker_meanwhile(cloud: Cloud) -> None:
    """What an overlapping run has granted since the page was read is met as granted already."""
    owners = cloud.seed(50)
    writes = iter(range(100))

    def write(real: Callable[..., Any], **arguments: Any) -> Any:
        if next(writes) == 0:
            assert counts(swept(cloud)) == (50, 0, 0, 0)
        return real(**arguments)

    with patched(cloud.dynamodb, transact_write_items=write):
        assert counts(swept(cloud)) == (0, 50, 0, 0)
    cloud.check(owners, [str(DAY)])


def test_balances_that_cannot_be_read_or_are_full_block_nobody(
    cloud: Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    """They are counted and logged by their hashes, and all others are granted."""
    owners = cloud.seed(20)
    spoil(cloud, owners[3], "balance", {"S": "lots"})
    spoil(cloud, owners[4], "balance", {"N": str(BALANCE_MAX)})
    spoil(cloud, owners[5], "created_at", {"S": "yesterday"})
    with caplog.at_level(logging.ERROR):
        assert counts(swept(cloud)) == (17, 0, 0, 3)
    told = [record.getMessage() for record in caplog.records]
    assert sorted(line.split()[1] for line in told) == sorted(
        owner_hash(owners[number]) for number in (3, 4, 5)
    )
    assert not [line for line in told if "owner-" in line]
    cloud.check([*owners[:3], *owners[6:]], [str(DAY)])


@pytest.mark.parametrize(
    "time",
    [
        "2026-11-22T09:00:00",
        "9999-12-31T23:59:59.999999Z",
        "9999-12-31T23:59:59.999999-01:00",
        "9998-12-31T23:59:59.999999Z",
    ],
)
def test_balance_after_whose_time_nothing_can_come_blocks_nobody(cloud: Cloud, time: str) -> None:
    """A time without its offset, or at the end of all times."""
    owners = cloud.seed(5)
    spoil(cloud, owners[2], "updated_at", {"S": time})
    first, alone = swept(cloud), swept(cloud)
    assert (counts(first), counts(alone)) == ((4, 0, 0, 1), (0, 4, 0, 1))
    assert first.finished
    assert alone.finished


@pytest.mark.parametrize(
    "time",
    [
        "2026-11-22T13:00:00.000000+01:00",
        "2026-11-22T06:30:00-05:30",
        "20261122T120000Z",
        "2026-11-22T12:00+00",
    ],
)
@pytest.mark.parametrize("attribute", ["updated_at", "active_at", "created_at"])
def test_time_that_is_spelt_otherwise_stays_readable(
    cloud: Cloud, time: str, attribute: str
) -> None:
    """Noon, written in another way, is read, and what a sweep writes is in UTC."""
    (owner_id,) = cloud.seed(1)
    table, key = cloud.tables["LEDGER_ACCOUNTS_TABLE"], {"account": {"S": owner_id}}
    spoil(cloud, owner_id, attribute, {"S": time})
    for day in (22, 23):
        assert (
            counts(
                swept(
                    cloud, Reward.of(GameOperations, "DAILY_REWARD", Period.parse(f"2026-11-{day}"))
                )
            )[0]
            == 1
        )
    account = cloud.store().account(owner_id, consistent=True)
    assert (account.created_at, account.active_at, account.entry_count) == (NOON, NOON, 3)
    row = cloud.dynamodb.get_item(TableName=table, Key=key, ConsistentRead=True)["Item"]
    written = {"updated_at", "active_at", "created_at"}
    assert [row[name]["S"] for name in written if not re.fullmatch(UTC_TEXT, row[name]["S"])] == []
    cloud.check([owner_id], ["2026-11-22", "2026-11-23"])


def test_balance_that_is_erased_meanwhile_is_not_begun_anew(cloud: Cloud) -> None:
    """Who has no entry any more is not eligible."""
    owners = cloud.seed(3)

    def write(real: Callable[..., Any], **arguments: Any) -> Any:
        cloud.dynamodb.delete_item(
            TableName=cloud.tables["LEDGER_ACCOUNTS_TABLE"], Key={"account": {"S": owners[1]}}
        )
        return real(**arguments)

    with patched(cloud.dynamodb, transact_write_items=write):
        assert counts(swept(cloud)) == (2, 0, 1, 0)
    assert cloud.store().account(owners[1], consistent=True).entry_count == 0


def test_many_in_conflict_at_once_keep_nobody_else(cloud: Cloud) -> None:
    """A whole partition in trouble is put off, and the sweep goes on to the next page."""
    owners = cloud.seed(150)
    hot = set(owners[::2])
    with patched(cloud.dynamodb, transact_write_items=conflicting(hot)):
        done = swept(cloud)
    assert (counts(done), done.scanned, set(done.postponed)) == ((75, 0, 0, 0), True, hot)
    last = Sweep(cloud.store(), REWARD).run(done, seconds=60)
    assert (counts(last), last.finished) == ((150, 0, 0, 0), True)


def test_page_with_too_many_postponed_is_counted_once(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next worker reads it again. In the end each owner is counted once."""
    monkeypatch.setattr(sweep, "POSTPONED_MAX", 5)
    owners = cloud.seed(30)
    with patched(cloud.dynamodb, transact_write_items=conflicting(set(owners[:10]))):
        done = swept(cloud)
    assert (done.tally.granted, done.scanned, done.postponed) == (20, False, [])
    last = Sweep(cloud.store(), REWARD).run(done, seconds=60)
    assert (counts(last), last.finished) == ((30, 0, 0, 0), True)


def test_postponed_of_a_page_that_is_read_again_are_left_out(cloud: Cloud) -> None:
    """They come by themselves, first of all."""
    owners = cloud.seed(10)
    segment = Segment.all_of(REWARD, 1, NOON)[0].model_copy(update={"postponed": owners[:4]})
    with patched(cloud.dynamodb, transact_write_items=conflicting(set(owners[:4]))):
        done = Sweep(cloud.store(), REWARD, sleep=lambda _: None).run(segment, seconds=60)
    assert (counts(done), sorted(done.postponed)) == ((6, 0, 0, 0), sorted(owners[:4]))


def test_place_does_not_go_by_the_order_of_postponed() -> None:
    """Else a segment that gets no further would seem to, for ever."""
    (segment,) = Segment.all_of(REWARD, 1, NOON)
    one, other = (
        segment.model_copy(update={"postponed": owners}) for owners in (["a", "b"], ["b", "a"])
    )
    assert one.place == other.place


@pytest.mark.parametrize("told_by", ["reason", "whole request"])
def test_owner_that_dynamodb_refuses_blocks_nobody(cloud: Cloud, told_by: str) -> None:
    """Whether DynamoDB names the item or refuses the whole transaction, it is found, and all others are granted."""
    owners = cloud.seed(50)

    def write(real: Callable[..., Any], **arguments: Any) -> Any:
        batch = owners_of(arguments)
        if owners[17] not in batch:
            return real(**arguments)
        if told_by == "whole request":
            raise ClientError(
                {"Error": {"Code": "ValidationException", "Message": "no"}}, "TransactWriteItems"
            )
        reasons = [{"Code": "None"} for _ in arguments["TransactItems"]]
        reasons[2 * batch.index(owners[17]) + 1] = {"Code": "ItemCollectionSizeLimitExceeded"}
        raise cancellation(reasons)

    with patched(cloud.dynamodb, transact_write_items=write):
        done = swept(cloud)
    assert (counts(done), done.finished) == ((49, 0, 0, 1), True)
    cloud.check([*owners[:17], *owners[18:]], [str(DAY)])


def test_stored_entry_that_cannot_be_read_blocks_nobody(cloud: Cloud) -> None:
    """A duplicate that is malformed is a failure of its owner alone."""
    owners = cloud.seed(3)
    item = {
        "entry_key": {"S": f"{owners[1]}#{REWARD.nonce}"},
        "account": {"S": owners[1]},
        "v": {"N": "1"},
        "created_at": {"S": "x"},
    }
    cloud.dynamodb.put_item(TableName=cloud.tables["LEDGER_ENTRIES_TABLE"], Item=item)
    assert counts(swept(cloud)) == (2, 0, 0, 1)


def test_owner_in_conflict_all_the_time_is_put_off_and_told(cloud: Cloud) -> None:
    """It is passed over after some tries; the segment says whom it is about; later it is granted."""
    owners = cloud.seed(50)
    hot = owners[9]
    with patched(cloud.dynamodb, transact_write_items=conflicting({hot})):
        done = swept(cloud)
        assert (counts(done), done.postponed) == ((49, 0, 0, 0), [hot])
        assert (done.scanned, done.finished) == (True, False)
        again = Sweep(cloud.store(), REWARD, sleep=lambda _: None).run(done, seconds=60)
        assert again.place == done.place
    last = Sweep(cloud.store(), REWARD).run(
        Segment.model_validate_json(again.model_dump_json()), seconds=60
    )
    assert (counts(last), last.finished) == ((50, 0, 0, 0), True)
    cloud.check(owners, [str(DAY)])


def test_time_that_runs_out_over_postponed_leaves_them(cloud: Cloud) -> None:
    """Whom the time did not reach is put off again, and nobody is counted twice."""
    owners = cloud.seed(3)
    segment = Segment.all_of(REWARD, 1, NOON)[0].model_copy(
        update={"scanned": True, "postponed": owners}
    )
    read = list[str]()

    def get(real: Callable[..., Any], **arguments: Any) -> Any:
        read.append(arguments["Key"]["account"]["S"])
        return real(**arguments)

    with patched(cloud.dynamodb, get_item=get):
        sweep_ = Sweep(cloud.store(), REWARD, monotonic=lambda: float(len(read) == 3))
        done = sweep_.run(segment, seconds=0.5)
    assert (counts(done), done.postponed) == ((0, 0, 0, 0), owners)
    last = Sweep(cloud.store(), REWARD).run(done, seconds=60)
    assert (counts(last), last.finished) == ((3, 0, 0, 0), True)


def test_straggler_that_cannot_be_read_blocks_nobody(cloud: Cloud) -> None:
    """It has failed, like any other; a table that is not there is another matter."""
    owners = cloud.seed(3)
    spoil(cloud, owners[1], "balance", {"S": "lots"})
    segment = Segment.all_of(REWARD, 1, NOON)[0].model_copy(
        update={"scanned": True, "postponed": owners}
    )
    done = Sweep(cloud.store(), REWARD).run(segment, seconds=60)
    assert (counts(done), done.finished) == ((2, 0, 0, 1), True)
    cloud.tables["LEDGER_ACCOUNTS_TABLE"] = "not-there"
    with pytest.raises(StoreError, match="ResourceNotFound"):
        Sweep(cloud.store(), REWARD).run(segment, seconds=60)


def test_throttled_until_the_time_is_up(cloud: Cloud) -> None:
    """The next worker reads a page again that could not be written; nothing of it was counted."""
    cloud.seed(3)
    tries = list[int]()

    def write(real: Callable[..., Any], **arguments: Any) -> Any:
        tries.append(1)
        raise ClientError(
            {"Error": {"Code": "ThrottlingException", "Message": "no"}}, "TransactWriteItems"
        )

    segment = Segment.all_of(REWARD, 1, NOON)[0]
    with patched(cloud.dynamodb, transact_write_items=write):
        done = Sweep(cloud.store(), REWARD, monotonic=lambda: float(len(tries))).run(
            segment, seconds=0.5
        )
    assert (counts(done), done.place, len(tries)) == ((0, 0, 0, 0), segment.place, 1)


def test_too_many_put_off_is_a_failure(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """When DynamoDB takes next to nothing the segment fails, and is as it was."""
    monkeypatch.setattr(sweep, "POSTPONED_MAX", 5)
    cloud.seed(6)

    def write(real: Callable[..., Any], **arguments: Any) -> Any:
        raise ClientError(
            {"Error": {"Code": "ThrottlingException", "Message": "no"}}, "TransactWriteItems"
        )

    with (
        patched(cloud.dynamodb, transact_write_items=write),
        pytest.raises(UnavailableError, match="too few"),
    ):
        swept(cloud)


def test_postponed_of_the_longest_ids_fit_into_a_message() -> None:
    """SQS takes 256 KiB."""
    owner_id = "\U0001f600" * 128
    segment = Segment.all_of(REWARD, 1, NOON)[0].model_copy(
        update={"postponed": [owner_id] * POSTPONED_MAX}
    )
    assert len(segment.model_dump_json().encode()) < 256 * 1024


def test_page_that_fails_is_read_again(cloud: Cloud) -> None:
    """Reads are tried again like any other, within the time there is."""
    owners = cloud.seed(10)
    fails = iter(range(3))

    def scan(real: Callable[..., Any], **arguments: Any) -> Any:
        if next(fails, None) is not None:
            raise ClientError({"Error": {"Code": "InternalServerError", "Message": "no"}}, "Scan")
        return real(**arguments)

    with patched(cloud.dynamodb, scan=scan):
        assert counts(swept(cloud)) == (10, 0, 0, 0)
    cloud.check(owners, [str(DAY)])


def test_page_that_goes_on_failing_keeps_the_place(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was done before it stays done and is told; a segment that gets no further is a failure."""
    monkeypatch.setattr(sweep, "PAGE_OWNERS_MAX", 4)
    owners = cloud.seed(10)

    def scan(real: Callable[..., Any], **arguments: Any) -> Any:
        if "ExclusiveStartKey" in arguments:
            raise ClientError({"Error": {"Code": "InternalServerError", "Message": "no"}}, "Scan")
        return real(**arguments)

    with patched(cloud.dynamodb, scan=scan):
        done = swept(cloud)
        assert (counts(done), done.finished) == ((4, 0, 0, 0), False)
        with pytest.raises(UnavailableError):
            Sweep(cloud.store(), REWARD, sleep=lambda _: None).run(done, seconds=60)
    last = Sweep(cloud.store(), REWARD).run(done, seconds=60)
    assert (counts(last), last.finished) == ((10, 0, 0, 0), True)
    cloud.check(owners, [str(DAY)])


def test_what_is_missing_altogether_is_told_at_once(cloud: Cloud) -> None:
    """A permission or a table that is missing is no owner's fault, and ends the sweep."""
    cloud.seed(200)
    sent = wire(cloud.dynamodb)

    def write(real: Callable[..., Any], **arguments: Any) -> Any:
        sent.append("denied")
        raise ClientError(
            {"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "TransactWriteItems"
        )

    with (
        patched(cloud.dynamodb, transact_write_items=write),
        pytest.raises(StoreError, match="AccessDenied"),
    ):
        swept(cloud)
    assert sent.count("denied") <= batches.TRANSACTIONS_MAX


class GameOperations(BaseLedgerOperations):
    """A weekly fee for the active, and a bonus by a rule that fails on one owner."""

    APP_CONFIG = dict(ExampleAppOperations.APP_CONFIG)
    SCHEDULED = {
        LedgerOperationType.DAILY_REWARD: active_within(days=2),
        ExampleAppOperationType.CONTENT_CREATION: every_owner,
        LedgerOperationType.CREDIT_ADD: lambda account, _day: 1 // (account.balance - 3) >= 0,
    }


def test_owner_is_active_by_its_own_entries_not_by_rewards(cloud: Cloud) -> None:
    """The rule of the last days goes by what was posted for an owner, so a daily reward does not keep it going."""
    idle, active = cloud.seed(2)  # both had their entry on the 22nd
    for day in range(22, 28):
        if day == 25:
            processor = OperationProcessor(
                cloud.store(), ExampleAppOperations, clock=lambda: NOON + timedelta(days=3)
            )
            processor.process(add(1, "comes back", owner_id=active))
        swept(cloud, Reward.of(GameOperations, "DAILY_REWARD", Period.parse(f"2026-11-{day}")))
    cloud.check([idle], ["2026-11-22", "2026-11-23", "2026-11-24"])
    cloud.check([active], [f"2026-11-{day}" for day in (22, 23, 24, 25, 26, 27)], others=2)


def test_operation_that_takes_credits_skips_who_has_too_few(cloud: Cloud) -> None:
    """A fee is posted to those who can pay; nobody falls below zero, and each kind of period has a nonce of its own."""
    owners = cloud.seed(3)  # with 3 credits
    OperationProcessor(cloud.store(), ExampleAppOperations).process(
        add(2, "rich", owner_id=owners[1])
    )
    fee = Reward.of(GameOperations, "CONTENT_CREATION", Period.parse("2026-W47"))
    assert (fee.nonce, fee.amount) == ("ledger:content-creation:2026-W47", -5)
    assert (counts(swept(cloud, fee)), counts(swept(cloud, fee))) == ((1, 0, 2, 0), (0, 1, 2, 0))
    assert cloud.store().account(owners[1], consistent=True).balance == 0


def test_balance_that_falls_too_low_meanwhile_is_skipped(cloud: Cloud) -> None:
    """The fresh head decides."""
    (owner_id,) = cloud.seed(1)
    processor = OperationProcessor(cloud.store(), ExampleAppOperations)
    processor.process(add(2, "top up", owner_id=owner_id))
    spends = iter(range(1))

    def write(real: Callable[..., Any], **arguments: Any) -> Any:
        if next(spends, None) is not None:
            processor.process(spend(1, "spend", owner_id=owner_id))
        return real(**arguments)

    with patched(cloud.dynamodb, transact_write_items=write):
        done = swept(cloud, Reward.of(GameOperations, "CONTENT_CREATION", Period.parse("2026-W47")))
    assert (counts(done), done.finished) == ((0, 0, 1, 0), True)


def test_dry_run_skips_a_balance_that_is_too_low(cloud: Cloud) -> None:
    """It counts what a sweep would do."""
    cloud.seed(1)
    reward = Reward.of(GameOperations, "CONTENT_CREATION", Period.parse("2026-W47"))
    assert counts(swept(cloud, reward, dry_run=True)) == (0, 0, 1, 0)


def test_rule_that_fails_on_an_owner_blocks_nobody(cloud: Cloud) -> None:
    """The app's rule is the app's; its failure is that owner's."""
    owners = cloud.seed(3)
    OperationProcessor(cloud.store(), ExampleAppOperations).process(
        add(2, "n2", owner_id=owners[0])
    )
    done = swept(cloud, Reward.of(GameOperations, "CREDIT_ADD", Period.parse("2026-11")))
    assert counts(done) == (1, 0, 0, 2)


def test_two_operations_do_not_touch_each_other_s_mark(cloud: Cloud) -> None:
    """Each scheduled operation has a mark and nonces of its own."""
    (owner_id,) = cloud.seed(1)
    OperationProcessor(cloud.store(), ExampleAppOperations).process(add(9, "n2", owner_id=owner_id))
    swept(cloud)
    swept(cloud, Reward.of(GameOperations, "CONTENT_CREATION", Period.parse("2026-W47")))
    assert cloud.store().account(owner_id, consistent=True).marks == {
        "DAILY_REWARD:day": "2026-11-22",
        "CONTENT_CREATION:week": "2026-W47",
    }


def test_kinds_of_periods_of_one_operation_may_change(cloud: Cloud) -> None:
    """A mark of another kind of period tells nothing, so the entries are asked; each period still comes once."""
    (owner_id,) = cloud.seed(1)
    for period, expected in [
        ("2026-11-22", (1, 0, 0, 0)),
        ("2026-W47", (1, 0, 0, 0)),
        ("2026-11", (1, 0, 0, 0)),
        ("2026-11-22", (0, 1, 0, 0)),
        ("2026-W47", (0, 1, 0, 0)),
    ]:
        assert (
            counts(
                swept(cloud, Reward.of(ExampleAppOperations, "DAILY_REWARD", Period.parse(period)))
            )
            == expected
        )
    assert cloud.store().account(owner_id, consistent=True).entry_count == 4


def test_segments_divide_the_owners(cloud: Cloud) -> None:
    """Together they are all owners, each in one."""
    owners = cloud.seed(40)
    done = [
        Sweep(cloud.store(), REWARD, dry_run=True).run(segment, seconds=60)
        for segment in Segment.all_of(REWARD, 4, NOON)
    ]
    assert sum(one.tally.granted for one in done) == len(owners)
    assert len([one for one in done if one.tally.granted]) > 1


def test_owner_without_entries_is_none(cloud: Cloud) -> None:
    """A row without an entry count is not an owner of the ledger."""
    cloud.dynamodb.put_item(
        TableName=cloud.tables["LEDGER_ACCOUNTS_TABLE"], Item={"account": {"S": "ghost"}}
    )
    assert counts(swept(cloud)) == (0, 0, 0, 0)


@pytest.mark.parametrize("name", ["SIGNUP_CREDIT", "CREDIT_SPEND", "daily_reward", "", "NOTHING"])
def test_only_what_an_app_schedules_is_posted(name: str) -> None:
    """An operation that the app does not name in SCHEDULED cannot be given to everybody by a wrong event."""
    with pytest.raises(
        UnknownOperationError, match="must be one that may be scheduled, DAILY_REWARD"
    ):
        Reward.of(ExampleAppOperations, name, DAY)


@pytest.mark.parametrize("segments", [0, -1, SEGMENTS_MAX + 1])
def test_number_of_segments_has_limits(segments: int) -> None:
    """At the edge it is taken, beyond refused."""
    assert len(Segment.all_of(REWARD, SEGMENTS_MAX, NOON)) == SEGMENTS_MAX
    with pytest.raises(InvalidRequestError, match="segments: must be from 1 to 1000"):
        Segment.all_of(REWARD, segments, NOON)


def test_segments_that_begin_together_lie_apart() -> None:
    """Neighbours share a partition of the table, so they are not sent one after the other."""
    numbers = [one.segment for one in Segment.all_of(REWARD, 16, NOON)]
    assert numbers[:4] == [0, 8, 4, 12]
    assert sorted(numbers) == list(range(16))
    for count in (2, 3, 5, 64, SEGMENTS_MAX):
        numbers = [one.segment for one in Segment.all_of(REWARD, count, NOON)]
        assert sorted(numbers) == list(range(count))
        assert count < 5 or max(numbers[:4]) - min(numbers[:4]) > count / 2


def test_active_within_counts_days_before_the_period(cloud: Cloud) -> None:
    """Active is who had an entry on one of those days or later."""
    (owner_id,) = cloud.seed(1)
    account = cloud.store().account(owner_id, consistent=True)
    rule = active_within(days=7)
    assert [rule(account, date(2026, 11, day)) for day in (20, 22, 29, 30)] == [
        True,
        True,
        True,
        False,
    ]
    nobody = cloud.store().account("nobody", consistent=True)
    assert rule(nobody, date(2026, 11, 22)) is False


def test_entry_of_an_owner_is_a_sign_of_life_and_a_reward_is_not(cloud: Cloud) -> None:
    """`active_at` is the time of the last entry that was posted for the owner."""
    (owner_id,) = cloud.seed(1)
    assert (
        cloud.store().account(owner_id, consistent=True).active_at == NOON
    )  # rows from before have the last entry's
    processor = OperationProcessor(cloud.store(), ExampleAppOperations)
    entry = processor.process(operation(nonce="n2", owner_id=owner_id))
    swept(cloud)
    account = cloud.store().account(owner_id, consistent=True)
    assert (account.active_at, account.entry_count) == (entry.created_at, 3)
    assert account.created_at == NOON
