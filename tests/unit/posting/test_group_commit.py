"""Group commit: requests of an account that wait at the same time share transactions."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from ledger_core import (
    ContentionError,
    DuplicateNonceError,
    InsufficientBalanceError,
    LedgerEntry,
    OperationRequest,
    UnavailableError,
    UnknownOperationError,
)
from ledger_core.account import Account, Mark
from ledger_core.dynamodb import ENTRIES_MAX, Cancelled
from ledger_core.errors import InvalidRequestError, StoreError
from ledger_core.observability import measure_request
from ledger_core.posting import GroupCommit
from ledger_core.posting.group_commit import QUEUE_MAX, Waiting, wait_for
from tests.fakes.scripted_store import DONE, NEW, Bench, account, moved, stored
from tests.support import NOON, add, operation, spend

LOST = UnavailableError("lost")
ENOUGH = ContentionError("enough")
MARK = Mark("DAILY_REWARD:day", "2026-11-22")
SECONDS = 10.0
"""How long a test waits for a real thread before it fails."""


def join_all(bench: Bench, *requests: OperationRequest) -> list[Waiting]:
    """Put requests in the queue; the first of them leads."""
    return [bench.group.join(request) for request in requests]


def outcomes(waiting: list[Waiting]) -> list[Any]:
    """The id of each caller's entry, the code of its error, or None while it is pending."""
    codes = [getattr(caller.pending.error, "code", None) for caller in waiting]
    ids = [getattr(caller.pending.entry, "id", None) for caller in waiting]
    return [code or entry_id for code, entry_id in zip(codes, ids, strict=True)]


def turns(waiting: list[Waiting]) -> list[bool]:
    """Whether each caller's turn has come."""
    return [caller.turn.done() for caller in waiting]


def leads(waiting: list[Waiting]) -> list[bool]:
    """Whether each caller leads."""
    return [caller.turn.done() and not caller.pending.is_settled for caller in waiting]


def test_constants_are_what_operators_read() -> None:
    """A thousand requests may wait for one account."""
    assert QUEUE_MAX == 1000


# Several requests in a transaction


def test_waiting_requests_are_written_together() -> None:
    """A transaction has the entries of all requests in their order; each caller gets its own."""
    bench = Bench(account(2, 1), DONE)
    waiting = join_all(bench, add(1, "a"), spend(3, "b"), add(5, "c"))
    assert turns(waiting) == [True, False, False]
    assert bench.group.finish(waiting[0]).balance_after == 3
    assert outcomes(waiting) == [2, 3, 4]
    assert turns(waiting) == [True, True, True]
    (change,) = bench.changes
    entries = change.entries
    assert [entry.balance_after for entry in entries] == [3, 0, 5]
    assert [entry.prev_hash for entry in entries[1:]] == [entry.hash for entry in entries[:-1]]
    assert tuple(bench.group.finish(caller, timeout_seconds=0) for caller in waiting) == entries
    assert bench.calls == ["account", "transact"]
    assert bench.group._queues == {}


def test_request_that_does_not_fit_in_a_group_is_tried_alone() -> None:
    """The request is refused only alone, after a confirmation."""
    bench = Bench(account(2, 1), DONE, (None, account(3, 2)))
    waiting = join_all(bench, spend(9, "too much"), add(1, "a"), spend(3, "later"))
    with pytest.raises(InsufficientBalanceError):
        bench.group.finish(waiting[0])
    assert outcomes(waiting) == ["insufficient_balance", 2, 3]
    assert bench.nonces == [["a", "later"]]
    assert bench.calls == ["account", "transact", "look_up"]


def test_request_that_did_not_fit_fits_after_the_others() -> None:
    """A later request of the group adds enough credits for it."""
    bench = Bench(account(2, 1), DONE, DONE)
    waiting = join_all(bench, spend(3, "a"), add(1, "b"))
    assert bench.group.finish(waiting[0]).balance_after == 0
    assert bench.nonces == [["b"], ["a"]]


def test_several_that_do_not_fit_are_tried_alone() -> None:
    """No empty transaction is sent; each request is confirmed alone."""
    bench = Bench(account(2, 1), (None, account(2, 1)), (None, account(7, 2)), DONE)
    waiting = join_all(bench, spend(9, "a"), spend(7, "b"))
    with pytest.raises(InsufficientBalanceError):
        bench.group.finish(waiting[0])
    assert leads(waiting) == [False, True]
    assert bench.group.finish(waiting[1]).id == 3
    assert (outcomes(waiting), bench.nonces) == (["insufficient_balance", 3], [["b"]])
    assert bench.calls == ["account", "look_up", "look_up", "transact"]


def test_request_that_did_not_fit_comes_before_later_requests() -> None:
    """The request is tried alone before the next group is written."""
    bench = Bench(account(2, 1))
    waiting = join_all(bench, spend(9, "too much"), add(1, "a"))

    def written_while_another_arrives() -> list[Cancelled]:
        waiting.extend(join_all(bench, add(1, "b")))
        return DONE

    bench.store.answers += [written_while_another_arrives, (None, account(3, 2)), DONE]
    with pytest.raises(InsufficientBalanceError):
        bench.group.finish(waiting[0])
    assert outcomes(waiting) == ["insufficient_balance", 2, None]
    assert bench.group.finish(waiting[2]).id == 3
    assert bench.calls == ["account", "transact", "look_up", "transact"]


def test_second_use_of_a_nonce_waits_for_the_first() -> None:
    """A transaction has at most one entry under a key."""
    original = account(2, 1).next_entry(add(1, "a"), amount=1, now=NOON)
    bench = Bench(account(2, 1), DONE, Cancelled(stored=(original,)))
    waiting = join_all(bench, add(1, "a"), add(1, "a"), add(1, "b"))
    assert bench.group.finish(waiting[0]) == original
    with pytest.raises(DuplicateNonceError) as duplicate:
        bench.group.finish(waiting[1])
    assert duplicate.value.replay
    assert bench.nonces == [["a", "b"], ["a"]]


def test_duplicates_are_answered_and_the_other_requests_sent_again_at_once() -> None:
    """The reasons name every duplicate; no race was lost, so no pause and no read follow."""
    originals = tuple(stored(add(1, nonce), 1) for nonce in ("a", "c"))
    bench = Bench(account(2, 2), Cancelled(stored=originals), DONE)
    waiting = join_all(bench, add(1, "b"), add(1, "a"), add(1, "c"), add(1, "d"))
    assert bench.group.finish(waiting[0]).id == 3
    assert outcomes(waiting) == [3, "duplicate_nonce", "duplicate_nonce", 4]
    assert bench.nonces == [["b", "a", "c", "d"], ["b", "d"]]
    assert bench.befores == [account(2, 2)] * 2
    assert (len(set(bench.tokens)), bench.pauses) == (2, [])


def test_conflict_beside_a_duplicate_pauses_the_others() -> None:
    """After the pause the account is read strongly consistent."""
    both = Cancelled(stored=(stored(add(1, "a"), 1),), busy=ContentionError("conflict"))
    bench = Bench(account(2, 1), both, account(3, 2), DONE)
    waiting = join_all(bench, add(1, "b"), add(1, "a"))
    assert bench.group.finish(waiting[0]).id == 3
    assert bench.befores == [account(2, 1), account(3, 2)]
    assert (bench.reads, len(bench.pauses)) == ([False, True], 1)


def test_leader_that_is_a_duplicate_leaves_the_others_to_the_next() -> None:
    """A settled leader neither pauses nor writes for the other requests."""
    both = Cancelled((stored(add(1, "a"), 1),), account(3, 2), ContentionError("conflict"))
    bench = Bench(account(2, 1), both, DONE)
    waiting = join_all(bench, add(1, "a"), add(1, "b"))
    with pytest.raises(DuplicateNonceError):
        bench.group.finish(waiting[0])
    assert leads(waiting) == [False, True]
    assert bench.group.finish(waiting[1]).id == 3
    assert bench.calls == ["account", "transact", "transact"]
    assert bench.pauses == []


def test_group_that_lost_a_race_is_planned_anew() -> None:
    """The whole group is planned on the moved account, with a pause from the second loss on."""
    bench = Bench(NEW, moved(7, 3), moved(8, 4), account(9, 5), DONE)
    waiting = join_all(bench, add(1, "a"), add(1, "b"))
    with measure_request() as metrics:
        bench.group.finish(waiting[0])
    assert outcomes(waiting) == [6, 7]
    assert bench.befores == [NEW, account(7, 3), account(9, 5)]
    assert (metrics.attempts, metrics.stale_heads, len(bench.pauses)) == (3, 2, 1)


def test_request_with_a_mark_is_written_alone() -> None:
    """Neither earlier nor later requests share its transaction."""
    bench = Bench(account(2, 1), DONE, DONE, DONE)
    waiting = join_all(bench, add(1, "a"), add(1, "a2"))
    waiting.append(bench.group.join(add(1, "b"), mark=MARK))
    waiting += join_all(bench, add(1, "c"))
    for caller in (waiting[0], waiting[2], waiting[3]):
        bench.group.finish(caller)
    assert bench.nonces == [["a", "a2"], ["b"], ["c"]]
    noted = {MARK.name: MARK.period}
    assert [change.after.marks for change in bench.changes] == [{}, noted, noted]
    assert outcomes(waiting) == [2, 3, 4, 5]


def test_request_that_opens_no_account_is_refused_without_one() -> None:
    """A queued request keeps `begins`."""
    bench = Bench(NEW, (None, NEW))
    with pytest.raises(InvalidRequestError, match="has no account"):
        bench.group.process(add(1, "n"), begins=False)


def test_transaction_takes_as_many_entries_as_dynamodb_does() -> None:
    """A transaction has 100 items, of which 1 is the account; the other requests wait."""
    bench = Bench(account(2, 1), DONE, DONE)
    waiting = join_all(bench, *(add(1, f"n{number}") for number in range(ENTRIES_MAX + 1)))
    bench.group.finish(waiting[0])
    assert outcomes(waiting) == [*range(2, ENTRIES_MAX + 2), None]
    bench.group.finish(waiting[-1])
    assert (ENTRIES_MAX, [len(nonces) for nonces in bench.nonces]) == (99, [99, 1])
    assert outcomes(waiting) == list(range(2, ENTRIES_MAX + 3))


# The lead


def test_lead_is_passed_on_in_the_order_of_arrival() -> None:
    """The first waiting request leads; only one leads at a time."""
    bench = Bench(account(2, 1), *[DONE] * 3)
    waiting = [bench.group.join(add(1, nonce), mark=MARK) for nonce in "abc"]
    for number, caller in enumerate(waiting):
        assert leads(waiting) == [number == other for other in range(3)]
        assert bench.group.finish(caller).id == 2 + number
    assert leads(waiting) == [False, False, False]
    assert bench.group._queues == {}


def test_request_that_arrives_during_a_transaction_leads_after_it() -> None:
    """The request does not lead during the transaction, and leads after it."""
    bench = Bench(account(2, 1))
    waiting = join_all(bench, add(1, "a"))

    def written_while_another_arrives() -> list[Cancelled]:
        waiting.extend(join_all(bench, add(1, "b")))
        assert turns(waiting) == [True, False]
        return DONE

    bench.store.answers += [written_while_another_arrives, DONE]
    bench.group.finish(waiting[0])
    assert leads(waiting) == [False, True]
    assert bench.group.finish(waiting[1]).id == 3
    assert bench.nonces == [["a"], ["b"]]


@pytest.mark.parametrize("leaves", [False, True])
def test_only_the_leader_passes_the_lead_on(leaves: bool) -> None:
    """A settled leader leads until it finishes, because its thread may still settle the group."""
    bench = Bench(account(2, 1), DONE)
    waiting = join_all(bench, add(1, "a"), add(1, "b"))
    waiting += [bench.group.join(add(1, nonce), mark=MARK) for nonce in "cd"]
    bench.group.finish(waiting[0])
    leader = waiting[2]
    assert leads(waiting) == [False, False, True, False]
    leader.pending.fail(ENOUGH)  # as its thread does before it has settled the group
    if leaves:
        bench.group.leave(waiting[1], ENOUGH)
    assert bench.group.finish(waiting[1]).id == 3
    assert turns(waiting) == [True, True, True, False]
    with pytest.raises(ContentionError):
        bench.group.finish(leader)
    assert leads(waiting) == [False, False, False, True]


def test_accounts_do_not_wait_for_each_other() -> None:
    """Each account has its own queue and leader."""
    bench = Bench(Account(owner_id="bob"), DONE, NEW, DONE)
    ada, bob = join_all(bench, add(1, "n"), add(1, "n", owner_id="bob"))
    assert leads([ada, bob]) == [True, True]
    assert bench.group.finish(bob).owner_id == "bob"
    assert set(bench.group._queues) == {"ada"}
    assert bench.group.finish(ada).owner_id == "ada"
    assert bench.group._queues == {}


# Requests that stop waiting


def test_request_that_leaves_before_its_turn_is_not_written() -> None:
    """A request that leaves is not written; to leave after it is settled changes nothing."""
    bench = Bench(account(2, 1), DONE)
    waiting = join_all(bench, add(1, "a"), add(1, "b"), add(1, "c"))
    bench.group.leave(waiting[1], ENOUGH)
    assert leads(waiting) == [True, False, False]
    bench.group.finish(waiting[0])
    bench.group.leave(waiting[2], ENOUGH)
    assert outcomes(waiting) == [2, "contention", 3]
    assert bench.nonces == [["a", "c"]]
    with pytest.raises(ContentionError) as failure:
        bench.group.finish(waiting[1])
    assert failure.value is ENOUGH
    assert bench.group.finish(waiting[2]).id == 3


def test_request_that_leaves_at_its_turn_passes_the_lead_on() -> None:
    """The request of a leader that leaves is not written, and the next request leads."""
    bench = Bench(account(2, 1), DONE)
    waiting = join_all(bench, add(1, "a"), add(1, "b"))
    bench.group.leave(waiting[0], ENOUGH)
    assert leads(waiting) == [False, True]
    assert bench.group.finish(waiting[1]).id == 2
    assert bench.nonces == [["b"]]
    assert bench.group._queues == {}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_queue_ends_when_all_requests_have_left(order: tuple[int, ...]) -> None:
    """The requests leave in any order: no queue is kept, and DynamoDB is not called."""
    bench = Bench()
    waiting = join_all(bench, add(1, "a"), add(1, "b"), add(1, "c"))
    for number in order:
        bench.group.leave(waiting[number], ENOUGH)
    assert outcomes(waiting) == ["contention"] * 3
    assert (bench.group._queues, bench.calls) == ({}, [])


def test_request_that_leaves_twice_leaves_the_next_queue_alone() -> None:
    """The next queue of the account keeps its leader."""
    bench = Bench(account(2, 1), DONE)
    (early,) = join_all(bench, add(1, "a"))
    bench.group.leave(early, ENOUGH)
    waiting = join_all(bench, add(1, "b"), add(1, "c"))
    bench.group.leave(early, ENOUGH)
    assert leads(waiting) == [True, False]
    assert bench.group.finish(waiting[0]).id == 2


def test_request_that_leaves_during_its_transaction_may_be_stored() -> None:
    """Its caller gets the reason for leaving, although the transaction has its entry."""
    bench = Bench(account(2, 1))
    waiting = join_all(bench, add(1, "a"), add(1, "b"))

    def written_while_one_leaves() -> list[Cancelled]:
        bench.group.leave(waiting[1], ENOUGH)
        return DONE

    bench.store.answers.append(written_while_one_leaves)
    bench.group.finish(waiting[0])
    assert bench.nonces == [["a", "b"]]
    with pytest.raises(ContentionError):
        bench.group.finish(waiting[1])
    assert bench.group._queues == {}


@pytest.mark.parametrize("size", [1, 2])
def test_queue_is_bounded(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """A full queue refuses a request at once; the queues of other accounts do not."""
    monkeypatch.setattr("ledger_core.posting.group_commit.QUEUE_MAX", size)
    bench = Bench(account(2, 1), DONE)
    waiting = join_all(bench, *(add(1, f"n{number}") for number in range(size)))
    full = f"^{size} operations of this owner are waiting already.$"
    with pytest.raises(ContentionError, match=full):
        bench.group.join(add(1, "beyond"))
    bench.group.leave(bench.group.join(add(1, "n", owner_id="bob")), ENOUGH)
    bench.group.finish(waiting[0])
    assert bench.nonces == [[f"n{number}" for number in range(size)]]
    assert bench.group._queues == {}
    bench.group.leave(bench.group.join(add(1, "beyond")), ENOUGH)


def test_refused_request_joins_no_queue() -> None:
    """An unknown operation and an invalid amount are refused before they are queued."""
    bench = Bench()
    unknown = add(1, "n").model_copy(update={"operation": "LEVEL_UP"})
    with pytest.raises(UnknownOperationError):
        bench.group.join(unknown)
    with pytest.raises(InvalidRequestError):
        bench.group.join(operation(amount=7))
    assert bench.group._queues == {}


# Failures


def test_next_leader_settles_the_doubt_of_the_last() -> None:
    """The time of the leader is up; the next leader sends the same transaction again."""
    bench = Bench(account(2, 1), LOST, DONE, DONE)
    waiting = join_all(bench, add(1, "a"), add(1, "b"))
    with pytest.raises(UnavailableError):
        bench.group.finish(waiting[0], timeout_seconds=0.01)
    waiting += join_all(bench, add(1, "c"))
    assert leads(waiting) == [False, True, False]
    assert bench.group.finish(waiting[1]).id == 3
    assert bench.group.finish(waiting[2]).id == 4
    assert outcomes(waiting) == ["unavailable", 3, 4]
    assert bench.nonces == [["a", "b"], ["a", "b"], ["c"]]
    first, again, _ = bench.tokens
    assert first == again
    assert bench.calls == ["account", "transact", "transact", "transact"]


def test_doubt_without_a_waiting_caller_is_dropped() -> None:
    """A transaction that no caller waits for is not sent again, and the account is read anew."""
    bench = Bench(account(2, 1), LOST)
    waiting = join_all(bench, add(1, "a"))

    def late() -> Account:
        return account(3, 2)

    with pytest.raises(UnavailableError):
        bench.group.finish(waiting[0], timeout_seconds=0.01)
    bench.store.answers += [late, DONE]
    assert bench.group.process(add(1, "b")).id == 3
    assert bench.nonces == [["a"], ["b"]]


def test_doubt_of_settled_requests_is_dropped_within_a_queue() -> None:
    """The next leader reads the account and writes its own request."""
    bench = Bench(account(2, 1))
    waiting = join_all(bench, add(1, "a"))

    def lost_while_another_arrives() -> UnavailableError:
        waiting.extend(join_all(bench, add(1, "b")))
        return LOST

    bench.store.answers += [lost_while_another_arrives, account(3, 2), DONE]
    with pytest.raises(UnavailableError):
        bench.group.finish(waiting[0], timeout_seconds=0.01)
    assert bench.group.finish(waiting[1]).id == 3
    assert bench.nonces == [["a"], ["b"]]


def test_requests_of_a_refused_transaction_are_tried_one_by_one() -> None:
    """Only the invalid request fails; the others are written."""
    refused = StoreError("too large")
    bench = Bench(account(2, 1), refused, account(2, 1), DONE, refused, account(3, 2), DONE)
    waiting = join_all(bench, add(1, "a"), add(1, "b"), add(1, "c"))
    assert bench.group.finish(waiting[0]).id == 2
    with pytest.raises(StoreError, match=r"^too large$"):
        bench.group.finish(waiting[1])
    assert bench.group.finish(waiting[2]).id == 3
    assert outcomes(waiting) == [2, "internal", 3]
    assert bench.nonces == [["a", "b", "c"], ["a"], ["b"], ["c"]]


def test_malformed_entry_fails_its_own_request() -> None:
    """A malformed entry that a confirmation finds fails only the request that is confirmed."""
    bench = Bench(account(2, 1), DONE, StoreError("malformed"))
    waiting = join_all(bench, spend(9, "a"), add(1, "b"))
    with pytest.raises(StoreError, match=r"^malformed$"):
        bench.group.finish(waiting[0])
    assert outcomes(waiting) == ["internal", 2]
    assert bench.group.finish(waiting[1]).id == 2


def test_refusal_in_doubt_is_final_for_all() -> None:
    """All requests fail: under another token, a written request would be its own duplicate."""
    bench = Bench(account(2, 1), LOST, StoreError("the credentials have expired"))
    waiting = join_all(bench, add(1, "a"), add(1, "b"))
    for caller in waiting:
        with pytest.raises(StoreError):
            bench.group.finish(caller)
    assert bench.nonces == [["a", "b"]] * 2


def test_leader_that_is_interrupted_passes_the_lead_on() -> None:
    """The next leader sends the transaction again under the same token."""
    bench = Bench(account(2, 1), KeyboardInterrupt(), DONE)
    waiting = join_all(bench, add(1, "a"), add(1, "b"))
    with pytest.raises(KeyboardInterrupt):
        bench.group.finish(waiting[0])
    assert leads(waiting) == [False, True]
    assert bench.group.finish(waiting[1]).id == 3
    assert (bench.nonces, len(set(bench.tokens))) == ([["a", "b"]] * 2, 1)
    assert bench.group._queues == {}


# Waiting in a thread


@pytest.mark.parametrize("timeout_seconds", [3.0, 0.0, -1.0])
def test_wait_ends_when_the_time_is_up(timeout_seconds: float) -> None:
    """A caller whose turn does not come in time gets a contention error."""
    bench = Bench()
    asked: list[tuple[bool, float]] = []

    def wait(turn: "Future[None]", seconds: float) -> bool:
        asked.append((turn.done(), seconds))
        return False

    group = GroupCommit(bench.processor, wait=wait)
    first = group.join(add(1, "a"))
    all_the_time = r"^Other operations of this owner took all the time there was\.$"
    with pytest.raises(ContentionError, match=all_the_time):
        group.process(add(1, "b"), timeout_seconds=timeout_seconds)
    assert asked == [(False, timeout_seconds)]
    assert not first.pending.is_settled
    group.leave(first, ENOUGH)
    assert (group._queues, bench.calls) == ({}, [])


def test_request_that_is_settled_as_its_time_ends_gets_its_entry() -> None:
    """The entry is the answer, although the turn did not come in time."""
    bench = Bench(account(2, 1), DONE)

    def wait(turn: "Future[None]", seconds: float) -> bool:
        group.finish(first)
        return False

    group = GroupCommit(bench.processor, wait=wait)
    first = group.join(add(1, "a"))
    assert group.process(add(1, "b")).id == 3


def test_wait_is_part_of_the_time() -> None:
    """The wait for the turn counts as time of the request."""
    bench = Bench(NEW, DONE)

    def wait(turn: "Future[None]", seconds: float) -> bool:
        bench.pauses.append(seconds)
        return True

    group = GroupCommit(bench.processor, wait=wait)
    with pytest.raises(UnavailableError, match=r"^The time was up before all was done\.$"):
        group.process(add(1, "n"), timeout_seconds=3)
    assert bench.calls == ["account"]


def test_request_has_the_default_time() -> None:
    """The default timeout of a group commit is that of the processor."""
    asked: list[float] = []

    def wait(turn: "Future[None]", seconds: float) -> bool:
        asked.append(seconds)
        return True

    bench = Bench(NEW, *[LOST] * 50)
    group = GroupCommit(bench.processor, wait=wait)
    with pytest.raises(UnavailableError):
        group.process(add(1, "n"))
    assert asked == [10.0]
    assert 9 < sum(bench.pauses) <= 10
    bench = Bench(NEW, *[LOST] * 50)
    with pytest.raises(UnavailableError):
        bench.group.finish(bench.group.join(add(1, "n")))
    assert 9 < sum(bench.pauses) <= 10


def test_request_that_is_interrupted_while_it_waits_is_not_written() -> None:
    """The other requests are written without it."""
    bench = Bench(account(2, 1), DONE)

    def wait(turn: "Future[None]", seconds: float) -> bool:
        raise KeyboardInterrupt

    group = GroupCommit(bench.processor, wait=wait)
    first = group.join(add(1, "a"))
    with pytest.raises(KeyboardInterrupt):
        group.process(add(1, "b"))
    group.finish(first)
    assert bench.nonces == [["a"]]
    with pytest.raises(KeyboardInterrupt):  # also at its turn
        group.process(add(1, "c"))
    assert group._queues == {}


def test_wait_for_a_turn_ends_in_time() -> None:
    """The wait says whether the turn came; a turn that has come needs no time."""
    turn: Future[None] = Future()
    assert not wait_for(turn, 0.001)
    assert not wait_for(turn, -1)
    turn.set_result(None)
    assert wait_for(turn, -1)


class Gate:
    """An answer that waits until a test opens the gate."""

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self.is_open = threading.Event()

    def __call__(self) -> list[Cancelled]:
        self.arrived.set()
        assert self.is_open.wait(SECONDS)
        return DONE


def in_thread(bench: Bench, threads: ThreadPoolExecutor, nonce: str) -> "Future[LedgerEntry]":
    """Post a request in a thread, and return once it waits in the queue."""
    joined = threading.Event()
    join = bench.group.join

    def noted(*arguments: Any, **named: Any) -> Waiting:
        waiting = join(*arguments, **named)
        joined.set()
        return waiting

    bench.group.join = noted  # type: ignore[method-assign]
    posted = threads.submit(bench.group.process, add(1, nonce))
    assert joined.wait(SECONDS)
    bench.group.join = join  # type: ignore[method-assign]
    return posted


def test_threads_that_wait_for_a_transaction_share_the_next() -> None:
    """Two threads arrive during a transaction; the next transaction has the entries of both."""
    gate = Gate()
    bench = Bench(NEW, gate, DONE)
    with ThreadPoolExecutor(3) as threads:
        first = in_thread(bench, threads, "a")
        assert gate.arrived.wait(SECONDS)
        others = [in_thread(bench, threads, nonce) for nonce in ("b", "c")]
        assert not any(posted.done() for posted in (first, *others))
        gate.is_open.set()
        assert first.result(SECONDS).id == 1
        assert [posted.result(SECONDS).id for posted in others] == [2, 3]
    assert bench.nonces == [["a"], ["b", "c"]]
    assert bench.group._queues == {}


def test_thread_whose_time_is_up_leaves_the_others_alone() -> None:
    """A thread whose turn does not come leaves; the transaction in progress is not disturbed."""
    gate = Gate()
    bench = Bench(NEW, gate)
    with ThreadPoolExecutor(1) as threads:
        first = in_thread(bench, threads, "a")
        assert gate.arrived.wait(SECONDS)
        with pytest.raises(ContentionError):
            bench.group.process(add(1, "b"), timeout_seconds=0.01)
        gate.is_open.set()
        assert first.result(SECONDS).id == 1
    assert bench.nonces == [["a"]]
    assert bench.group._queues == {}


def test_only_one_thread_leads_at_a_time() -> None:
    """Many threads post to an account, and no two of its transactions overlap."""
    bench = Bench(NEW)
    under_way = threading.Lock()
    sent: list[tuple[LedgerEntry, ...]] = []

    def transact(changes: Any, *, token: str) -> list[Cancelled]:
        assert under_way.acquire(blocking=False)
        try:
            (change,) = changes
            sent.append(change.entries)
            return DONE
        finally:
            under_way.release()

    bench.store.transact = transact  # type: ignore[method-assign]
    with ThreadPoolExecutor(8) as threads:
        requests = [add(1, f"n{number}") for number in range(400)]
        posted = list(threads.map(bench.group.process, requests))
    assert sorted(entry.id for entry in posted) == list(range(1, 401))
    assert [entry.id for entries in sent for entry in entries] == list(range(1, 401))
    assert bench.calls == ["account"]
    assert bench.group._queues == {}
