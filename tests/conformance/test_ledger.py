"""What the ledger guarantees, on every store."""

import contextlib
import itertools
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import pytest

from functions.example_app.operations import ExampleAppOperations, ExampleAppOperationType
from ledger_core import DuplicateNonceError, InsufficientBalanceError, LedgerEntry, LedgerError, OperationRequest
from ledger_core.account import Head, Mark, entry_after
from ledger_core.audit import audit_store
from ledger_core.dynamodb import Cancelled, LedgerStore
from ledger_core.dynamodb.expressions import MOVE_HEAD, entry_item, move_values
from ledger_core.posting import OperationProcessor
from ledger_core.wiring import create_store
from tests.invariants import Answer, Book, Outcome, check, violations
from tests.support import NOON, add, operation, spend, wire

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

WRITERS = 8
SPENDS_EACH = 6
CREDITS = 18


def another_process(store: LedgerStore) -> OperationProcessor:
    """A processor that shares nothing with another but the store, as another Lambda does."""
    return OperationProcessor(store, ExampleAppOperations)


def history(store: LedgerStore, owner_id: str = "ada") -> list[LedgerEntry]:
    return store.page(owner_id, limit=1000)[0][::-1]


def test_accepted_entry_is_stored_and_moves_the_balance(processor: OperationProcessor) -> None:
    """An accepted operation becomes an entry, and the balance is what the entry says."""
    entry = processor.process(operation(metadata={"campaign": "autumn — ünï"}))
    head = processor.store.head("ada", consistent=True)
    assert (entry.id, entry.amount, entry.balance_after, entry.metadata) == (1, 3, 3, {"campaign": "autumn — ünï"})
    assert (head.balance, head.entry_count, head.head_hash, head.updated_at) == (3, 1, entry.hash, entry.created_at)
    assert history(processor.store) == [entry]


def test_entries_form_a_gapless_chain(processor: OperationProcessor) -> None:
    """Ids count from 1, each balance follows from the one before, each entry carries the hash of the one before."""
    for step in range(5):
        processor.process(add(step + 1, f"n{step}"))
    entries = history(processor.store)
    assert [entry.id for entry in entries] == [1, 2, 3, 4, 5]
    assert [entry.balance_after for entry in entries] == [1, 3, 6, 10, 15]
    assert [entry.prev_hash for entry in entries] == ["0" * 64, *(entry.hash for entry in entries[:-1])]
    assert audit_store(processor.store, "ada", read=lambda call: call()).valid


def test_created_at_strictly_increases_even_when_the_clock_does_not(store: LedgerStore) -> None:
    """A clock that stands still still gives every entry a time of its own, one microsecond apart."""
    processor = OperationProcessor(store, ExampleAppOperations, clock=lambda: NOON)
    times = [processor.process(add(1, f"n{step}")).created_at for step in range(3)]
    assert [(time - NOON).microseconds for time in times] == [0, 1, 2]


def test_second_use_of_a_nonce_answers_the_original(processor: OperationProcessor) -> None:
    """A nonce is used once: the second use is refused with the stored entry, and moves nothing."""
    original = processor.process(add(7, "n"))
    with pytest.raises(DuplicateNonceError) as same:
        processor.process(add(7, "n"))
    with pytest.raises(DuplicateNonceError) as different:
        processor.process(add(8, "n"))
    assert (same.value.entry, same.value.replay) == (original, True)
    assert (different.value.entry, different.value.replay) == (original, False)
    assert processor.store.head("ada", consistent=True).balance == 7


def test_retried_spend_is_a_duplicate_even_when_the_balance_is_now_too_low(store: LedgerStore) -> None:
    """Duplicate comes before insufficient, for a process that knows the head and for one that does not."""
    processor = another_process(store)
    processor.process(add(5, "grant"))
    original = processor.process(spend(5, "spend"))
    for retrying in (processor, another_process(store)):
        with pytest.raises(DuplicateNonceError) as duplicate:
            retrying.process(spend(5, "spend"))
        assert duplicate.value.entry == original
        assert duplicate.value.replay


def test_refusal_stores_nothing_and_spends_no_nonce(processor: OperationProcessor) -> None:
    """What was refused for the balance may succeed under the same nonce after a top-up."""
    with pytest.raises(InsufficientBalanceError) as refusal:
        processor.process(spend(4, "spend"))
    assert (refusal.value.balance, refusal.value.required) == (0, 4)
    assert history(processor.store) == []
    processor.process(add(4, "grant"))
    assert processor.process(spend(4, "spend")).balance_after == 0


def test_insufficient_is_never_answered_from_a_remembered_head(store: LedgerStore) -> None:
    """A process that remembers a low balance looks again before it refuses."""
    ours, theirs = another_process(store), another_process(store)
    ours.process(add(1, "grant"))
    theirs.process(add(9, "another grant"))
    assert ours.process(spend(10, "spend")).balance_after == 0


def test_owner_and_nonce_pairs_never_share_a_key(processor: OperationProcessor) -> None:
    """`a` with the nonce `b#c` is no other pair's entry, for an owner cannot hold '#'."""
    processor.process(add(1, "b#c", owner_id="a"))
    processor.process(add(1, "c", owner_id="b"))
    processor.process(add(1, "b", owner_id="a"))
    assert [entry.nonce for entry in history(processor.store, "a")] == ["b#c", "b"]
    with pytest.raises(ValueError, match="owner_id"):
        add(1, "c", owner_id="a#b")


def test_zero_credit_operation_is_still_an_entry(processor: OperationProcessor) -> None:
    """A free operation is on record, even for an owner who has nothing."""
    entry = processor.process(operation(ExampleAppOperationType.CONTENT_ACCESS))
    assert (entry.amount, entry.balance_after, entry.id) == (0, 0, 1)


def test_transaction_is_cancelled_for_each_condition(store: LedgerStore) -> None:
    """A ledger is begun once, a head moved once, a nonce used once; the reasons tell which, with what is stored."""
    nothing = Head(owner_id="ada")
    first, other = (entry_after(nothing, add(1, nonce), amount=1, now=NOON) for nonce in ("n", "m"))
    assert store.append([first], head=nothing, token="1") is None
    assert store.append([other], head=nothing, token="2") == Cancelled(stored=(), head=Head.at(first), contended=False)
    second = entry_after(Head.at(first), add(1, "m"), amount=1, now=NOON)
    assert store.append([second], head=Head.at(first), token="3") is None
    third = entry_after(Head.at(first), add(1, "o"), amount=1, now=NOON)
    assert store.append([third], head=Head.at(first), token="4") == Cancelled((), Head.at(second), contended=False)
    again = entry_after(Head.at(second), add(1, "n"), amount=1, now=NOON)
    assert store.append([again], head=Head.at(second), token="5") == Cancelled((first,), None, contended=False)
    assert store.append([again], head=Head.at(first), token="6") == Cancelled(
        (first,), Head.at(second), contended=False
    )
    assert history(store) == [first, second]


def test_one_request_an_entry(client: "DynamoDBClient") -> None:
    """Warm: one request. Cold: one more. Replay: one. A refusal: two. A lost race: one more, and no read."""
    store = create_store(client)
    ours, theirs = another_process(store), another_process(store)
    sent = wire(client)

    def requests_of(processor: OperationProcessor, request: OperationRequest) -> list[str]:
        sent.clear()
        with contextlib.suppress(LedgerError):
            processor.process(request)
        return list(sent)

    assert requests_of(ours, add(9, "cold")) == ["GetItem", "TransactWriteItems"]
    assert requests_of(ours, add(9, "warm")) == ["TransactWriteItems"]
    assert requests_of(ours, add(9, "warm")) == ["TransactWriteItems"]
    assert requests_of(ours, spend(99, "dear")) == ["TransactGetItems"]
    assert requests_of(theirs, spend(99, "dear")) == ["GetItem", "TransactGetItems"]
    assert requests_of(theirs, add(9, "theirs")) == ["TransactWriteItems"]
    assert requests_of(ours, add(9, "stale head")) == ["TransactWriteItems", "TransactWriteItems"]
    assert requests_of(theirs, add(9, "theirs")) == ["TransactWriteItems"]
    assert audit_store(store, "ada", read=lambda call: call()).valid


@pytest.mark.parametrize("processes", [1, 2, WRITERS])
def test_racing_writers_of_one_owner_lose_nothing(store: LedgerStore, processes: int) -> None:
    """However the writers are spread over processes, each nonce counts once and the balance never falls below zero."""
    answers = race([another_process(store) for _ in range(processes)])
    book = Book.of(store, "ada")
    check(book, answers)
    assert (book.head.balance, book.head.entry_count) == (0, 1 + CREDITS)
    assert Outcome.IN_DOUBT not in {one.outcome for one in answers}


def test_race_catches_a_ledger_that_checks_and_then_writes(client: "DynamoDBClient") -> None:
    """The negative control: a store that checks the same conditions, and then writes, spends what is not there."""
    store = create_store(client)
    naive = CheckThenWrite(client, entries_table=store._entries_table, balances_table=store._balances_table)
    answers = race([another_process(naive) for _ in range(WRITERS)])
    assert sum(one.outcome is Outcome.ACCEPTED for one in answers) > 1 + CREDITS
    assert {"conservation", "gapless_ids"} <= {one.invariant for one in violations(Book.of(store, "ada"), answers)}


def race(processors: list[OperationProcessor]) -> list[Answer]:
    """Let many spend what is not enough for all, each nonce being sent by two of them."""
    granted = Answer.of(add(CREDITS, "grant"), processors[0].process)
    start = threading.Barrier(WRITERS)

    def write(writer: int) -> list[Answer]:
        start.wait()
        process = partial(processors[writer % len(processors)].process, timeout_seconds=60)
        return [Answer.of(spend(1, f"{writer // 2}-{step}"), process) for step in range(SPENDS_EACH)]

    with ThreadPoolExecutor(WRITERS) as threads:
        return [granted, *itertools.chain.from_iterable(threads.map(write, range(WRITERS)))]


class CheckThenWrite(LedgerStore):
    """What teams write first: both conditions are checked, then both items are written."""

    def append(
        self, entries: Sequence[LedgerEntry], *, head: Head, token: str, mark: Mark | None = None
    ) -> Cancelled | None:
        (entry,) = entries
        stored, current = self.look_up(entry.owner_id, entry.nonce)
        if stored or current.entry_count != head.entry_count:
            return Cancelled(stored=(stored,) if stored else (), head=current, contended=False)
        time.sleep(0.01)  # wide enough for another writer
        self._client.put_item(TableName=self._entries_table, Item=entry_item(entry))
        self._client.update_item(
            TableName=self._balances_table,
            Key={"owner_id": {"S": entry.owner_id}},
            UpdateExpression=MOVE_HEAD,
            ExpressionAttributeValues=move_values(entry, Head(owner_id=entry.owner_id)),
        )
        return None
