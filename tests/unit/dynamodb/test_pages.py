"""Where a page of history ends and the next begins, request by request."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from ledger_core import LedgerEntry
from ledger_core.dynamodb.expressions import entry_item
from ledger_core.dynamodb.store import HISTORY_QUERIES_MAX
from ledger_core.fields import format_time
from tests.fakes.wire import NEW, SECOND, Wire
from tests.support import NOON, operation


def page_of(*ids: int, is_last: bool = False) -> dict[str, Any]:
    """An answer with some entries; unless it is the last, the index goes on a second earlier."""
    entries = [
        NEW.next_entry(operation(nonce=str(number)), amount=3, now=NOON + number * SECOND)
        for number in ids
    ]
    answer: dict[str, Any] = {"Items": [entry_item(entry) for entry in entries]}
    if not is_last:
        answer["LastEvaluatedKey"] = {
            "created_at": {"S": format_time(NOON + (ids[-1] - 1) * SECOND)}
        }
    return answer


def nonces(page: tuple[list[LedgerEntry], datetime | None]) -> tuple[list[str], datetime | None]:
    entries, before = page
    return [entry.nonce for entry in entries], before


def test_filtered_page_goes_on_where_the_last_request_ended() -> None:
    """Each request goes on before the last; a page takes at most `HISTORY_QUERIES_MAX` requests."""
    wire = Wire(*(page_of(second) for second in (40, 30, 20, 10)))
    reads: list[Callable[[], Any]] = []

    def read(call: Callable[[], Any]) -> Any:
        reads.append(call)
        return call()

    page = wire.store.page(
        "ada", since=NOON, before=NOON + 50 * SECOND, operation="SIGNUP_CREDIT", limit=9, read=read
    )
    assert nonces(page) == (["40", "30", "20", "10"], NOON + 9 * SECOND)
    values = [arguments["ExpressionAttributeValues"] for _, arguments in wire.asked]
    assert [value[":until"]["S"] for value in values] == [
        f"2026-11-22T12:00:{second}.999999Z" for second in (49, 38, 28, 18)
    ]
    assert len(reads) == HISTORY_QUERIES_MAX == 4


@pytest.mark.parametrize(
    ("answers", "limit", "page"),
    [
        ([page_of(3, 2, is_last=True)], 2, (["3", "2"], None)),
        ([page_of(4, 3, 2, 1, is_last=True)], 3, (["4", "3", "2"], NOON + 2 * SECOND)),
        ([page_of(3, 2), page_of(1, is_last=True)], 2, (["3", "2"], NOON + 2 * SECOND)),
        ([page_of(3), page_of(1, is_last=True)], 2, (["3", "1"], None)),
        ([page_of(3), {"Items": []}], 2, (["3"], None)),
        ([{"Items": []}], 2, ([], None)),
    ],
)
def test_page_says_where_the_next_begins(answers: list[Any], limit: int, page: Any) -> None:
    """The next page begins before the last entry, or does not exist."""
    assert nonces(Wire(*answers).store.page("ada", operation="SIGNUP_CREDIT", limit=limit)) == page


@pytest.mark.parametrize(("since", "requests"), [(timedelta(), 0), (-timedelta(microseconds=1), 1)])
def test_empty_interval_takes_no_request(since: timedelta, requests: int) -> None:
    """An interval without an instant takes no request; an interval of 1 µs takes one."""
    wire = Wire({"Items": []})
    assert wire.store.page("ada", since=NOON + since, before=NOON, limit=1) == ([], None)
    assert len(wire.asked) == requests
