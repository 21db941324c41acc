"""What the ledger takes of DynamoDB, as the benchmarks count it: a request or a unit more is a failure here."""

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
    """Requests by name, read units and write units, for all that is asked of the ledger, as in requests.GOALS."""
    assert requests.taken(real_client) == requests.GOALS


@pytest.mark.parametrize(("metadata_bytes", "units"), [(0, 5), (200, 5), (614, 5), (800, 8)])
def test_write_units_by_size(
    real_client: "DynamoDBClient", metadata_bytes: int, units: int
) -> None:
    """A nonce like a UUID and an owner of 20 characters leave room for 614 bytes of metadata in five write units."""
    processor, meter = create_processor(ExampleAppOperations, real_client), Meter(real_client)
    owner_id, metadata = (
        "o" * 20,
        {"note": "x" * (metadata_bytes - len("note"))} if metadata_bytes else {},
    )
    processor.process(operation(owner_id=owner_id, nonce="first"))
    request = operation(owner_id=owner_id, nonce="n" * 36, metadata=metadata)
    assert meter.of(owner_id, lambda: processor.process(request)).write_units == units


@pytest.mark.parametrize("entries", [10, 1_000])
def test_history_costs_nothing(real_client: "DynamoDBClient", entries: int) -> None:
    """What appends and reads take does not depend on how many entries there are; a seeded ledger is a right one."""
    ledger = seed("ada", entries)
    taken = history.taken(real_client, ledger)
    assert {what: str(each) for what, each in taken.items()} == {
        "append": "1 / 0 / 5",
        "balance": "1 / 1 / 0",
        "past balance": "1 / 0.5 / 0",
        "page": "1 / 0.5 / 0",
    }
    store = create_processor(ExampleAppOperations, real_client).store
    report = audit_store(store, "ada", read=lambda call: call())
    assert (report.valid, report.entries_checked) == (True, entries + 2)


def test_naive_ledger_takes_four_requests_an_entry(real_client: "DynamoDBClient") -> None:
    """The negative control is what it claims to be: two reads, then two writes, each for itself."""
    assert requests.taken_by_naive(real_client) == requests.NAIVE


def test_naive_ledger_loses_the_races_that_this_one_wins(real_client: "DynamoDBClient") -> None:
    """When all look before the first one writes, the naive ledger overdraws and takes twice, and this one does not."""
    assert requests.lost_by_naive(real_client) == Lost(
        overdrawn=WRITERS - CREDITS, doubled=WRITERS - 1
    )
    assert requests.lost_by_ours(real_client) == Lost(overdrawn=0, doubled=0)
