"""A write whose answer is lost: sent again while DynamoDB knows its token, then looked up."""

from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from ledger_core import (
    ContentionError,
    DuplicateNonceError,
    LedgerEntry,
    OperationRequest,
    UnavailableError,
)
from ledger_core.dynamodb import Cancelled
from ledger_core.errors import StoreError
from ledger_core.observability import measure_request
from ledger_core.posting.batch import Batch
from ledger_core.posting.processor import TOKEN_SECONDS_MAX
from ledger_core.settings import CONNECT_SECONDS_MAX, READ_SECONDS_MAX
from tests.fakes.scripted_store import DONE, NEW, Bench, account
from tests.simulator.model import TOKEN_SECONDS
from tests.support import NOON, account_after, add

LOST = UnavailableError("lost")
OWN = NEW.next_entry(add(1, "n"), amount=1, now=NOON)
THEIRS = account(3, 2).next_entry(add(1, "n"), amount=1, now=NOON)
SECONDS = 1e6
REQUEST = add(1, "n")


class Late:
    """An answer that takes some seconds."""

    def __init__(self, seconds: float, answer: Any) -> None:
        self.seconds = seconds
        self.answer = answer


def bench_of(*answers: Any) -> Bench:
    """A bench whose answers may be late."""
    bench = Bench()

    def wait_for(late: Late) -> Any:
        bench.pauses.append(late.seconds)
        return late.answer

    for answer in answers:
        if isinstance(answer, Late):
            bench.store.answers.append(partial(wait_for, answer))
        else:
            bench.store.answers.append(answer)
    return bench


def post(bench: Bench, request: OperationRequest = REQUEST) -> LedgerEntry:
    return bench.processor.process(request, timeout_seconds=SECONDS)


def test_token_is_used_no_longer_than_dynamodb_knows_it() -> None:
    """A transaction that is sent at the last moment arrives while its token is known."""
    assert TOKEN_SECONDS_MAX + CONNECT_SECONDS_MAX + READ_SECONDS_MAX < TOKEN_SECONDS == 600


@pytest.mark.parametrize(
    ("seconds", "again"),
    [
        (TOKEN_SECONDS_MAX - 0.1, "transact"),
        (TOKEN_SECONDS_MAX, "look_up"),
        (SECONDS / 2, "look_up"),
    ],
)
def test_long_doubt_is_looked_up(seconds: float, again: str) -> None:
    """A look-up gives the request its entry; the doubt begins before the first try."""
    answer: Any = DONE if again == "transact" else (OWN, account(9, 9))
    bench = bench_of(NEW, Late(seconds, LOST), answer)
    assert post(bench) == OWN
    assert bench.calls == ["account", "transact", again]
    assert len(set(bench.tokens)) == 1


def test_doubt_is_counted_from_the_first_try() -> None:
    """Later tries do not prolong the time; a lost look-up is made again."""
    half = TOKEN_SECONDS_MAX / 2
    found = (OWN, account_after(OWN))
    bench = bench_of(NEW, Late(half, LOST), Late(half, LOST), LOST, found)
    assert post(bench) == OWN
    assert bench.calls == ["account", "transact", "transact", "look_up", "look_up"]


@pytest.mark.parametrize(
    "conflict",
    [
        ContentionError("conflict"),
        Cancelled(busy=ContentionError("conflict")),
        Cancelled(busy=UnavailableError("throttled")),
    ],
)
def test_conflict_that_lasts_is_no_doubt(conflict: Any) -> None:
    """DynamoDB has cancelled the transaction, so it is sent again even after a long time."""
    bench = bench_of(NEW, Late(SECONDS / 2, conflict), DONE)
    assert post(bench) == OWN
    assert bench.calls == ["account", "transact", "transact"]


def test_transaction_that_was_not_written_is_planned_anew() -> None:
    """The new plan is on the account as it is, under another token."""
    bench = bench_of(NEW, Late(600, LOST), (None, account(7, 3)), DONE)
    with measure_request() as metrics:
        assert post(bench).id == 4
    assert bench.calls == ["account", "transact", "look_up", "transact"]
    assert bench.befores == [NEW, account(7, 3)]
    assert len(set(bench.tokens)) == 2
    assert (metrics.attempts, metrics.stale_heads) == (2, 1)
    bench = bench_of(NEW, Late(600, LOST), (None, NEW), DONE)
    with measure_request() as metrics:
        assert post(bench).id == 1
    assert (metrics.attempts, metrics.stale_heads) == (2, 0)


def test_entry_of_a_late_transaction_belongs_to_its_sender() -> None:
    """The first try is written after the look-up; the second try finds its entry."""
    arrived = Cancelled((OWN,), account(8, 4))
    bench = bench_of(NEW, Late(600, LOST), (None, account(7, 3)), arrived)
    assert post(bench) == OWN
    assert bench.calls == ["account", "transact", "look_up", "transact"]


def test_entry_of_any_lost_try_belongs_to_its_sender() -> None:
    """The request recognises the entry of each lost try, not only of the last."""
    arrived = Cancelled((OWN,), account(9, 5))
    first = (Late(600, LOST), (None, account(7, 3)))
    second = (Late(600, LOST), (None, account(8, 4)), account(8, 4))
    bench = bench_of(NEW, *first, *second, arrived)
    assert post(bench) == OWN
    assert len(set(bench.tokens)) == 3


@pytest.mark.parametrize("seconds", [TOKEN_SECONDS_MAX, -TOKEN_SECONDS_MAX])
def test_process_that_was_frozen_meanwhile_gives_the_sender_its_own(seconds: float) -> None:
    """The token expired while the process was frozen; the stored entry is the sender's own."""
    bench = Bench(NEW, LOST)

    def answer() -> Cancelled:
        bench.now += timedelta(seconds=seconds)
        return Cancelled((OWN,), account_after(OWN))

    bench.store.answers.append(answer)
    assert post(bench) == OWN
    assert len(set(bench.tokens)) == 1


@pytest.mark.parametrize("seconds", [TOKEN_SECONDS_MAX, -TOKEN_SECONDS_MAX])
def test_process_that_was_frozen_before_a_retry_looks_up(seconds: float) -> None:
    """If the time moved and the monotonic clock did not, the transaction is not sent again."""
    bench = Bench(NEW)

    def answer() -> Any:
        bench.now += timedelta(seconds=seconds)
        raise LOST

    bench.store.answers += [answer, (OWN, account_after(OWN))]
    assert post(bench) == OWN
    assert bench.calls == ["account", "transact", "look_up"]


def test_process_without_the_time_looks_up() -> None:
    """If the clock is off, the transaction is not sent again."""
    bench = Bench(NEW)

    def off() -> Any:
        raise UnavailableError("the clock was set")

    def answer() -> Any:
        bench.clock = off
        raise LOST

    bench.store.answers += [answer, (OWN, account_after(OWN))]
    assert post(bench) == OWN
    assert bench.calls == ["account", "transact", "look_up"]


def test_same_entry_of_another_process_is_a_duplicate() -> None:
    """If the token is known, the same entry in the table is another process's."""
    bench = bench_of(NEW, LOST, Cancelled((OWN,), account_after(OWN)))
    with pytest.raises(DuplicateNonceError):
        post(bench)


@pytest.mark.parametrize("is_looked_up", [True, False])
def test_entry_of_another_sender_is_a_duplicate(is_looked_up: bool) -> None:
    """An entry that this process did not send is a duplicate, also after a lost answer."""
    found: Any = Cancelled(stored=(THEIRS,))
    if is_looked_up:
        found = (THEIRS, account_after(THEIRS))
    bench = bench_of(NEW, Late(600 if is_looked_up else 1, LOST), found)
    with pytest.raises(DuplicateNonceError) as duplicate:
        post(bench)
    assert (duplicate.value.entry, duplicate.value.replay) == (THEIRS, True)


def test_same_entry_is_a_duplicate_without_doubt() -> None:
    """If no answer was lost, the same entry in the table is another sender's."""
    with pytest.raises(DuplicateNonceError):
        post(bench_of(NEW, Cancelled((OWN,), account_after(OWN))))
    with pytest.raises(DuplicateNonceError):  # also if the answer took long
        post(bench_of(NEW, Late(600, Cancelled((OWN,), account_after(OWN)))))


def test_group_is_looked_up_together() -> None:
    """One look-up decides for the whole transaction; if it was not written, it is sent again."""
    cases: list[tuple[Any, list[list[str]]]] = [
        ((OWN, account(2, 2)), [["n", "m"]]),
        ((None, NEW), [["n", "m"], ["n", "m"]]),
    ]
    for found, sent in cases:
        bench = bench_of(NEW, Late(600, LOST), found, DONE)
        waiting = [bench.group.join(add(1, nonce)) for nonce in ("n", "m")]
        bench.group.finish(waiting[0], timeout_seconds=SECONDS)
        assert bench.nonces == sent
        assert [bench.group.finish(caller).id for caller in waiting] == [1, 2]


def test_each_request_of_a_group_remembers_a_lost_try() -> None:
    """The second request of the group recognises its entry too."""
    batch = Batch()
    bench = bench_of(NEW, Late(600, LOST), (None, account(7, 3)))
    pendings = [bench.processor.accept(add(1, nonce)) for nonce in ("n", "m")]
    batch.arrivals.extend(pendings)
    after = account_after(OWN)
    other = after.next_entry(add(1, "m"), amount=1, now=NOON)
    bench.store.answers.append(Cancelled((OWN, other), account(9, 5)))
    bench.processor.settle(pendings[0], batch, bench.processor.budget(SECONDS))
    assert [pending.result() for pending in pendings] == [OWN, other]
    assert bench.nonces == [["n", "m"], ["n", "m"]]


def test_duplicate_in_a_group_is_alone() -> None:
    """The other requests of the group are written without the duplicate."""
    found = (THEIRS, account_after(THEIRS))
    bench = bench_of(NEW, Late(600, LOST), found, DONE)
    waiting = [bench.group.join(add(1, nonce)) for nonce in ("n", "m")]
    with pytest.raises(DuplicateNonceError):
        bench.group.finish(waiting[0], timeout_seconds=SECONDS)
    assert bench.group.finish(waiting[1], timeout_seconds=SECONDS).id == 4
    assert bench.nonces == [["n", "m"], ["m"]]


def test_doubt_of_one_leader_is_looked_up_by_the_next() -> None:
    """A leader that comes an hour later does not send the transaction again."""
    bench = bench_of(NEW, LOST, (OWN, account(2, 2)))
    waiting = [bench.group.join(add(1, nonce)) for nonce in ("n", "m")]
    with pytest.raises(UnavailableError):
        bench.group.finish(waiting[0], timeout_seconds=0)
    bench.pauses.append(3600)
    assert bench.group.finish(waiting[1], timeout_seconds=SECONDS).id == 2
    assert bench.calls == ["account", "transact", "look_up"]


def test_look_up_that_dynamodb_refuses_is_final_for_all_in_doubt() -> None:
    """Each request fails with the error, because its entry may be written."""
    bench = bench_of(NEW, Late(600, LOST), StoreError("malformed"))
    waiting = [bench.group.join(add(1, nonce)) for nonce in ("n", "m")]
    for caller in waiting:
        with pytest.raises(StoreError, match=r"^malformed$"):
            bench.group.finish(caller, timeout_seconds=SECONDS)
    assert bench.calls == ["account", "transact", "look_up"]
    assert bench.processor.remembered("ada") is None


def test_attempt_is_in_doubt_from_the_first_lost_answer() -> None:
    """A batch keeps its last attempt, which is in doubt only if its answer was lost."""
    for error, is_in_doubt in ((LOST, True), (ContentionError("conflict"), False)):
        bench = bench_of(NEW, error)
        batch = Batch()
        pending = bench.processor.accept(REQUEST)
        batch.arrivals.append(pending)
        with pytest.raises(type(error)):
            bench.processor.settle(pending, batch, bench.processor.budget(0.01))
        assert batch.attempt is not None
        assert batch.attempt.is_in_doubt == is_in_doubt
        assert batch.attempt.change.entries == (OWN,)
        assert pending.lost_hashes == set()
