"""The ledger's requests and units of DynamoDB: one request or unit too many fails a test."""

from typing import TYPE_CHECKING

import pytest

from functions.example_app.operations import ExampleAppOperations
from ledger_core.audit import audit_store
from ledger_core.wiring import create_processor
from tests.benchmarks import history, requests
from tests.benchmarks.meter import Meter
from tests.benchmarks.races import CREDITS, WRITERS, Lost
from tests.benchmarks.seeding import seed
from tests.support import operation

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


def test_each_request_to_the_api_takes_what_the_table_says(real_client: "DynamoDBClient") -> None:
    """Each kind of request takes the requests, read units and write units of requests.GOALS."""
    assert requests.taken(real_client) == requests.GOALS


@pytest.mark.parametrize(("metadata_bytes", "units"), [(0, 5), (200, 5), (614, 5), (800, 8)])
def test_write_units_by_size(
    real_client: "DynamoDBClient", metadata_bytes: int, units: int
) -> None:
    """A UUID as nonce and an owner of 20 characters leave 614 bytes of metadata to five units."""
    processor = create_processor(ExampleAppOperations, real_client)
    meter = Meter(real_client)
    owner_id = "o" * 20
    metadata = {"note": "x" * (metadata_bytes - len("note"))} if metadata_bytes else {}
    processor.process(operation(owner_id=owner_id, nonce="first"))
    request = operation(owner_id=owner_id, nonce="n" * 36, metadata=metadata)
    assert meter.of(owner_id, lambda: processor.process(request)).write_units == units


@pytest.mark.parametrize("entries", [10, 1_000])
def test_history_costs_nothing(real_client: "DynamoDBClient", entries: int) -> None:
    """The cost of appends and reads does not depend on the number of entries."""
    ledger = seed("ada", entries)
    taken = history.taken(real_client, ledger)
    assert {call: str(cost) for call, cost in taken.items()} == {
        "append": "1 / 0 / 5",
        "balance": "1 / 1 / 0",
        "past balance": "1 / 0.5 / 0",
        "page": "1 / 0.5 / 0",
    }
    store = create_processor(ExampleAppOperations, real_client).store
    report = audit_store(store, "ada", read=lambda call: call())
    assert (report.valid, report.entries_checked) == (True, entries + 2)


def test_naive_ledger_takes_four_requests_an_entry(real_client: "DynamoDBClient") -> None:
    """The negative control sends two reads, then two writes."""
    assert requests.taken_by_naive(real_client) == requests.NAIVE


def test_naive_ledger_loses_the_races_that_this_one_wins(real_client: "DynamoDBClient") -> None:
    """If all check before all write, the naive ledger overdraws and doubles; this one does not."""
    assert requests.lost_by_naive(real_client) == Lost(
        overdrawn=WRITERS - CREDITS, doubled=WRITERS - 1
    )
    assert requests.lost_by_ours(real_client) == Lost(overdrawn=0, doubled=0)
