"""Group commit: requests to one account that wait at the same time share transactions."""

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
"""How long a real thread is waited for before its test fails."""


def line(bench: Bench, *requests: OperationRequest) -> list[Waiting]:
    """Requests that wait together; the first of them leads."""
    return [bench.group.join(request) for request in requests]


def outcomes(waiting: list[Waiting]) -> list[Any]:
    """The id of each request's entry, the code of its error, or None while it is pending."""
    codes = [getattr(one.pending.error, "code", None) for one in waiting]
    ids = [getattr(one.pending.entry, "id", None) for one in waiting]
    return [code or entry_id for code, entry_id in zip(codes, ids, strict=True)]


def turns(waiting: list[Waiting]) -> list[bool]:
    """Of each request, whether its turn is done."""
    return [one.turn.done() for one in waiting]


def leads(waiting: list[Waiting]) -> list[bool]:
    """Of each request, whether it leads."""
    return [one.turn.done() and not one.pending.is_settled for one in waiting]


def test_constants_are_what_operators_read() -> None:
    """A thousand requests may wait for one account."""
    assert QUEUE_MAX == 1000


# Several in one transaction


def test_waiting_requests_are_written_together() -> None:
    """A transaction has the entries of all, each upon the one before; each caller finds its own."""
    bench = Bench(account(2, 1), DONE)
    waiting = line(bench, add(1, "a"), spend(3, "b"), add(5, "c"))
    assert turns(waiting) == [True, False, False]
    assert bench.group.finish(waiting[0]).balance_after == 3
    assert outcomes(waiting) == [2, 3, 4]
    assert turns(waiting) == [True, True, True]
    (change,) = bench.changes
    entries = change.entries
    assert [entry.balance_after for entry in entries] == [3, 0, 5]
    assert [entry.prev_hash for entry in entries[1:]] == [entry.hash for entry in entries[:-1]]
    assert tuple(bench.group.finish(one, timeout_seconds=0) for one in waiting) == entries
    assert bench.calls == ["account", "transact"]
    assert bench.group._queues == {}


def test_request_that_does_not_fit_beside_others_is_tried_alone() -> None:
    """It may fit after the others; it is refused alone, after a confirmation."""
    bench = Bench(account(2, 1), DONE, (None, account(3, 2)))
    waiting = line(bench, spend(9, "too much"), add(1, "a"), spend(3, "later"))
    with pytest.raises(InsufficientBalanceError):
        bench.group.finish(waiting[0])
    assert outcomes(waiting) == ["insufficient_balance", 2, 3]
    assert bench.nonces == [["a", "later"]]
    assert bench.calls == ["account", "transact", "look_up"]


def test_request_that_did_not_fit_fits_after_the_others() -> None:
    """The credits that a later request added are enough for it."""
    bench = Bench(account(2, 1), DONE, DONE)
    waiting = line(bench, spend(3, "a"), add(1, "b"))
    assert bench.group.finish(waiting[0]).balance_after == 0
    assert bench.nonces == [["b"], ["a"]]


def test_several_that_do_not_fit_are_tried_alone() -> None:
    """No transaction is empty; each request is confirmed by itself."""
    bench = Bench(account(2, 1), (None, account(2, 1)), (None, account(7, 2)), DONE)
    waiting = line(bench, spend(9, "a"), spend(7, "b"))
    with pytest.raises(InsufficientBalanceError):
        bench.group.finish(waiting[0])
    assert leads(waiting) == [False, True]
    assert bench.group.finish(waiting[1]).id == 3
    assert (outcomes(waiting), bench.nonces) == (["insufficient_balance", 3], [["b"]])
    assert bench.calls == ["account", "look_up", "look_up", "transact"]


def test_request_that_did_not_fit_is_not_passed_by_later_ones() -> None:
    """It is tried before the next transaction, however many requests keep coming."""
    bench = Bench(account(2, 1))
    waiting = line(bench, spend(9, "too much"), add(1, "a"))

    def written_while_another_comes() -> list[Cancelled]:
        waiting.extend(line(bench, add(1, "b")))
        return DONE

    bench.store.answers += [written_while_another_comes, (None, account(3, 2)), DONE]
    with pytest.raises(InsufficientBalanceError):
        bench.group.finish(waiting[0])
    assert outcomes(waiting) == ["insufficient_balance", 2, None]
    assert bench.group.finish(waiting[2]).id == 3
    assert bench.calls == ["account", "transact", "look_up", "transact"]


def test_second_use_of_a_nonce_waits_for_the_first() -> None:
    """No transaction has two entries under one key."""
    original = account(2, 1).next_entry(add(1, "a"), amount=1, now=NOON)
    bench = Bench(account(2, 1), DONE, Cancelled(stored=(original,)))
    waiting = line(bench, add(1, "a"), add(1, "a"), add(1, "b"))
    assert bench.group.finish(waiting[0]) == original
    with pytest.raises(DuplicateNonceError) as duplicate:
        bench.group.finish(waiting[1])
    assert duplicate.value.replay
    assert bench.nonces == [["a", "b"], ["a"]]


def test_duplicates_are_answered_and_the_others_sent_again_at_once() -> None:
    """The reasons name every duplicate; no race was lost, so there is no pause and no read."""
    originals = tuple(stored(add(1, nonce), 1) for nonce in ("a", "c"))
    bench = Bench(account(2, 2), Cancelled(stored=originals), DONE)
    waiting = line(bench, add(1, "b"), add(1, "a"), add(1, "c"), add(1, "d"))
    assert bench.group.finish(waiting[0]).id == 3
    assert outcomes(waiting) == [3, "duplicate_nonce", "duplicate_nonce", 4]
    assert bench.nonces == [["b", "a", "c", "d"], ["b", "d"]]
    assert bench.befores == [account(2, 2)] * 2
    assert (len(set(bench.tokens)), bench.pauses) == (2, [])


def test_conflict_beside_a_duplicate_pauses_the_others() -> None:
    """After the pause the account is read strongly consistent."""
    both = Cancelled(stored=(stored(add(1, "a"), 1),), busy=ContentionError("conflict"))
    bench = Bench(account(2, 1), both, account(3, 2), DONE)
    waiting = line(bench, add(1, "b"), add(1, "a"))
    assert bench.group.finish(waiting[0]).id == 3
    assert bench.befores == [account(2, 1), account(3, 2)]
    assert (bench.reads, len(bench.pauses)) == ([False, True], 1)


def test_leader_that_is_a_duplicate_leaves_the_others_to_the_next() -> None:
    """A settled leader neither pauses nor writes for the others."""
    both = Cancelled((stored(add(1, "a"), 1),), account(3, 2), ContentionError("conflict"))
    bench = Bench(account(2, 1), both, DONE)
    waiting = line(bench, add(1, "a"), add(1, "b"))
    with pytest.raises(DuplicateNonceError):
        bench.group.finish(waiting[0])
    assert leads(waiting) == [False, True]
    assert bench.group.finish(waiting[1]).id == 3
    assert bench.calls == ["account", "transact", "transact"]
    assert bench.pauses == []


def test_lost_race_is_lost_by_all() -> None:
    """All are planned anew on the moved account, with a pause from the second loss on."""
    bench = Bench(NEW, moved(7, 3), moved(8, 4), account(9, 5), DONE)
    waiting = line(bench, add(1, "a"), add(1, "b"))
    with measure_request() as metrics:
        bench.group.finish(waiting[0])
    assert outcomes(waiting) == [6, 7]
    assert bench.befores == [NEW, account(7, 3), account(9, 5)]
    assert (metrics.attempts, metrics.stale_heads, len(bench.pauses)) == (3, 2, 1)


def test_request_with_a_mark_is_written_alone() -> None:
    """Neither those before it nor those behind it share its transaction."""
    bench = Bench(account(2, 1), DONE, DONE, DONE)
    waiting = line(bench, add(1, "a"), add(1, "a2"))
    waiting.append(bench.group.join(add(1, "b"), mark=MARK))
    waiting += line(bench, add(1, "c"))
    for one in (waiting[0], waiting[2], waiting[3]):
        bench.group.finish(one)
    assert bench.nonces == [["a", "a2"], ["b"], ["c"]]
    noted = {MARK.name: MARK.period}
    assert [change.after.marks for change in bench.changes] == [{}, noted, noted]
    assert outcomes(waiting) == [2, 3, 4, 5]


def test_request_that_opens_no_account_is_refused_without_one() -> None:
    """A request of a group keeps whether it may be the first entry."""
    bench = Bench(NEW, (None, NEW))
    with pytest.raises(InvalidRequestError, match="has no account"):
        bench.group.process(add(1, "n"), begins=False)


def test_transaction_takes_as_many_entries_as_dynamodb_does() -> None:
    """A transaction has a hundred items, one of which is the account; the rest comes next."""
    bench = Bench(account(2, 1), DONE, DONE)
    waiting = line(bench, *(add(1, f"n{number}") for number in range(ENTRIES_MAX + 1)))
    bench.group.finish(waiting[0])
    assert outcomes(waiting) == [*range(2, ENTRIES_MAX + 2), None]
    bench.group.finish(waiting[-1])
    assert (ENTRIES_MAX, [len(nonces) for nonces in bench.nonces]) == (99, [99, 1])
    assert outcomes(waiting) == list(range(2, ENTRIES_MAX + 3))


# The lead


def test_lead_is_passed_on_in_the_order_of_arrival() -> None:
    """Each request that is left over leads in its turn; one leads at any time."""
    bench = Bench(account(2, 1), *[DONE] * 3)
    waiting = [bench.group.join(add(1, nonce), mark=MARK) for nonce in "abc"]
    for number, one in enumerate(waiting):
        assert leads(waiting) == [number == other for other in range(3)]
        assert bench.group.finish(one).id == 2 + number
    assert leads(waiting) == [False, False, False]
    assert bench.group._queues == {}


def test_request_that_arrives_during_a_transaction_leads_after_it() -> None:
    """It does not lead while another does, and is not left without a leader."""
    bench = Bench(account(2, 1))
    waiting = line(bench, add(1, "a"))

    def written_while_another_comes() -> list[Cancelled]:
        waiting.extend(line(bench, add(1, "b")))
        assert turns(waiting) == [True, False]
        return DONE

    bench.store.answers += [written_while_another_comes, DONE]
    bench.group.finish(waiting[0])
    assert leads(waiting) == [False, True]
    assert bench.group.finish(waiting[1]).id == 3
    assert bench.nonces == [["a"], ["b"]]


@pytest.mark.parametrize("leaves", [False, True])
def test_only_the_leader_passes_the_lead_on(leaves: bool) -> None:
    """A settled leader leads until it finishes: its thread may still be busy with the outcome."""
    bench = Bench(account(2, 1), DONE)
    waiting = line(bench, add(1, "a"), add(1, "b"))
    waiting += [bench.group.join(add(1, nonce), mark=MARK) for nonce in "cd"]
    bench.group.finish(waiting[0])
    leader = waiting[2]
    assert leads(waiting) == [False, False, True, False]
    leader.pending.fail(ENOUGH)  # as its own thread does, before it is done with all of its group
    if leaves:
        bench.group.leave(waiting[1], ENOUGH)
    assert bench.group.finish(waiting[1]).id == 3
    assert turns(waiting) == [True, True, True, False]
    with pytest.raises(ContentionError):
        bench.group.finish(leader)
    assert leads(waiting) == [False, False, False, True]


def test_accounts_do_not_wait_for_each_other() -> None:
    """Each account has its queue and its leader."""
    bench = Bench(Account(owner_id="bob"), DONE, NEW, DONE)
    ada, bob = line(bench, add(1, "n"), add(1, "n", owner_id="bob"))
    assert leads([ada, bob]) == [True, True]
    assert bench.group.finish(bob).owner_id == "bob"
    assert set(bench.group._queues) == {"ada"}
    assert bench.group.finish(ada).owner_id == "ada"
    assert bench.group._queues == {}


# Requests that stop waiting


def test_request_that_leaves_before_its_turn_is_not_written() -> None:
    """A request that leaves is not written; leaving once it is settled changes nothing."""
    bench = Bench(account(2, 1), DONE)
    waiting = line(bench, add(1, "a"), add(1, "b"), add(1, "c"))
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
    """A leader that leaves is not written, and the next one leads."""
    bench = Bench(account(2, 1), DONE)
    waiting = line(bench, add(1, "a"), add(1, "b"))
    bench.group.leave(waiting[0], ENOUGH)
    assert leads(waiting) == [False, True]
    assert bench.group.finish(waiting[1]).id == 2
    assert bench.nonces == [["b"]]
    assert bench.group._queues == {}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_queue_is_gone_when_all_have_left(order: tuple[int, ...]) -> None:
    """In whatever order they leave, nothing is kept and nothing was called."""
    bench = Bench()
    waiting = line(bench, add(1, "a"), add(1, "b"), add(1, "c"))
    for number in order:
        bench.group.leave(waiting[number], ENOUGH)
    assert outcomes(waiting) == ["contention"] * 3
    assert (bench.group._queues, bench.calls) == ({}, [])


def test_request_that_leaves_twice_leaves_the_next_queue_alone() -> None:
    """A later queue of the same account keeps its leader."""
    bench = Bench(account(2, 1), DONE)
    (early,) = line(bench, add(1, "a"))
    bench.group.leave(early, ENOUGH)
    waiting = line(bench, add(1, "b"), add(1, "c"))
    bench.group.leave(early, ENOUGH)
    assert leads(waiting) == [True, False]
    assert bench.group.finish(waiting[0]).id == 2


def test_request_that_leaves_while_it_is_written_may_be_stored() -> None:
    """Its caller gets the reason to stop, though the transaction has its entry."""
    bench = Bench(account(2, 1))
    waiting = line(bench, add(1, "a"), add(1, "b"))

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
    """A full queue refuses a request at once, and other accounts' queues do not."""
    monkeypatch.setattr("ledger_core.posting.group_commit.QUEUE_MAX", size)
    bench = Bench(account(2, 1), DONE)
    waiting = line(bench, *(add(1, f"n{number}") for number in range(size)))
    full = f"^{size} operations of this owner are waiting already.$"
    with pytest.raises(ContentionError, match=full):
        bench.group.join(add(1, "more"))
    bench.group.leave(bench.group.join(add(1, "n", owner_id="bob")), ENOUGH)
    bench.group.finish(waiting[0])
    assert bench.nonces == [[f"n{number}" for number in range(size)]]
    assert bench.group._queues == {}
    bench.group.leave(bench.group.join(add(1, "more")), ENOUGH)


def test_refused_request_joins_no_queue() -> None:
    """An unknown operation and an invalid amount are refused before anything is kept."""
    bench = Bench()
    unknown = add(1, "n").model_copy(update={"operation": "LEVEL_UP"})
    with pytest.raises(UnknownOperationError):
        bench.group.join(unknown)
    with pytest.raises(InvalidRequestError):
        bench.group.join(operation(amount=7))
    assert bench.group._queues == {}


# Failures


def test_doubt_that_a_leader_leaves_is_settled_by_the_next() -> None:
    """The leader's time is up; the next sends the same transaction again for all of it."""
    bench = Bench(account(2, 1), LOST, DONE, DONE)
    waiting = line(bench, add(1, "a"), add(1, "b"))
    with pytest.raises(UnavailableError):
        bench.group.finish(waiting[0], timeout_seconds=0.01)
    waiting += line(bench, add(1, "c"))
    assert leads(waiting) == [False, True, False]
    assert bench.group.finish(waiting[1]).id == 3
    assert bench.group.finish(waiting[2]).id == 4
    assert outcomes(waiting) == ["unavailable", 3, 4]
    assert bench.nonces == [["a", "b"], ["a", "b"], ["c"]]
    first, again, _ = bench.tokens
    assert first == again
    assert bench.calls == ["account", "transact", "transact", "transact"]


def test_doubt_that_is_no_longer_waited_for_is_dropped() -> None:
    """A transaction without a waiting caller is not sent again, and the account is read anew."""
    bench = Bench(account(2, 1), LOST)
    waiting = line(bench, add(1, "a"))

    def late() -> Account:
        return account(3, 2)

    with pytest.raises(UnavailableError):
        bench.group.finish(waiting[0], timeout_seconds=0.01)
    bench.store.answers += [late, DONE]
    assert bench.group.process(add(1, "b")).id == 3
    assert bench.nonces == [["a"], ["b"]]


def test_doubt_of_settled_requests_is_dropped_within_a_queue() -> None:
    """The next leader writes its own request on the account as it is."""
    bench = Bench(account(2, 1))
    waiting = line(bench, add(1, "a"))

    def lost_while_another_comes() -> UnavailableError:
        waiting.extend(line(bench, add(1, "b")))
        return LOST

    bench.store.answers += [lost_while_another_comes, account(3, 2), DONE]
    with pytest.raises(UnavailableError):
        bench.group.finish(waiting[0], timeout_seconds=0.01)
    assert bench.group.finish(waiting[1]).id == 3
    assert bench.nonces == [["a"], ["b"]]


def test_refused_transaction_is_tried_one_by_one() -> None:
    """The error meets the request that it is for, and the others are written."""
    refused = StoreError("too large")
    bench = Bench(account(2, 1), refused, account(2, 1), DONE, refused, account(3, 2), DONE)
    waiting = line(bench, add(1, "a"), add(1, "b"), add(1, "c"))
    assert bench.group.finish(waiting[0]).id == 2
    with pytest.raises(StoreError, match=r"^too large$"):
        bench.group.finish(waiting[1])
    assert bench.group.finish(waiting[2]).id == 3
    assert outcomes(waiting) == [2, "internal", 3]
    assert bench.nonces == [["a", "b", "c"], ["a"], ["b"], ["c"]]


def test_malformed_entry_fails_its_own_request() -> None:
    """A confirmation that finds a malformed entry fails the request that it was made for."""
    bench = Bench(account(2, 1), DONE, StoreError("malformed"))
    waiting = line(bench, spend(9, "a"), add(1, "b"))
    with pytest.raises(StoreError, match=r"^malformed$"):
        bench.group.finish(waiting[0])
    assert outcomes(waiting) == ["internal", 2]
    assert bench.group.finish(waiting[1]).id == 2


def test_refusal_in_doubt_is_final_for_all() -> None:
    """Under another token, a request that was written would be answered as its own duplicate."""
    bench = Bench(account(2, 1), LOST, StoreError("the credentials have expired"))
    waiting = line(bench, add(1, "a"), add(1, "b"))
    for one in waiting:
        with pytest.raises(StoreError):
            bench.group.finish(one)
    assert bench.nonces == [["a", "b"]] * 2


def test_leader_that_is_interrupted_passes_the_lead_on() -> None:
    """Its transaction goes out again under the same token, as another request waits for it."""
    bench = Bench(account(2, 1), KeyboardInterrupt(), DONE)
    waiting = line(bench, add(1, "a"), add(1, "b"))
    with pytest.raises(KeyboardInterrupt):
        bench.group.finish(waiting[0])
    assert leads(waiting) == [False, True]
    assert bench.group.finish(waiting[1]).id == 3
    assert (bench.nonces, len(set(bench.tokens))) == ([["a", "b"]] * 2, 1)
    assert bench.group._queues == {}


# Waiting in a thread


@pytest.mark.parametrize("timeout_seconds", [3.0, 0.0, -1.0])
def test_wait_takes_the_time_that_there_is(timeout_seconds: float) -> None:
    """A caller whose turn does not come in its time gets a contention error."""
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


def test_request_that_is_settled_as_its_time_ends_has_its_entry() -> None:
    """The entry is the answer, though the wait ended without the turn."""
    bench = Bench(account(2, 1), DONE)

    def wait(turn: "Future[None]", seconds: float) -> bool:
        group.finish(first)
        return False

    group = GroupCommit(bench.processor, wait=wait)
    first = group.join(add(1, "a"))
    assert group.process(add(1, "b")).id == 3


def test_wait_is_part_of_the_time() -> None:
    """What a caller waited for its turn is taken from the time of its calls."""
    bench = Bench(NEW, DONE)

    def wait(turn: "Future[None]", seconds: float) -> bool:
        bench.pauses.append(seconds)
        return True

    group = GroupCommit(bench.processor, wait=wait)
    with pytest.raises(UnavailableError, match=r"^The time was up before all was done\.$"):
        group.process(add(1, "n"), timeout_seconds=3)
    assert bench.calls == ["account"]


def test_request_has_the_default_time() -> None:
    """A caller that gives no time waits as long as a processor's caller."""
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
    """The others are written without it."""
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


def test_turn_is_waited_for_no_longer_than_there_is_time() -> None:
    """A turn that is done is done at once, even without time; another is not."""
    turn: Future[None] = Future()
    assert not wait_for(turn, 0.001)
    assert not wait_for(turn, -1)
    turn.set_result(None)
    assert wait_for(turn, -1)


class Gate:
    """An answer that is held back until a test opens the gate."""

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self.is_open = threading.Event()

    def __call__(self) -> list[Cancelled]:
        self.arrived.set()
        assert self.is_open.wait(SECONDS)
        return DONE


def in_thread(bench: Bench, threads: ThreadPoolExecutor, nonce: str) -> "Future[LedgerEntry]":
    """A request that is posted in a thread of its own, once it waits in the queue."""
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
    """While a transaction is on its way two threads come; the next one has the entries of both."""
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
    """A thread that waits in vain leaves; the transaction on its way is not disturbed."""
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


def test_one_leads_at_any_time() -> None:
    """Many threads post to one account: no two transactions are on their way at once."""
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
