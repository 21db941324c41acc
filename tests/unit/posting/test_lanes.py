"""What a processor keeps between an owner's operations, and how those that wait together are written."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from functions.example_app.operations import ExampleAppOperations
from ledger_core import (
    ContentionError,
    DuplicateNonceError,
    InsufficientBalanceError,
    OperationRequest,
    UnavailableError,
)
from ledger_core.account import Mark, entry_after
from ledger_core.dynamodb import ENTRIES_MAX, Cancelled
from ledger_core.errors import InvalidRequestError, RequestState, StoreError
from ledger_core.observability import measure_request
from ledger_core.posting import HEADS_MAX, TIMEOUT_SECONDS, OperationProcessor
from ledger_core.posting.lanes import Ticket
from tests.support import NOON, add, spend
from tests.unit.posting.test_processor import NEW, Bench, ScriptedStore, head, moved


def test_constants_are_what_operators_are_told() -> None:
    """Ten seconds, and four thousand owners."""
    assert (TIMEOUT_SECONDS, HEADS_MAX) == (10.0, 4096)


def test_as_many_owners_are_remembered_as_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was not seen for longest is forgotten, and read again."""
    monkeypatch.setattr("ledger_core.posting.processor.HEADS_MAX", 2)
    bench = Bench(*[NEW, None] * 2, None, *[NEW, None] * 2)
    for owner_id in ("ada", "bob", "ada", "eve", "bob"):
        bench.processor.process(add(1, f"n{len(bench.store.calls)}", owner_id=owner_id))
    read = [arguments["owner_id"] for name, arguments in bench.store.calls if name == "head"]
    assert read == ["ada", "bob", "eve", "bob"]


def test_head_is_read_at_half_the_cost_and_written_on_with_its_mark() -> None:
    """A head that is a little old is found out by the write; a mark is noted in the same transaction."""
    bench, mark = Bench(NEW, moved(7, 3), None), Mark("DAILY_REWARD:day", "2026-11-22")
    bench.processor.process(add(1, "n"), mark=mark)
    assert bench.store.calls[0] == ("head", {"owner_id": "ada", "consistent": False})
    assert bench.appended("head") == [NEW, head(7, 3)]
    assert bench.appended("mark") == [mark, mark]


def test_mark_that_a_later_one_keeps_out_is_left_out() -> None:
    """The entry is written all the same, on the head that was known."""
    mark, known = Mark("DAILY_REWARD:day", "2026-11-22"), head(7, 3)
    later = Cancelled(stored=(), head=known, contended=False, marks={mark.name: "2026-11-23"})
    bench = Bench(known, later._replace(marks={mark.name: "2026-11-22", "other": "2026-12"}), later, known, None)
    assert bench.processor.process(add(1, "n"), mark=mark).id == 4
    assert bench.appended("mark") == [mark, mark, None]


def test_operation_that_begins_no_ledger_is_refused_where_there_is_none() -> None:
    """Also if the ledger was erased since; where it was begun since, it is written."""
    bench = Bench(NEW, (None, NEW))
    with pytest.raises(InvalidRequestError, match="has no ledger"):
        bench.processor.process(add(1, "n"), begins=False)
    bench = Bench(head(7, 3), moved(0, 0), (None, NEW))
    with pytest.raises(InvalidRequestError, match="has no ledger"):
        bench.processor.process(add(1, "n"), begins=False)
    assert len(bench.appended("head")) == 1
    bench = Bench(NEW, (None, head(2, 1)), None)
    assert bench.processor.process(add(1, "n"), begins=False).id == 2


def test_cancellation_that_shows_no_head_leaves_the_one_that_is_known() -> None:
    """Where nobody was raced with, the others of a transaction are sent again on the head that is known."""
    original = entry_after(NEW, add(1, "a"), amount=1, now=NOON)
    bench = Bench(head(2, 1), Cancelled(stored=(original,), head=None, contended=False), None)
    tickets = line(bench, add(1, "a"), add(1, "b"))
    assert bench.processor.finish(tickets[1]).id == 2
    assert bench.appended("head") == [head(2, 1)] * 2
    assert bench.pauses == []


def test_head_is_read_anew_after_a_pause() -> None:
    """It is old by then, whatever the pause was for; and it has to be the last one, as many write."""
    bench = Bench(head(2, 1), Cancelled(stored=(), head=None, contended=True), head(3, 2), None)
    assert bench.processor.process(add(1, "n")).id == 3
    assert bench.appended("head") == [head(2, 1), head(3, 2)]
    assert [asked["consistent"] for name, asked in bench.store.calls if name == "head"] == [False, True]
    assert len(bench.pauses) == 1


def test_attempts_and_stale_heads_are_told() -> None:
    """Each transaction begun counts, and each that another writer's entry spoilt."""
    conflict = Cancelled(stored=(), head=None, contended=True)
    bench = Bench(NEW, moved(0, 1), conflict, NEW, moved(0, 2), NEW, UnavailableError("lost"), None)
    with measure_request() as usage:
        bench.processor.process(add(1, "n"))
    assert (usage.attempts, usage.stale_heads, usage.retries) == (4, 2, 3)


def test_head_that_a_refusal_is_told_by_is_remembered() -> None:
    """What was read to confirm a refusal need not be read again."""
    bench = Bench(NEW, (None, head(4, 2)), None)
    with pytest.raises(InsufficientBalanceError):
        bench.processor.process(spend(5, "n"))
    assert bench.processor.process(spend(4, "n")).id == 3
    assert [name for name, _ in bench.store.calls] == ["head", "look_up", "append"]
    assert bench.store.calls[1][1] == {"owner_id": "ada", "nonce": "n"}


def test_confirmation_that_fails_fails_while_checking_the_nonce() -> None:
    """For that is what it asks for first."""
    bench = Bench(NEW, UnavailableError("down"))
    with pytest.raises(UnavailableError) as failure:
        bench.processor.process(spend(5, "n"), timeout_seconds=0)
    assert failure.value.state == RequestState.CHECKING_NONCE


@pytest.mark.parametrize(("timeout_seconds", "waits"), [(3, 3), (0, 0), (-1, 0)])
def test_waiting_in_line_takes_the_time_that_there_is(timeout_seconds: float, waits: float) -> None:
    """And none when there is none."""
    asked: list[Any] = []

    class Taken:
        def acquire(self, *, timeout: float) -> bool:
            asked.append(timeout)
            return False

    bench = Bench()
    bench.processor._lane_of("ada").lock = Taken()  # type: ignore[assignment]  # stands in
    with pytest.raises(ContentionError, match=r"^Other operations of this owner took all the time there was\.$"):
        bench.processor.process(add(1, "n"), timeout_seconds=timeout_seconds)
    assert asked == [waits]


def test_time_is_utc_wherever_the_process_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine's time zone moves no entry."""
    store: Any = ScriptedStore(NEW, None)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        entry = OperationProcessor(store, ExampleAppOperations).process(add(1, "n"))
    finally:
        monkeypatch.undo()
        time.tzset()
    assert abs(entry.created_at - datetime.now(UTC)) < timedelta(hours=1)


def line(bench: Bench, *requests: OperationRequest) -> list[Ticket]:
    """Operations that wait together."""
    return [bench.processor.enter(request) for request in requests]


def outcomes(tickets: list[Ticket]) -> list[Any]:
    """The id of each one's entry, or the code of what it failed with."""
    return [getattr(ticket.error, "code", None) or getattr(ticket.entry, "id", None) for ticket in tickets]


def sent(bench: Bench) -> list[list[str]]:
    """The nonces of each transaction."""
    return [[entry.nonce for entry in entries] for entries in bench.appended("entries")]


def test_those_that_wait_together_are_written_together() -> None:
    """One transaction, one entry upon the other; who comes to its turn then finds it done."""
    bench = Bench(head(2, 1), None)
    tickets = line(bench, add(1, "a"), spend(3, "b"), add(5, "c"))
    assert bench.processor.finish(tickets[0]).balance_after == 3
    assert outcomes(tickets) == [2, 3, 4]
    (entries,) = bench.appended("entries")
    assert [entry.balance_after for entry in entries] == [3, 0, 5]
    assert [entry.prev_hash for entry in entries[1:]] == [entry.hash for entry in entries[:-1]]
    assert [bench.processor.finish(ticket, timeout_seconds=0) for ticket in tickets] == entries
    assert [name for name, _ in bench.store.calls] == ["head", "append"]


def test_one_that_does_not_fit_beside_others_is_seen_to_after_them() -> None:
    """It may fit then; refused it is by a fresh look, as ever, and by itself."""
    bench = Bench(head(2, 1), None, (None, head(3, 2)), None)
    tickets = line(bench, spend(9, "too much"), add(1, "a"), spend(3, "later"))
    with pytest.raises(InsufficientBalanceError):
        bench.processor.finish(tickets[0])
    assert outcomes(tickets) == ["insufficient_balance", 2, 3]
    assert sent(bench) == [["a", "later"]]
    assert [name for name, _ in bench.store.calls] == ["head", "append", "look_up"]


def test_second_use_of_a_nonce_waits_for_the_first() -> None:
    """No transaction has two entries under one key."""
    original = entry_after(head(2, 1), add(1, "a"), amount=1, now=NOON)
    bench = Bench(head(2, 1), None, Cancelled(stored=(original,), head=None, contended=False))
    tickets = line(bench, add(1, "a"), add(1, "a"), add(1, "b"))
    assert bench.processor.finish(tickets[0]) == original
    with pytest.raises(DuplicateNonceError) as duplicate:
        bench.processor.finish(tickets[1])
    assert duplicate.value.replay
    assert sent(bench) == [["a", "b"], ["a"]]


def test_duplicates_are_told_apart_and_the_others_sent_again_at_once() -> None:
    """The reasons name them all; nobody was raced with, and so nobody waits."""
    stored = [entry_after(NEW, add(1, nonce), amount=1, now=NOON) for nonce in ("a", "c")]
    bench = Bench(head(2, 2), Cancelled(stored=stored, head=None, contended=False), None)
    tickets = line(bench, add(1, "a"), add(1, "b"), add(1, "c"), add(1, "d"))
    assert bench.processor.finish(tickets[1]).id == 3
    assert outcomes(tickets) == ["duplicate_nonce", 3, "duplicate_nonce", 4]
    assert sent(bench) == [["a", "b", "c", "d"], ["b", "d"]]
    assert (len(set(bench.appended("token"))), bench.pauses) == (2, [])


def test_lost_race_is_lost_by_all_and_recomputed_from_the_fresh_head() -> None:
    """And from the second loss on there is a pause, as for one."""
    bench = Bench(NEW, moved(7, 3), moved(8, 4), head(9, 5), None)
    tickets = line(bench, add(1, "a"), add(1, "b"))
    with measure_request() as usage:
        bench.processor.finish(tickets[0])
    assert (outcomes(tickets), bench.appended("head")) == ([6, 7], [NEW, head(7, 3), head(9, 5)])
    assert (usage.attempts, usage.stale_heads, len(bench.pauses)) == (3, 2, 1)


def test_operation_with_a_mark_goes_alone() -> None:
    """A balance takes one note at a time."""
    bench, mark = Bench(head(2, 1), None, None, None), Mark("DAILY_REWARD:day", "2026-11-22")
    tickets = [*line(bench, add(1, "a")), bench.processor.enter(add(1, "b"), mark=mark), *line(bench, add(1, "c"))]
    assert bench.processor.finish(tickets[2]).id == 4
    assert (sent(bench), bench.appended("mark")) == ([["a"], ["b"], ["c"]], [None, mark, None])
    assert outcomes(tickets) == [2, 3, 4]


def test_transaction_takes_as_many_as_dynamodb_does() -> None:
    """A hundred items, one of which is the balance; the rest is next."""
    bench = Bench(head(2, 1), None, None)
    tickets = line(bench, *(add(1, f"n{number}") for number in range(ENTRIES_MAX + 1)))
    bench.processor.finish(tickets[-1])
    assert (ENTRIES_MAX, [len(nonces) for nonces in sent(bench)]) == (99, [99, 1])
    assert outcomes(tickets) == list(range(2, ENTRIES_MAX + 3))


def test_doubtful_transaction_is_settled_by_the_next_that_waits() -> None:
    """Whose time is up is told so; the next sends the very same again, and all learn what came of it."""
    bench = Bench(head(2, 1), UnavailableError("lost"), None, None)
    tickets = line(bench, add(1, "a"), add(1, "b"))
    with pytest.raises(UnavailableError):
        bench.processor.finish(tickets[0], timeout_seconds=0.01)
    tickets += line(bench, add(1, "c"))
    assert bench.processor.finish(tickets[2]).id == 4
    assert outcomes(tickets) == ["unavailable", 3, 4]
    assert sent(bench) == [["a", "b"], ["a", "b"], ["c"]]
    first, again, _ = bench.appended("token")
    assert first == again
    assert [name for name, _ in bench.store.calls] == ["head", "append", "append", "append"]


def test_doubtful_transaction_that_nobody_waits_for_is_dropped() -> None:
    """Nothing is written for those who were told to come back; and what the balance is has to be read."""
    bench = Bench(head(2, 1), UnavailableError("lost"), head(3, 2), None)
    with pytest.raises(UnavailableError):
        bench.processor.process(add(1, "a"), timeout_seconds=0.01)
    assert bench.processor.process(add(1, "b")).id == 3
    assert sent(bench) == [["a"], ["b"]]


def test_abandoned_operation_is_not_written() -> None:
    """Who gave up in line was not stored; who gave up when all was known changes nothing."""
    bench = Bench(head(2, 1), None)
    tickets = line(bench, add(1, "a"), add(1, "b"), add(1, "c"))
    tickets[1].abandon(ContentionError("enough"))
    bench.processor.finish(tickets[0])
    tickets[2].abandon(ContentionError("enough"))
    assert (outcomes(tickets), sent(bench)) == ([2, "contention", 3], [["a", "c"]])
    with pytest.raises(ContentionError):
        bench.processor.finish(tickets[1])


def test_refusal_of_dynamodb_meets_those_whom_it_is_for() -> None:
    """What it will not take of several is tried one by one."""
    bench = Bench(head(2, 1), StoreError("too large"), head(2, 1), None, StoreError("too large"), head(3, 2), None)
    tickets = line(bench, add(1, "a"), add(1, "b"), add(1, "c"))
    assert bench.processor.finish(tickets[2]).id == 3
    assert (outcomes(tickets), sent(bench)) == ([2, "internal", 3], [["a", "b", "c"], ["a"], ["b"], ["c"]])


def test_malformed_entry_is_its_own_request_s_trouble() -> None:
    """A look-up that finds what cannot be read fails for the one it was made for."""
    bench = Bench(head(2, 1), StoreError("malformed"), None)
    tickets = line(bench, spend(9, "a"), add(1, "b"))
    tickets[0].alone = True
    assert bench.processor.finish(tickets[1]).id == 2
    assert outcomes(tickets) == ["internal", 2]


def test_refusal_of_what_may_have_been_done_is_final_for_all_of_them() -> None:
    """Under another token, who wrote it would be told that it is a duplicate."""
    bench = Bench(head(2, 1), UnavailableError("lost"), StoreError("the credentials have expired"))
    tickets = line(bench, add(1, "a"), add(1, "b"))
    with pytest.raises(StoreError):
        bench.processor.finish(tickets[0])
    assert (outcomes(tickets), sent(bench)) == (["internal", "internal"], [["a", "b"]] * 2)


def test_who_is_interrupted_in_line_leaves_nothing_to_be_written() -> None:
    """Nor does anybody else who has left it."""

    class Interrupted:
        def acquire(self, *, timeout: float) -> bool:
            raise KeyboardInterrupt

    bench = Bench(head(2, 1), None)
    lane = bench.processor._lane_of("ada")
    lane.lock, lock = Interrupted(), lane.lock  # type: ignore[assignment]  # stands in
    with pytest.raises(KeyboardInterrupt):
        bench.processor.process(add(1, "a"))
    lane.lock = lock
    assert bench.processor.process(add(1, "b")).id == 2
    assert sent(bench) == [["b"]]


def test_lane_keeps_its_head_and_none_of_what_went_through() -> None:
    """Thousands of owners are remembered, but not what they asked for."""
    bench = Bench(head(2, 1), None, (None, head(4, 3)))
    tickets = line(bench, add(1, "a"), add(1, "b"))
    bench.processor.finish(tickets[1])
    with pytest.raises(InsufficientBalanceError):
        bench.processor.process(spend(9, "c"))
    lane = tickets[0].lane
    assert (lane.head, lane.line, list(lane.tickets), lane.transaction) == (head(4, 3), [], [], None)


def test_one_that_did_not_fit_is_not_passed_by_those_who_come_later() -> None:
    """It is seen to before the next transaction, however many keep coming."""
    bench = Bench(head(2, 1), None, (None, head(3, 2)), None)
    tickets, append = line(bench, spend(9, "too much"), add(1, "a")), bench.store.append

    def append_while_another_comes(*arguments: Any, **options: Any) -> Any:
        if len(tickets) == 2:
            tickets.extend(line(bench, add(1, "b")))
        return append(*arguments, **options)

    bench.store.append = append_while_another_comes  # type: ignore[method-assign]
    with pytest.raises(InsufficientBalanceError):
        bench.processor.finish(tickets[0])
    assert outcomes(tickets) == ["insufficient_balance", 2, None]
    assert bench.processor.finish(tickets[2]).id == 3
    assert [name for name, _ in bench.store.calls] == ["head", "append", "look_up", "append"]


@pytest.mark.parametrize(("amount", "replay"), [(1, True), (2, False)])
def test_duplicate_that_asks_for_another_amount_is_no_replay(amount: int, replay: bool) -> None:
    """Where the amount is the caller's choice, it is part of what is asked for."""
    original = entry_after(NEW, add(1, "n"), amount=1, now=NOON)
    bench = Bench(head(2, 1), Cancelled(stored=(original,), head=None, contended=False))
    with pytest.raises(DuplicateNonceError) as duplicate:
        bench.processor.process(add(amount, "n"))
    assert duplicate.value.replay is replay


def test_several_that_do_not_fit_are_seen_to_one_by_one() -> None:
    """There is no transaction of nothing."""
    bench = Bench(head(2, 1), (None, head(2, 1)), (None, head(7, 2)), None)
    tickets = line(bench, spend(9, "a"), spend(7, "b"))
    assert bench.processor.finish(tickets[1]).id == 3
    assert (outcomes(tickets), sent(bench)) == (["insufficient_balance", 3], [["b"]])
    assert [name for name, _ in bench.store.calls] == ["head", "look_up", "look_up", "append"]


def test_token_is_one_that_dynamodb_takes() -> None:
    """It has 36 characters at most, and another transaction has another."""
    bench = Bench(head(2, 1), None, None)
    for nonce in ("a", "b"):
        bench.processor.process(add(1, nonce))
    tokens = bench.appended("token")
    assert (len(set(tokens)), {len(token) for token in tokens}) == (2, {32})
