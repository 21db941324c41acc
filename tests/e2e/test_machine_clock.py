"""A wrong clock: DynamoDB Local's answers come with another `Date`, through a proxy."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from functions.example_app.operations import ExampleAppOperations
from ledger_core import UnavailableError
from ledger_core.periods import Period
from ledger_core.rewards import Reward, Segment, Sweep
from ledger_core.wiring import create_account_store, create_processor
from tests.e2e.proxy import Proxy, microburst
from tests.invariants import Book, check
from tests.support import NOON, add

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

REWARD = Reward.of(ExampleAppOperations, "DAILY_REWARD", Period.parse("2026-11-22"))


@pytest.fixture
def proxy(
    real_client: "DynamoDBClient",
    dynamodb_local_endpoint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Proxy]:
    with microburst(dynamodb_local_endpoint, tmp_path) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", proxy.url)
        yield proxy


def ahead(proxy: Proxy, by: timedelta) -> None:
    """Change each `Date`, so that this machine's clock seems to be ahead."""
    date = format_datetime(datetime.now(UTC) - by, usegmt=True)
    proxy.rule({"response": {"set_headers": {"Date": date}}})


@pytest.mark.parametrize("by", [timedelta(days=3653), timedelta(minutes=-2)])
def test_clock_that_is_off_stamps_no_entry(proxy: Proxy, by: timedelta) -> None:
    """Neither a request nor a sweep writes while the clock is wrong; both write afterwards."""
    processor = create_processor(ExampleAppOperations)
    store = create_account_store()
    processor.process(add(1, "known"))
    (segment,) = Segment.all_of(REWARD, 1, NOON)
    ahead(proxy, by)
    for owner_id in ("bob", "ada"):  # an unknown and a known account
        with pytest.raises(UnavailableError):
            processor.process(add(1, "n", owner_id=owner_id))
    with pytest.raises(UnavailableError):
        Sweep(store, REWARD).run(segment, seconds=60)
    assert [Book.of(store, owner_id).head.entry_count for owner_id in ("ada", "bob")] == [1, 0]
    proxy.rule()
    for owner_id in ("ada", "bob"):
        processor.process(add(1, "n", owner_id=owner_id))
    assert Sweep(store, REWARD).run(segment, seconds=60).tally.granted == 2
    for owner_id in ("ada", "bob"):
        book = Book.of(store, owner_id)
        check(book)
        assert abs(book.entries[-1].created_at - datetime.now(UTC)) < timedelta(minutes=1)
