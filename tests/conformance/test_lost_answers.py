"""A lost answer, for longer than DynamoDB knows the token: the sender gets its own entry."""

from collections.abc import Callable
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ReadTimeoutError

from functions.example_app.operations import ExampleAppOperations
from ledger_core import DuplicateNonceError
from ledger_core.dynamodb import LedgerStore
from ledger_core.posting import OperationProcessor
from ledger_core.posting.processor import TOKEN_SECONDS_MAX
from tests.invariants import Book, check
from tests.support import NOON, add, wire

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy_boto3_dynamodb import DynamoDBClient

SECONDS = 3600.0


@contextmanager
def losing(
    client: Any, *, done: bool, then: Callable[[], None], later: Callable[[], None]
) -> "Iterator[None]":
    """The first write's answer is lost, written or not, and its token is forgotten."""
    write, times = client.transact_write_items, iter(range(9))

    def lose(**arguments: Any) -> Any:
        if next(times):
            later()
            return write(
                **{**arguments, "ClientRequestToken": f"{arguments['ClientRequestToken'][:-1]}-"}
            )
        if done:
            write(**arguments)
        then()
        raise ReadTimeoutError(endpoint_url="dynamodb")

    client.transact_write_items = lose
    try:
        yield
    finally:
        del client.transact_write_items


@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize("passed", [0.0, TOKEN_SECONDS_MAX])
def test_sender_whose_answer_was_lost_for_long_is_told_its_own_entry(
    client: "DynamoDBClient", store: LedgerStore, done: bool, passed: float
) -> None:
    """The sender reads the ledger, or its late write finds its own entry there."""
    now, frozen = [0.0], [0.0]

    def freeze() -> None:
        frozen[0] = TOKEN_SECONDS_MAX

    processor = OperationProcessor(
        store,
        ExampleAppOperations,
        clock=lambda: NOON + timedelta(seconds=frozen[0]),
        monotonic=lambda: now[0],
        sleep=lambda _: None,
    )
    processor.process(add(5, "before"))
    sent = wire(client)
    with losing(client, done=done, then=lambda: now.__setitem__(0, passed), later=freeze):
        entry = processor.process(add(1, "n"), timeout_seconds=SECONDS)
    look = ["TransactGetItems"] if passed else []
    write = [] if done and passed else ["TransactWriteItems"]
    assert sent == [*(["TransactWriteItems"] if done else []), *look, *write]
    book = Book.of(store, "ada")
    check(book)
    assert [one.nonce for one in book.entries] == ["before", "n"]
    assert book.entries[-1] == entry
    with pytest.raises(DuplicateNonceError):
        processor.process(add(1, "n"))
