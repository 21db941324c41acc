"""A write whose answer is lost: under one token as long as DynamoDB knows it, and then looked up, never sent again."""

from datetime import timedelta
from typing import Any

import pytest

from ledger_core import ContentionError, DuplicateNonceError, LedgerEntry, OperationRequest, UnavailableError
from ledger_core.account import Head, entry_after
from ledger_core.dynamodb import Cancelled
from ledger_core.errors import StoreError
from ledger_core.observability import measure_request
from ledger_core.posting.lanes import Ticket
from ledger_core.posting.writer import TOKEN_SECONDS_MAX
from ledger_core.settings import CONNECT_SECONDS_MAX, READ_SECONDS_MAX
from tests.simulator.model import TOKEN_SECONDS
from tests.support import NOON, add
from tests.unit.posting.test_processor import NEW, Bench, head

LOST = UnavailableError("lost")
OWN = entry_after(NEW, add(1, "n"), amount=1, now=NOON)
SECONDS = 1e6


class Late:
    """An answer that takes so long."""

    def __init__(self, seconds: float, answer: Any) -> None:
        self.seconds, self.answer = seconds, answer


def bench_of(*answers: Any) -> Bench:
    """One whose answers may be late."""
    bench = Bench(*[answer.answer if isinstance(answer, Late) else answer for answer in answers])
    waits = [answer.seconds if isinstance(answer, Late) else 0 for answer in answers]
    answered = bench.store._answer

    def answer_late(name: str, **arguments: Any) -> Any:
        bench.pauses.append(waits.pop(0))
        return answered(name, **arguments)

    bench.store._answer = answer_late  # type: ignore[method-assign]
    return bench


def iter_clock(*times: Any) -> Any:
    """A clock that tells these, one after the other; of an error it is not sure of the time."""
    left = iter(times)

    def tell() -> Any:
        time = next(left)
        if isinstance(time, Exception):
            raise time
        return time

    return tell


def calls(bench: Bench) -> list[str]:
    return [name for name, _ in bench.store.calls]


def post(bench: Bench, request: OperationRequest = add(1, "n")) -> LedgerEntry:  # noqa: B008
    return bench.processor.process(request, timeout_seconds=SECONDS)


def test_token_is_used_no_longer_than_dynamodb_knows_it() -> None:
    """Whatever is on its way then still gets there in time."""
    assert TOKEN_SECONDS_MAX + CONNECT_SECONDS_MAX + READ_SECONDS_MAX < TOKEN_SECONDS == 600


@pytest.mark.parametrize(
    ("seconds", "again"),
    [(TOKEN_SECONDS_MAX - 0.1, "append"), (TOKEN_SECONDS_MAX, "look_up"), (SECONDS / 2, "look_up")],
)
def test_what_is_in_doubt_for_long_is_looked_up(seconds: float, again: str) -> None:
    """The sender is told its entry; the clock that counts is from before the first try."""
    bench = bench_of(NEW, Late(seconds, LOST), None if again == "append" else (OWN, head(9, 9)))
    assert post(bench) == OWN
    assert calls(bench) == ["head", "append", again]
    assert len(set(bench.appended("token"))) == 1


def test_doubt_is_counted_from_the_first_try() -> None:
    """However often the same was sent again meanwhile."""
    half = TOKEN_SECONDS_MAX / 2
    bench = bench_of(NEW, Late(half, LOST), Late(half, LOST), LOST, (OWN, Head.at(OWN)))
    assert post(bench) == OWN
    assert calls(bench) == ["head", "append", "append", "look_up", "look_up"]


def test_conflict_that_lasts_is_no_doubt() -> None:
    """What DynamoDB has cancelled was not done, and may be sent for ever."""
    bench = bench_of(NEW, Late(SECONDS / 2, ContentionError("conflict")), None)
    assert post(bench) == OWN
    assert calls(bench) == ["head", "append", "append"]


def test_what_was_not_done_is_planned_anew() -> None:
    """On the balance as it is, under another token."""
    bench = bench_of(NEW, Late(600, LOST), (None, head(7, 3)), None)
    with measure_request() as usage:
        assert post(bench).id == 4
    assert calls(bench) == ["head", "append", "look_up", "append"]
    assert bench.appended("head") == [NEW, head(7, 3)]
    assert len(set(bench.appended("token"))) == 2
    assert (usage.attempts, usage.stale_heads) == (2, 1)
    bench = bench_of(NEW, Late(600, LOST), (None, NEW), None)
    with measure_request() as usage:
        assert post(bench).id == 1
    assert (usage.attempts, usage.stale_heads) == (2, 0)


def test_what_arrives_after_all_is_the_sender_s_own() -> None:
    """The first try was looked for in vain, and done after that; the second finds it."""
    bench = bench_of(NEW, Late(600, LOST), (None, head(7, 3)), Cancelled((OWN,), head(8, 4), contended=False))
    assert post(bench) == OWN
    assert calls(bench) == ["head", "append", "look_up", "append"]


@pytest.mark.parametrize("seconds", [TOKEN_SECONDS_MAX, -TOKEN_SECONDS_MAX])
def test_process_that_was_frozen_meanwhile_tells_the_sender_its_own(seconds: float) -> None:
    """Its monotonic clock stood still, its time went on: what it sent again was another transaction for DynamoDB."""
    bench = bench_of(NEW, LOST, Cancelled((OWN,), Head.at(OWN), contended=False))
    answered = bench.store.append

    def append(*arguments: Any, **named: Any) -> Any:
        if len(calls(bench)) == 2:
            bench.now += timedelta(seconds=seconds)
        return answered(*arguments, **named)

    bench.store.append = append  # type: ignore[method-assign]
    assert post(bench) == OWN
    assert len(set(bench.appended("token"))) == 1


def test_process_that_was_frozen_before_looks_it_up() -> None:
    """Or whose clock cannot tell the time just now, which comes of that."""
    for trouble in (None, UnavailableError("the clock was set")):
        bench = bench_of(NEW, LOST, (OWN, Head.at(OWN)))
        bench.processor._writer._clock = iter_clock(NOON, trouble or NOON + timedelta(seconds=TOKEN_SECONDS_MAX))
        assert post(bench) == OWN
        assert calls(bench) == ["head", "append", "look_up"]


def test_same_entry_of_another_process_is_a_duplicate() -> None:
    """Two that are behind the last entry's time may make the same; under a token that is known it is the other's."""
    bench = bench_of(NEW, LOST, Cancelled((OWN,), Head.at(OWN), contended=False))
    with pytest.raises(DuplicateNonceError):
        post(bench)


@pytest.mark.parametrize("looked_up", [True, False])
def test_entry_of_another_sender_is_a_duplicate(looked_up: bool) -> None:
    """It is not what was sent from here, or it was there before any doubt."""
    theirs = entry_after(head(3, 2), add(1, "n"), amount=1, now=NOON)
    found = (theirs, Head.at(theirs)) if looked_up else Cancelled((theirs,), None, contended=False)
    bench = bench_of(NEW, Late(600 if looked_up else 1, LOST), found)
    with pytest.raises(DuplicateNonceError) as duplicate:
        post(bench)
    assert (duplicate.value.entry, duplicate.value.replay) == (theirs, True)
    with pytest.raises(DuplicateNonceError):  # of one that did the same at the same instant, and has had the answer
        post(bench_of(NEW, Cancelled((OWN,), Head.at(OWN), contended=False)))


def test_those_that_wait_together_are_told_together() -> None:
    """All of a transaction was done, or nothing; what was not done goes together again."""
    for found, sent in (((OWN, head(2, 2)), [["n", "m"]]), ((None, NEW), [["n", "m"], ["n", "m"]])):
        bench = bench_of(NEW, Late(600, LOST), found, None)
        tickets = [bench.processor.enter(add(1, nonce)) for nonce in ("n", "m")]
        bench.processor.finish(tickets[1], timeout_seconds=SECONDS)
        assert [[one.nonce for one in entries] for entries in bench.appended("entries")] == sent
        assert [ticket.entry and ticket.entry.id for ticket in tickets] == [1, 2]


def test_duplicate_among_those_that_wait_together_is_told_alone() -> None:
    """The others are written without it."""
    theirs = entry_after(head(3, 2), add(1, "n"), amount=1, now=NOON)
    bench = bench_of(NEW, Late(600, LOST), (theirs, Head.at(theirs)), None)
    tickets = [bench.processor.enter(add(1, nonce)) for nonce in ("n", "m")]
    assert bench.processor.finish(tickets[1], timeout_seconds=SECONDS).id == 4
    assert isinstance(tickets[0].error, DuplicateNonceError)


def test_doubt_that_one_leaves_behind_is_looked_up_by_the_next() -> None:
    """A server whose owner nobody asked about for an hour does not send the old transaction again."""
    bench = bench_of(NEW, LOST, (OWN, head(2, 2)), None)
    tickets = [bench.processor.enter(add(1, nonce)) for nonce in ("n", "m")]
    with pytest.raises(UnavailableError):
        bench.processor.finish(tickets[0], timeout_seconds=0)
    bench.pauses.append(3600)
    assert bench.processor.finish(tickets[1], timeout_seconds=SECONDS).id == 2
    assert calls(bench) == ["head", "append", "look_up"]


def test_entry_that_cannot_be_read_is_final_for_all_in_doubt() -> None:
    """Nobody is told a duplicate of what may be its own."""
    bench = bench_of(NEW, Late(600, LOST), StoreError("malformed"))
    with pytest.raises(StoreError):
        post(bench)
    assert calls(bench) == ["head", "append", "look_up"]


def test_ticket_remembers_what_it_is_in_doubt_about() -> None:
    """By hash, and from the first lost answer on."""
    bench = bench_of(NEW, LOST, None)
    ticket: Ticket = bench.processor.enter(add(1, "n"))
    assert ticket.sent == {}
    bench.processor.finish(ticket, timeout_seconds=SECONDS)
    assert ticket.sent.keys() == {OWN.hash}
