"""What the ledger guarantees, on every store."""

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from functions.example_app.operations import ExampleAppOperations, ExampleAppOperationType
from ledger_core import (
    DuplicateNonceError,
    InsufficientBalanceError,
    LedgerEntry,
    LedgerError,
    OperationRequest,
)
from ledger_core.account import Account, AccountChange
from ledger_core.audit import audit_store
from ledger_core.dynamodb import Cancelled, LedgerStore
from ledger_core.dynamodb.expressions import entry_item, transact_items
from ledger_core.posting import GroupCommit, OperationProcessor
from ledger_core.wiring import create_store
from tests.invariants import Answer, Book, Outcome, check, violations
from tests.support import NOON, add, change_of, operation, spend, wire

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

WRITERS = 8
SPENDS_EACH = 6
CREDITS = 18

Process = Callable[..., LedgerEntry]
"""What posts a request, as `OperationProcessor.process` does."""


def another_process(store: LedgerStore) -> OperationProcessor:
    """A processor that shares only the store with another, as another Lambda does."""
    return OperationProcessor(store, ExampleAppOperations)


def as_lambda(store: LedgerStore) -> Process:
    """A process that posts each request by itself."""
    return another_process(store).process


def as_server(store: LedgerStore) -> Process:
    """A process that posts the waiting requests of an account together."""
    return GroupCommit(another_process(store)).process


def history(store: LedgerStore, owner_id: str = "ada") -> list[LedgerEntry]:
    return store.page(owner_id, limit=1000)[0][::-1]


def test_accepted_entry_is_stored_and_moves_the_balance(processor: OperationProcessor) -> None:
    """An accepted operation becomes an entry, and the balance is what the entry says."""
    entry = processor.process(operation(metadata={"campaign": "autumn — ünï"}))
    head = processor.store.account("ada", consistent=True)
    assert (entry.id, entry.amount, entry.balance_after, entry.metadata) == (
        1,
        3,
        3,
        {"campaign": "autumn — ünï"},
    )
    assert (head.balance, head.entry_count, head.head_hash, head.updated_at) == (
        3,
        1,
        entry.hash,
        entry.created_at,
    )
    assert history(processor.store) == [entry]


def test_entries_form_a_gapless_chain(processor: OperationProcessor) -> None:
    """Ids count from 1, each balance follows, and each entry has the hash of the entry before."""
    for step in range(5):
        processor.process(add(step + 1, f"n{step}"))
    entries = history(processor.store)
    assert [entry.id for entry in entries] == [1, 2, 3, 4, 5]
    assert [entry.balance_after for entry in entries] == [1, 3, 6, 10, 15]
    assert [entry.prev_hash for entry in entries] == [
        "0" * 64,
        *(entry.hash for entry in entries[:-1]),
    ]
    assert audit_store(processor.store, "ada", read=lambda call: call()).valid


def test_created_at_strictly_increases_even_when_the_clock_does_not(store: LedgerStore) -> None:
    """If the clock stands still, entries are one microsecond apart."""
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
    assert processor.store.account("ada", consistent=True).balance == 7


def test_retried_spend_is_a_duplicate_even_when_the_balance_is_now_too_low(
    store: LedgerStore,
) -> None:
    """Duplicate comes before insufficient, for a known account and for an unknown account."""
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
    """An account opens once and moves once, a nonce counts once; reasons hold what is stored."""
    new = Account(owner_id="ada")
    first = change_of(new, next_of(new, "n"))
    assert store.transact([first], token=uuid4().hex) == []
    opened = change_of(new, next_of(new, "m"))
    assert store.transact([opened], token=uuid4().hex) == [Cancelled(account=first.after)]
    second = change_of(first.after, next_of(first.after, "m"))
    assert store.transact([second], token=uuid4().hex) == []
    stale = change_of(first.after, next_of(first.after, "o"))
    assert store.transact([stale], token=uuid4().hex) == [Cancelled(account=second.after)]
    repeated = change_of(second.after, next_of(second.after, "n"))
    assert store.transact([repeated], token=uuid4().hex) == [Cancelled(stored=first.entries)]
    both = change_of(first.after, next_of(first.after, "n"))
    assert store.transact([both], token=uuid4().hex) == [
        Cancelled(stored=first.entries, account=second.after)
    ]
    assert history(store) == [*first.entries, *second.entries]


def test_changes_of_several_accounts_are_written_all_or_nothing(store: LedgerStore) -> None:
    """If one account refuses a transaction, neither moves; each account has its own reason."""
    ada, bob = Account(owner_id="ada"), Account(owner_id="bob")
    first = change_of(ada, next_of(ada, "n"))
    assert store.transact([first], token=uuid4().hex) == []
    other = change_of(bob, next_of(bob, "n"))
    assert store.transact([other, first], token=uuid4().hex) == [
        Cancelled(),
        Cancelled(stored=first.entries, account=first.after),
    ]
    assert store.account("bob", consistent=True) == bob
    assert (
        store.transact(
            [other, change_of(first.after, next_of(first.after, "m"))], token=uuid4().hex
        )
        == []
    )
    assert store.account("bob", consistent=True) == other.after
    assert store.account("ada", consistent=True).entry_count == 2


def next_of(account: Account, nonce: str) -> LedgerEntry:
    """The entry that adds a credit to an account."""
    return account.next_entry(add(1, nonce, owner_id=account.owner_id), amount=1, now=NOON)


def test_one_request_an_entry(client: "DynamoDBClient") -> None:
    """Requests: warm 1, cold 2, replay 1, refusal 2; a lost race costs one more, without a read."""
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
@pytest.mark.parametrize("of_process", [as_lambda, as_server])
def test_racing_writers_of_one_owner_lose_nothing(
    store: LedgerStore, of_process: Callable[[LedgerStore], Process], processes: int
) -> None:
    """With writers in one process or many, a nonce counts once and no balance is negative."""
    answers = race([of_process(store) for _ in range(processes)])
    book = Book.of(store, "ada")
    check(book, answers)
    assert (book.head.balance, book.head.entry_count) == (0, 1 + CREDITS)
    assert Outcome.IN_DOUBT not in {answer.outcome for answer in answers}


def test_race_catches_a_ledger_that_checks_and_then_writes(client: "DynamoDBClient") -> None:
    """The negative control, which checks the conditions and then writes, spends too much."""
    store = create_store(client)
    naive = CheckThenWrite(
        client, entries_table=store._entries_table, accounts_table=store._accounts_table
    )
    answers = race([as_lambda(naive) for _ in range(WRITERS)])
    accepted = [answer for answer in answers if answer.outcome is Outcome.ACCEPTED]
    assert len(accepted) > 1 + CREDITS
    broken = {violation.invariant for violation in violations(Book.of(store, "ada"), answers)}
    assert {"conservation", "gapless_ids"} <= broken


def race(processes: list[Process]) -> list[Answer]:
    """Let many writers spend what is not enough for all of them; two writers send each nonce."""
    granted = Answer.of(add(CREDITS, "grant"), processes[0])
    start = threading.Barrier(WRITERS)

    def write(writer: int) -> list[Answer]:
        start.wait()
        process = partial(processes[writer % len(processes)], timeout_seconds=60)
        return [
            Answer.of(spend(1, f"{writer // 2}-{step}"), process) for step in range(SPENDS_EACH)
        ]

    with ThreadPoolExecutor(WRITERS) as threads:
        return [granted, *itertools.chain.from_iterable(threads.map(write, range(WRITERS)))]


class CheckThenWrite(LedgerStore):
    """What teams write first: both conditions are checked, then both items are written."""

    def transact(self, changes: Sequence[AccountChange], *, token: str) -> list[Cancelled]:
        (change,) = changes
        (entry,) = change.entries
        stored, account = self.look_up(entry.owner_id, entry.nonce)
        if stored or not account.is_at(change.before):
            return [Cancelled(stored=(stored,) if stored else (), account=account)]
        time.sleep(0.01)  # wide enough for another writer
        self._client.put_item(TableName=self._entries_table, Item=entry_item(entry))
        # The condition of a new account has no values.
        new = change._replace(before=Account(owner_id=entry.owner_id))
        tables = {"entries_table": self._entries_table, "accounts_table": self._accounts_table}
        _, move = transact_items(new, **tables)
        self._client.update_item(
            TableName=self._accounts_table,
            Key=move["Update"]["Key"],
            UpdateExpression=move["Update"]["UpdateExpression"],
            ExpressionAttributeValues=move["Update"]["ExpressionAttributeValues"],
        )
        return []
