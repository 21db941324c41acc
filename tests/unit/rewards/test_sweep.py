"""A sweep, request by request: its cost, the owners that it rewards, and its failures."""

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
from ledger_core.keys import account_key
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


def refused(code: str, call: str = "TransactWriteItems") -> ClientError:
    """DynamoDB's refusal of a call."""
    return ClientError({"Error": {"Code": code, "Message": "no"}}, call)


def test_fifty_owners_take_two_requests_and_the_next_sweep_one(cloud: Cloud) -> None:
    """A page takes a read and 50 owners take a write; an owner with the reward takes no write."""
    owners = cloud.seed(50)
    sent = wire(cloud.dynamodb)
    first = swept(cloud)
    second = swept(cloud)
    assert sent == ["Scan", "TransactWriteItems", "Scan"]
    assert (counts(first), counts(second)) == ((50, 0, 0, 0), (0, 50, 0, 0))
    assert (first.tally.dynamodb_requests, second.tally.dynamodb_requests) == (2, 1)
    assert second.tally.write_units == 0 < second.tally.read_units
    assert first.finished
    assert second.finished
    cloud.check(owners, [str(DAY)])


def test_hundred_owners_take_three_requests(cloud: Cloud) -> None:
    """100 owners take a read and two writes; many pages take little more than two a hundred."""
    cloud.seed(100)
    sent = wire(cloud.dynamodb)
    assert counts(swept(cloud)) == (100, 0, 0, 0)
    assert sorted(sent) == ["Scan", "TransactWriteItems", "TransactWriteItems"]
    assert 1 / PAGE_OWNERS_MAX + 1 / WRITES_MAX < 0.03


def test_earlier_period_run_again_costs_reads_and_no_write(cloud: Cloud) -> None:
    """If the mark is of a later day, the entries are read, 100 to a request; the mark stays."""
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
    """An owner who was missed in a period gets its reward later, once."""
    owners = cloud.seed(3)
    later = Reward.of(ExampleAppOperations, "DAILY_REWARD", Period.parse("2026-11-29"))
    swept(cloud, later)
    assert (counts(swept(cloud)), counts(swept(cloud))) == ((3, 0, 0, 0), (0, 3, 0, 0))
    cloud.check(owners, ["2026-11-22", "2026-11-29"])
    account = cloud.store().account(owners[0], consistent=True)
    assert account.marks == {"DAILY_REWARD:day": "2026-11-29"}


def test_dry_run_writes_nothing(cloud: Cloud) -> None:
    """A dry run counts exactly the rewards that a run would grant."""
    owners = cloud.seed(60)
    swept(cloud, Reward.of(ExampleAppOperations, "DAILY_REWARD", Period.parse("2026-11-29")))
    sent = wire(cloud.dynamodb)
    assert counts(swept(cloud, dry_run=True)) == (60, 0, 0, 0)
    assert sent == ["Scan", "TransactGetItems"]
    cloud.check(owners, ["2026-11-29"])


def test_moved_account_is_planned_anew_and_written_after_the_others(cloud: Cloud) -> None:
    """If an owner spends after the read, the other 49 are written first."""
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
    assert [len(batch) for batch in batches_sent] == [50, 1, 49, 1]  # the second is the spend
    assert batches_sent[-1] == [owners[7]]
    cloud.check([*owners[:7], *owners[8:]], [str(DAY)])
    cloud.check([owners[7]], [str(DAY)], others=2)


def test_conflict_delays_its_owner_and_shrinks_the_batches(cloud: Cloud) -> None:
    """The owner in conflict comes last; a batch halves on conflict and grows on success."""
    owners = cloud.seed(200)
    sizes: list[int] = []
    pauses: list[float] = []
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
        (segment,) = Segment.all_of(REWARD, 1, NOON)
        sweep_ = Sweep(cloud.store(), REWARD, sleep=pauses.append, random=lambda: 1.0)
        done = sweep_.run(segment, seconds=60)
    monkey.undo()
    assert counts(done) == (200, 0, 0, 0)
    assert sizes[:6] == [50, 25, 12, 17, 22, 27]
    assert max(sizes[6:]) > 27
    assert pauses == [0.025, 0.05]
    cloud.check(owners[::4], [str(DAY)])


@pytest.mark.parametrize(
    "fault", ["ThrottlingException", "ProvisionedThroughputExceededException", "answer lost"]
)
def test_failed_batch_is_sent_again_in_smaller_batches(cloud: Cloud, fault: str) -> None:
    """After throttling or a lost answer, each owner has a reward, and counts as granted."""
    owners = cloud.seed(50)
    sizes: list[int] = []

    def write(real: Callable[..., Any], **arguments: Any) -> Any:
        sizes.append(len(owners_of(arguments)))
        if len(sizes) > 1:
            return real(**arguments)
        if fault == "answer lost":
            real(**arguments)
            raise ReadTimeoutError(endpoint_url="http://dynamodb")
        raise refused(fault)

    with patched(cloud.dynamodb, transact_write_items=write):
        assert counts(swept(cloud)) == (50, 0, 0, 0)
    assert sizes[:2] == [50, 25]
    cloud.check(owners, [str(DAY)])


def test_reward_of_an_overlapping_run_counts_as_already(cloud: Cloud) -> None:
    """Another run grants the rewards after the page was read, and before it is written."""
    owners = cloud.seed(50)
    writes = iter(range(100))

    def write(real: Callable[..., Any], **arguments: Any) -> Any:
        if next(writes) == 0:
            assert counts(swept(cloud)) == (50, 0, 0, 0)
        return real(**arguments)

    with patched(cloud.dynamodb, transact_write_items=write):
        assert counts(swept(cloud)) == (0, 50, 0, 0)
    cloud.check(owners, [str(DAY)])


def test_malformed_and_full_accounts_do_not_block_other_owners(
    cloud: Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    """Such an account counts as failed and is logged by a hash; other owners are rewarded."""
    owners = cloud.seed(20)
    spoil(cloud, owners[3], "balance", {"S": "lots"})
    spoil(cloud, owners[4], "balance", {"N": str(BALANCE_MAX)})
    spoil(cloud, owners[5], "created_at", {"S": "yesterday"})
    # This account counts gems, so the sweep of a reward in credits leaves it alone.
    spoil(cloud, account_key(owners[6], "GEMS"), "entry_count", {"S": "many"})
    with caplog.at_level(logging.ERROR):
        assert counts(swept(cloud)) == (17, 0, 0, 3)
    messages = [record.getMessage() for record in caplog.records]
    hashes = [owner_hash(owners[number]) for number in (3, 4, 5)]
    assert sorted(message.split()[1] for message in messages) == sorted(hashes)
    assert not [message for message in messages if "owner-" in message]
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
def test_account_with_an_unusable_time_does_not_block_other_owners(cloud: Cloud, time: str) -> None:
    """A time has no offset, or is so late that no entry can follow."""
    owners = cloud.seed(5)
    spoil(cloud, owners[2], "updated_at", {"S": time})
    first = swept(cloud)
    alone = swept(cloud)
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
def test_time_in_another_spelling_is_read(cloud: Cloud, time: str, attribute: str) -> None:
    """A sweep reads a time with an offset or in another format, and writes it in UTC."""
    (owner_id,) = cloud.seed(1)
    table = cloud.tables["LEDGER_ACCOUNTS_TABLE"]
    key = {"account": {"S": owner_id}}
    spoil(cloud, owner_id, attribute, {"S": time})
    for day in (22, 23):
        reward = Reward.of(GameOperations, "DAILY_REWARD", Period.parse(f"2026-11-{day}"))
        assert swept(cloud, reward).tally.granted == 1
    account = cloud.store().account(owner_id, consistent=True)
    assert (account.created_at, account.active_at, account.entry_count) == (NOON, NOON, 3)
    row = cloud.dynamodb.get_item(TableName=table, Key=key, ConsistentRead=True)["Item"]
    written = {"updated_at", "active_at", "created_at"}
    assert [row[name]["S"] for name in written if not re.fullmatch(UTC_TEXT, row[name]["S"])] == []
    cloud.check([owner_id], ["2026-11-22", "2026-11-23"])


def test_erased_account_is_not_opened_again(cloud: Cloud) -> None:
    """An owner whose account is erased after the read is not eligible."""
    owners = cloud.seed(3)

    def write(real: Callable[..., Any], **arguments: Any) -> Any:
        cloud.dynamodb.delete_item(
            TableName=cloud.tables["LEDGER_ACCOUNTS_TABLE"], Key={"account": {"S": owners[1]}}
        )
        return real(**arguments)

    with patched(cloud.dynamodb, transact_write_items=write):
        assert counts(swept(cloud)) == (2, 0, 1, 0)
    assert cloud.store().account(owners[1], consistent=True).entry_count == 0


def test_many_owners_in_conflict_do_not_block_other_owners(cloud: Cloud) -> None:
    """The owners in conflict are postponed, and the sweep goes on to the next page."""
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
    """The next worker reads the page again; in the end each owner is counted once."""
    monkeypatch.setattr(sweep, "POSTPONED_MAX", 5)
    owners = cloud.seed(30)
    with patched(cloud.dynamodb, transact_write_items=conflicting(set(owners[:10]))):
        done = swept(cloud)
    assert (done.tally.granted, done.scanned, done.postponed) == (20, False, [])
    last = Sweep(cloud.store(), REWARD).run(done, seconds=60)
    assert (counts(last), last.finished) == ((30, 0, 0, 0), True)


def test_postponed_owners_are_left_out_of_a_page(cloud: Cloud) -> None:
    """A page that is read again leaves out the owners that are postponed."""
    owners = cloud.seed(10)
    segment = Segment.all_of(REWARD, 1, NOON)[0].model_copy(update={"postponed": owners[:4]})
    with patched(cloud.dynamodb, transact_write_items=conflicting(set(owners[:4]))):
        done = Sweep(cloud.store(), REWARD, sleep=lambda _: None).run(segment, seconds=60)
    assert (counts(done), sorted(done.postponed)) == ((6, 0, 0, 0), sorted(owners[:4]))


def test_place_of_a_segment_ignores_the_order_of_postponed_owners() -> None:
    """Another order is no progress, so a segment without progress fails."""
    (segment,) = Segment.all_of(REWARD, 1, NOON)
    first = segment.model_copy(update={"postponed": ["a", "b"]})
    second = segment.model_copy(update={"postponed": ["b", "a"]})
    assert first.place == second.place


@pytest.mark.parametrize("refusal", ["reason", "whole request"])
def test_refused_write_does_not_block_other_owners(cloud: Cloud, refusal: str) -> None:
    """The refused owner is found, also if DynamoDB does not name the item."""
    owners = cloud.seed(50)

    def write(real: Callable[..., Any], **arguments: Any) -> Any:
        batch = owners_of(arguments)
        if owners[17] not in batch:
            return real(**arguments)
        if refusal == "whole request":
            raise refused("ValidationException")
        reasons = [{"Code": "None"} for _ in arguments["TransactItems"]]
        reasons[2 * batch.index(owners[17]) + 1] = {"Code": "ItemCollectionSizeLimitExceeded"}
        raise cancellation(reasons)

    with patched(cloud.dynamodb, transact_write_items=write):
        done = swept(cloud)
    assert (counts(done), done.finished) == ((49, 0, 0, 1), True)
    cloud.check([*owners[:17], *owners[18:]], [str(DAY)])


def test_malformed_entry_does_not_block_other_owners(cloud: Cloud) -> None:
    """A malformed duplicate fails its own owner only."""
    owners = cloud.seed(3)
    item = {
        "entry_key": {"S": f"{owners[1]}#{REWARD.nonce}"},
        "account": {"S": owners[1]},
        "v": {"N": "1"},
        "created_at": {"S": "x"},
    }
    cloud.dynamodb.put_item(TableName=cloud.tables["LEDGER_ENTRIES_TABLE"], Item=item)
    assert counts(swept(cloud)) == (2, 0, 0, 1)


def test_owner_in_lasting_conflict_is_postponed(cloud: Cloud) -> None:
    """After some tries the segment lists the owner, and a later worker rewards the owner."""
    owners = cloud.seed(50)
    hot = owners[9]
    with patched(cloud.dynamodb, transact_write_items=conflicting({hot})):
        done = swept(cloud)
        assert (counts(done), done.postponed) == ((49, 0, 0, 0), [hot])
        assert (done.scanned, done.finished) == (True, False)
        again = Sweep(cloud.store(), REWARD, sleep=lambda _: None).run(done, seconds=60)
        assert again.place == done.place
    sent = Segment.model_validate_json(again.model_dump_json())
    last = Sweep(cloud.store(), REWARD).run(sent, seconds=60)
    assert (counts(last), last.finished) == ((50, 0, 0, 0), True)
    cloud.check(owners, [str(DAY)])


def test_postponed_owners_stay_postponed_when_the_time_is_up(cloud: Cloud) -> None:
    """An owner that the time does not reach stays postponed, and is counted once."""
    owners = cloud.seed(3)
    segment = Segment.all_of(REWARD, 1, NOON)[0].model_copy(
        update={"scanned": True, "postponed": owners}
    )
    read: list[str] = []

    def get(real: Callable[..., Any], **arguments: Any) -> Any:
        read.append(arguments["Key"]["account"]["S"])
        return real(**arguments)

    with patched(cloud.dynamodb, get_item=get):
        sweep_ = Sweep(cloud.store(), REWARD, monotonic=lambda: float(len(read) == 3))
        done = sweep_.run(segment, seconds=0.5)
    assert (counts(done), done.postponed) == ((0, 0, 0, 0), owners)
    last = Sweep(cloud.store(), REWARD).run(done, seconds=60)
    assert (counts(last), last.finished) == ((3, 0, 0, 0), True)


def test_malformed_postponed_account_does_not_block_other_owners(cloud: Cloud) -> None:
    """A malformed postponed account counts as failed; a missing table is an error."""
    owners = cloud.seed(3)
    spoil(cloud, owners[1], "balance", {"S": "lots"})
    segment = Segment.all_of(REWARD, 1, NOON)[0].model_copy(
        update={"scanned": True, "postponed": owners}
    )
    done = Sweep(cloud.store(), REWARD).run(segment, seconds=60)
    assert (counts(done), done.finished) == ((2, 0, 0, 1), True)
    cloud.tables["LEDGER_ACCOUNTS_TABLE"] = "missing"
    with pytest.raises(StoreError, match="ResourceNotFound"):
        Sweep(cloud.store(), REWARD).run(segment, seconds=60)


def test_page_that_is_throttled_is_not_counted(cloud: Cloud) -> None:
    """The place stays, so that the next worker reads the page again."""
    cloud.seed(3)
    tries: list[int] = []

    def write(real: Callable[..., Any], **arguments: Any) -> Any:
        tries.append(1)
        raise refused("ThrottlingException")

    (segment,) = Segment.all_of(REWARD, 1, NOON)
    with patched(cloud.dynamodb, transact_write_items=write):
        sweep_ = Sweep(cloud.store(), REWARD, monotonic=lambda: float(len(tries)))
        done = sweep_.run(segment, seconds=0.5)
    assert (counts(done), done.place, len(tries)) == ((0, 0, 0, 0), segment.place, 1)


def test_too_many_postponed_owners_are_a_failure(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If DynamoDB takes almost no write, the segment fails and keeps its place."""
    monkeypatch.setattr(sweep, "POSTPONED_MAX", 5)
    cloud.seed(6)

    def write(real: Callable[..., Any], **arguments: Any) -> Any:
        raise refused("ThrottlingException")

    with (
        patched(cloud.dynamodb, transact_write_items=write),
        pytest.raises(UnavailableError, match="too few"),
    ):
        swept(cloud)


def test_postponed_owners_with_the_longest_ids_fit_into_a_message() -> None:
    """A message of SQS has at most 256 KiB."""
    owner_id = "\U0001f600" * 128
    segment = Segment.all_of(REWARD, 1, NOON)[0].model_copy(
        update={"postponed": [owner_id] * POSTPONED_MAX}
    )
    assert len(segment.model_dump_json().encode()) < 256 * 1024


def test_page_that_fails_is_read_again(cloud: Cloud) -> None:
    """A read that fails is tried again while time is left."""
    owners = cloud.seed(10)
    fails = iter(range(3))

    def scan(real: Callable[..., Any], **arguments: Any) -> Any:
        if next(fails, None) is not None:
            raise refused("InternalServerError", "Scan")
        return real(**arguments)

    with patched(cloud.dynamodb, scan=scan):
        assert counts(swept(cloud)) == (10, 0, 0, 0)
    cloud.check(owners, [str(DAY)])


def test_page_that_goes_on_failing_keeps_the_place(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pages before it are counted; a segment without progress fails."""
    monkeypatch.setattr(sweep, "PAGE_OWNERS_MAX", 4)
    owners = cloud.seed(10)

    def scan(real: Callable[..., Any], **arguments: Any) -> Any:
        if "ExclusiveStartKey" in arguments:
            raise refused("InternalServerError", "Scan")
        return real(**arguments)

    with patched(cloud.dynamodb, scan=scan):
        done = swept(cloud)
        assert (counts(done), done.finished) == ((4, 0, 0, 0), False)
        with pytest.raises(UnavailableError):
            Sweep(cloud.store(), REWARD, sleep=lambda _: None).run(done, seconds=60)
    last = Sweep(cloud.store(), REWARD).run(done, seconds=60)
    assert (counts(last), last.finished) == ((10, 0, 0, 0), True)
    cloud.check(owners, [str(DAY)])


def test_missing_permission_ends_the_sweep(cloud: Cloud) -> None:
    """A missing permission is no failure of an owner, and is raised at once."""
    cloud.seed(200)
    sent = wire(cloud.dynamodb)

    def write(real: Callable[..., Any], **arguments: Any) -> Any:
        sent.append("denied")
        raise refused("AccessDeniedException")

    with (
        patched(cloud.dynamodb, transact_write_items=write),
        pytest.raises(StoreError, match="AccessDenied"),
    ):
        swept(cloud)
    assert sent.count("denied") <= batches.TRANSACTIONS_MAX


class GameOperations(BaseLedgerOperations):
    """A reward for active owners, a fee for all, and a bonus whose rule may fail."""

    APP_CONFIG = dict(ExampleAppOperations.APP_CONFIG)
    SCHEDULED = {
        LedgerOperationType.DAILY_REWARD: active_within(days=2),
        ExampleAppOperationType.CONTENT_CREATION: every_owner,
        LedgerOperationType.CREDIT_ADD: lambda account, _day: 1 // (account.balance - 3) >= 0,
    }


def test_owner_is_active_by_its_own_entries_not_by_rewards(cloud: Cloud) -> None:
    """An owner is active by entries that are posted for the owner, and not by rewards."""
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


def test_fee_skips_an_owner_with_too_few_credits(cloud: Cloud) -> None:
    """A fee is taken only from an owner who can pay it."""
    owners = cloud.seed(3)  # with 3 credits
    processor = OperationProcessor(cloud.store(), ExampleAppOperations)
    processor.process(add(2, "rich", owner_id=owners[1]))
    fee = Reward.of(GameOperations, "CONTENT_CREATION", Period.parse("2026-W47"))
    assert (fee.nonce, fee.amount) == ("ledger:content-creation:2026-W47", -5)
    assert (counts(swept(cloud, fee)), counts(swept(cloud, fee))) == ((1, 0, 2, 0), (0, 1, 2, 0))
    assert cloud.store().account(owners[1], consistent=True).balance == 0


def test_owner_who_spends_before_the_fee_is_skipped(cloud: Cloud) -> None:
    """The account at the write decides, and not the account at the read."""
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
    """A dry run counts an owner with too few credits as skipped."""
    cloud.seed(1)
    reward = Reward.of(GameOperations, "CONTENT_CREATION", Period.parse("2026-W47"))
    assert counts(swept(cloud, reward, dry_run=True)) == (0, 0, 1, 0)


def test_rule_that_fails_for_an_owner_does_not_block_other_owners(cloud: Cloud) -> None:
    """An owner for whom the rule of the app fails counts as failed."""
    owners = cloud.seed(3)
    processor = OperationProcessor(cloud.store(), ExampleAppOperations)
    processor.process(add(2, "n2", owner_id=owners[0]))
    done = swept(cloud, Reward.of(GameOperations, "CREDIT_ADD", Period.parse("2026-11")))
    assert counts(done) == (1, 0, 0, 2)


def test_each_scheduled_operation_has_its_own_mark(cloud: Cloud) -> None:
    """Two scheduled operations do not change each other's mark."""
    (owner_id,) = cloud.seed(1)
    OperationProcessor(cloud.store(), ExampleAppOperations).process(add(9, "n2", owner_id=owner_id))
    swept(cloud)
    swept(cloud, Reward.of(GameOperations, "CONTENT_CREATION", Period.parse("2026-W47")))
    assert cloud.store().account(owner_id, consistent=True).marks == {
        "DAILY_REWARD:day": "2026-11-22",
        "CONTENT_CREATION:week": "2026-W47",
    }


def test_kind_of_period_of_an_operation_may_change(cloud: Cloud) -> None:
    """If the mark is of another kind of period, the entries are read; each period comes once."""
    (owner_id,) = cloud.seed(1)
    for period, expected in [
        ("2026-11-22", (1, 0, 0, 0)),
        ("2026-W47", (1, 0, 0, 0)),
        ("2026-11", (1, 0, 0, 0)),
        ("2026-11-22", (0, 1, 0, 0)),
        ("2026-W47", (0, 1, 0, 0)),
    ]:
        reward = Reward.of(ExampleAppOperations, "DAILY_REWARD", Period.parse(period))
        assert counts(swept(cloud, reward)) == expected
    assert cloud.store().account(owner_id, consistent=True).entry_count == 4


def test_segments_divide_the_owners(cloud: Cloud) -> None:
    """Each owner is in exactly one segment."""
    owners = cloud.seed(40)
    done = [
        Sweep(cloud.store(), REWARD, dry_run=True).run(segment, seconds=60)
        for segment in Segment.all_of(REWARD, 4, NOON)
    ]
    assert sum(segment.tally.granted for segment in done) == len(owners)
    assert len([segment for segment in done if segment.tally.granted]) > 1


def test_owner_without_entries_is_not_counted(cloud: Cloud) -> None:
    """A row without an entry count is no account of an owner."""
    cloud.dynamodb.put_item(
        TableName=cloud.tables["LEDGER_ACCOUNTS_TABLE"], Item={"account": {"S": "ghost"}}
    )
    assert counts(swept(cloud)) == (0, 0, 0, 0)


@pytest.mark.parametrize("name", ["SIGNUP_CREDIT", "CREDIT_SPEND", "daily_reward", "", "NOTHING"])
def test_only_a_scheduled_operation_is_posted(name: str) -> None:
    """A sweep of an operation that is not in the app's SCHEDULED is refused."""
    message = "must be one that may be scheduled, DAILY_REWARD"
    with pytest.raises(UnknownOperationError, match=message):
        Reward.of(ExampleAppOperations, name, DAY)


@pytest.mark.parametrize("segments", [0, -1, SEGMENTS_MAX + 1])
def test_number_of_segments_has_limits(segments: int) -> None:
    """The largest number of segments is accepted, and other numbers are refused."""
    assert len(Segment.all_of(REWARD, SEGMENTS_MAX, NOON)) == SEGMENTS_MAX
    with pytest.raises(InvalidRequestError, match="segments: must be from 1 to 1000"):
        Segment.all_of(REWARD, segments, NOON)


def test_segments_are_sent_in_a_scattered_order() -> None:
    """Neighbouring segments share a partition of the table, so they do not begin together."""
    numbers = [segment.segment for segment in Segment.all_of(REWARD, 16, NOON)]
    assert numbers[:4] == [0, 8, 4, 12]
    assert sorted(numbers) == list(range(16))
    for count in (2, 3, 5, 64, SEGMENTS_MAX):
        numbers = [segment.segment for segment in Segment.all_of(REWARD, count, NOON)]
        assert sorted(numbers) == list(range(count))
        assert count < 5 or max(numbers[:4]) - min(numbers[:4]) > count / 2


def test_active_within_counts_days_before_the_period(cloud: Cloud) -> None:
    """An owner is active with an entry on one of those days or later."""
    (owner_id,) = cloud.seed(1)
    account = cloud.store().account(owner_id, consistent=True)
    rule = active_within(days=7)
    active = [rule(account, date(2026, 11, day)) for day in (20, 22, 29, 30)]
    assert active == [True, True, True, False]
    unknown = cloud.store().account("unknown", consistent=True)
    assert rule(unknown, date(2026, 11, 22)) is False


def test_entry_of_an_owner_moves_active_at_and_a_reward_does_not(cloud: Cloud) -> None:
    """`active_at` is the time of the last entry that is posted for the owner."""
    (owner_id,) = cloud.seed(1)
    assert cloud.store().account(owner_id, consistent=True).active_at == NOON
    processor = OperationProcessor(cloud.store(), ExampleAppOperations)
    entry = processor.process(operation(nonce="n2", owner_id=owner_id))
    swept(cloud)
    account = cloud.store().account(owner_id, consistent=True)
    assert (account.active_at, account.entry_count) == (entry.created_at, 3)
    assert account.created_at == NOON
