"""The waiting requests of an account: which share a transaction, and how each is settled."""

import pytest

from ledger_core import ContentionError, UnavailableError
from ledger_core.dynamodb import ENTRIES_MAX
from ledger_core.posting import Posting, plan_group
from ledger_core.posting.batch import Attempt, Batch, Pending
from tests.fakes.scripted_store import NEW, stored
from tests.support import NOON, add


def make_pending(nonce: str, *, is_alone: bool = False) -> Pending:
    return Pending(Posting(add(1, nonce), 1, is_fixed=False), is_alone)


@pytest.mark.parametrize(
    ("waiting", "group"),
    [
        # in order; ! is written alone, - is settled
        ("a",         "a"),
        ("a b c",     "a b c"),
        ("!a b",      "a"),
        ("!a !b",     "a"),
        ("a !b c",    "a"),
        ("a a b",     "a b"),
        ("-a b c",    "b c"),
        ("a -b c",    "a c"),
        ("-!a b",     "b"),
        ("-a -b",     ""),
    ],
)  # fmt: skip
def test_groups(waiting: str, group: str) -> None:
    """A group begins with the first request, ends before a lone one, and has each nonce once."""
    batch = Batch()
    for word in waiting.split():
        pending = make_pending(word.strip("!-"), is_alone="!" in word)
        if "-" in word:
            pending.fail(ContentionError("enough"))
        batch.arrivals.append(pending)
    chosen = batch.next_group()
    assert [pending.posting.request.nonce for pending in chosen] == group.split()
    assert not batch.arrivals
    assert not any(pending.is_settled for pending in batch.pendings)


def test_group_is_no_larger_than_a_transaction() -> None:
    """The requests beyond the limit wait in their order."""
    batch = Batch(pendings=[make_pending(f"n{number}") for number in range(ENTRIES_MAX + 1)])
    assert batch.next_group() == batch.pendings[:ENTRIES_MAX]
    assert len(batch.pendings) == ENTRIES_MAX + 1


def test_arrivals_come_after_the_waiting_requests() -> None:
    """A group has the requests in the order of their arrival."""
    first = make_pending("a")
    second = make_pending("b")
    batch = Batch(pendings=[first])
    batch.arrivals.append(second)
    assert batch.next_group() == [first, second]


def test_attempt_is_kept_while_one_of_its_requests_waits() -> None:
    """An attempt is dropped once all of its requests are settled."""
    pendings = [make_pending("a"), make_pending("b")]
    assert Batch().unsettled_attempt() is None
    change, _ = plan_group([pending.posting for pending in pendings], NEW, NOON)
    attempt = Attempt(pendings, change, "token", 0.0, NOON)
    batch = Batch(attempt=attempt)
    pendings[0].fail(ContentionError("enough"))
    assert batch.unsettled_attempt() is attempt
    pendings[1].fail(ContentionError("enough"))
    assert batch.unsettled_attempt() is None
    assert batch.attempt is None


def test_request_is_settled_once() -> None:
    """A request that failed or has its entry does not fail again."""
    pending = make_pending("a")
    assert not pending.is_settled
    first = ContentionError("first")
    pending.fail(first)
    pending.fail(UnavailableError("second"))
    assert pending.is_settled
    with pytest.raises(ContentionError) as failure:
        pending.result()
    assert failure.value is first
    other = make_pending("b")
    other.entry = stored(add(1, "b"), 1)
    other.fail(first)
    assert other.result() == other.entry
