"""The requests of one account: what shares the next transaction, and how each is settled."""

import pytest

from ledger_core import ContentionError, UnavailableError
from ledger_core.dynamodb import ENTRIES_MAX
from ledger_core.posting import Posting, plan_group
from ledger_core.posting.batch import Attempt, Batch, Pending
from tests.fakes.scripted_store import NEW, stored
from tests.support import NOON, add


def pending(nonce: str, *, is_alone: bool = False) -> Pending:
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
    """A group has the first request and those up to one that is alone, each nonce once."""
    batch = Batch()
    for word in waiting.split():
        one = pending(word.strip("!-"), is_alone="!" in word)
        if "-" in word:
            one.fail(ContentionError("enough"))
        batch.arrivals.append(one)
    chosen = batch.next_group()
    assert [one.posting.request.nonce for one in chosen] == group.split()
    assert not batch.arrivals
    assert not any(one.is_settled for one in batch.pendings)


def test_group_is_no_larger_than_a_transaction() -> None:
    """The requests beyond it stay in their order."""
    batch = Batch(pendings=[pending(f"n{number}") for number in range(ENTRIES_MAX + 1)])
    assert batch.next_group() == batch.pendings[:ENTRIES_MAX]
    assert len(batch.pendings) == ENTRIES_MAX + 1


def test_arrivals_stand_behind_those_that_wait() -> None:
    """A group begins with the request that came first."""
    first, second = pending("a"), pending("b")
    batch = Batch(pendings=[first])
    batch.arrivals.append(second)
    assert batch.next_group() == [first, second]


def test_attempt_is_kept_while_one_of_its_requests_waits() -> None:
    """An attempt is dropped once all of its requests are settled."""
    pendings = [pending("a"), pending("b")]
    assert Batch().unsettled_attempt() is None
    change, _ = plan_group([one.posting for one in pendings], NEW, NOON)
    attempt = Attempt(pendings, change, "token", 0.0, NOON)
    batch = Batch(attempt=attempt)
    pendings[0].fail(ContentionError("enough"))
    assert batch.unsettled_attempt() is attempt
    pendings[1].fail(ContentionError("enough"))
    assert batch.unsettled_attempt() is None
    assert batch.attempt is None


def test_request_is_settled_once() -> None:
    """A request that failed or has its entry does not fail again."""
    one = pending("a")
    assert not one.is_settled
    first = ContentionError("first")
    one.fail(first)
    one.fail(UnavailableError("second"))
    assert one.is_settled
    with pytest.raises(ContentionError) as failure:
        one.result()
    assert failure.value is first
    other = pending("b")
    other.entry = stored(add(1, "b"), 1)
    other.fail(first)
    assert other.result() == other.entry
