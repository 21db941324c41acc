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


def page_of(*ids: int, more: bool) -> dict[str, Any]:
    """An answer with entries a second apart; the index has been looked at up to a second before the last of them."""
    entries = [
        NEW.next_entry(operation(nonce=str(one)), amount=3, now=NOON + one * SECOND) for one in ids
    ]
    answer: dict[str, Any] = {"Items": [entry_item(entry) for entry in entries]}
    if more:
        answer["LastEvaluatedKey"] = {
            "created_at": {"S": format_time(NOON + (ids[-1] - 1) * SECOND)}
        }
    return answer


def nonces(page: tuple[list[LedgerEntry], datetime | None]) -> tuple[list[str], datetime | None]:
    return [entry.nonce for entry in page[0]], page[1]


def test_a_filtered_page_goes_on_where_the_last_request_ended() -> None:
    """Each request begins just before what was looked at; the page ends with the requests that it may take."""
    wire, reads = Wire(*(page_of(second, more=True) for second in (40, 30, 20, 10))), []

    def read(call: Callable[[], Any]) -> Any:
        reads.append(call)
        return call()

    page = wire.store.page(
        "ada", since=NOON, before=NOON + 50 * SECOND, operation="SIGNUP_CREDIT", limit=9, read=read
    )
    assert nonces(page) == (["40", "30", "20", "10"], NOON + 9 * SECOND)
    assert [
        arguments["ExpressionAttributeValues"][":until"]["S"] for _, arguments in wire.asked
    ] == [f"2026-11-22T12:00:{second}.999999Z" for second in (49, 38, 28, 18)]
    assert len(reads) == HISTORY_QUERIES_MAX == 4


@pytest.mark.parametrize(
    ("answers", "limit", "page"),
    [
        ([page_of(3, 2, more=False)], 2, (["3", "2"], None)),
        ([page_of(4, 3, 2, 1, more=False)], 3, (["4", "3", "2"], NOON + 2 * SECOND)),
        ([page_of(3, 2, more=True), page_of(1, more=False)], 2, (["3", "2"], NOON + 2 * SECOND)),
        ([page_of(3, more=True), page_of(1, more=False)], 2, (["3", "1"], None)),
        ([page_of(3, more=True), {"Items": []}], 2, (["3"], None)),
        ([{"Items": []}], 2, ([], None)),
    ],
)
def test_a_page_tells_where_the_next_begins(answers: list[Any], limit: int, page: Any) -> None:
    """Before its last entry when there are more, nowhere when there are none."""
    assert nonces(Wire(*answers).store.page("ada", operation="SIGNUP_CREDIT", limit=limit)) == page


@pytest.mark.parametrize(("since", "requests"), [(timedelta(), 0), (-timedelta(microseconds=1), 1)])
def test_an_interval_that_holds_no_instant_is_not_asked_for(
    since: timedelta, requests: int
) -> None:
    """One that holds a single one is."""
    wire = Wire({"Items": []})
    assert wire.store.page("ada", since=NOON + since, before=NOON, limit=1) == ([], None)
    assert len(wire.asked) == requests
