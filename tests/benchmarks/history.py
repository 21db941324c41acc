"""Whether the cost of an owner's ledger grows with its length: requests, units and time."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import count, pairwise
from typing import TYPE_CHECKING

from functions.example_app.operations import ExampleAppOperations
from infra.dynamodb import create_tables, dynamodb_local
from ledger_core.audit import audit_store
from ledger_core.dynamodb import LedgerStore
from ledger_core.posting import OperationProcessor
from ledger_core.wiring import create_client, create_processor
from tests.benchmarks.meter import Meter, Taken
from tests.benchmarks.report import Part, Row, interleaved, ratio, ratio_of_medians
from tests.benchmarks.seeding import Seeded, seed
from tests.support import add

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

__all__ = ["run", "taken"]

SHORTEST = 10
AUDITED = 1_000
LONGEST = 100_000
"""The numbers of entries of the ledgers. The second ledger is audited."""
PAGE = 4
"""The entries of a page, so that the shortest ledger has a further page before its middle."""
ROUNDS = 100
RATIO_MAX = 1.25
"""A higher ratio is not noise."""
Call = Callable[[], object]


def run() -> Part:
    """Seed the ledgers on DynamoDB Local, check them, count, and measure the time."""
    with dynamodb_local() as endpoint:
        os.environ["AWS_ENDPOINT_URL_DYNAMODB"] = endpoint
        client = create_client()
        create_tables(client, os.environ)
        ledgers = [seed(f"{length:06}", length) for length in (SHORTEST, AUDITED, LONGEST)]
        another = seed("another", SHORTEST)
        processor = create_processor(ExampleAppOperations, client)
        for ledger in ledgers:
            _check(processor.store, ledger)
        counted = [taken(client, ledger) for ledger in ledgers]
        calls = {
            ledger.owner_id: _calls(processor, ledger, "timed") for ledger in (*ledgers, another)
        }
        rows = [_count_row(what, [costs[what] for costs in counted]) for what in counted[0]]
        for what in counted[0]:
            timed = {owner_id: owner_calls[what] for owner_id, owner_calls in calls.items()}
            rows += _time_rows(what, ledgers, another, timed)
    return Part(
        "Flat in history",
        f"on DynamoDB Local, past reads in the middle, {PAGE} entries a page; times are medians of "
        f"{ROUNDS} rounds in turn, as ratios to those of an owner of {SHORTEST} entries; the ratio "
        f"of another owner of {SHORTEST} entries is noise. The rounds append as many entries",
        rows,
    )


def taken(client: "DynamoDBClient", ledger: Seeded) -> dict[str, Taken]:
    """The cost of each call in a process that knows the owner."""
    calls = _calls(create_processor(ExampleAppOperations, client), ledger, "counted")
    calls["append"]()
    meter = Meter(client)
    return {what: meter.of(ledger.owner_id, call) for what, call in calls.items()}


def _calls(processor: OperationProcessor, ledger: Seeded, name: str) -> dict[str, Call]:
    owner_id = ledger.owner_id
    middle = ledger.middle
    store = processor.store
    nonces: Iterator[str] = (f"{name}-{number}" for number in count())
    return {
        "append": lambda: processor.process(add(1, next(nonces), owner_id=owner_id)),
        "balance": lambda: store.account(owner_id, consistent=True),
        "past balance": lambda: store.latest(owner_id, at=middle),
        "page": lambda: store.page(owner_id, before=middle, limit=PAGE),
    }


def _count_row(what: str, costs: list[Taken]) -> Row:
    figures = list(dict.fromkeys(map(str, costs)))
    lengths = f"{SHORTEST}, {AUDITED:,} and {LONGEST:,} entries"
    label = f"{what}: requests / units, {lengths}"
    return Row(label, "; ".join(figures), "all the same", len(figures) == 1)


def _time_rows(
    what: str, ledgers: list[Seeded], another: Seeded, calls: Mapping[str, Call]
) -> Iterator[Row]:
    seconds = interleaved(calls, rounds=ROUNDS, clock=time.perf_counter)
    shortest, *longer = ledgers
    base = seconds[shortest.owner_id]
    noise = ratio_of_medians(seconds[another.owner_id], base)
    yield ratio(f"{what}: time, another owner of {another.entries:,} entries", noise)
    for ledger in longer:
        slower = ratio_of_medians(seconds[ledger.owner_id], base)
        yield ratio(
            f"{what}: time, an owner of {ledger.entries:,} entries", slower, at_most=RATIO_MAX
        )


def _check(store: LedgerStore, ledger: Seeded) -> None:
    """Raise an error if the seeded ledger is not valid."""
    page, _ = store.page(ledger.owner_id, before=ledger.middle, limit=PAGE)
    right = [entry.id for entry in page] == [ledger.entries // 2 - step for step in range(PAGE)]
    right &= all(later.prev_hash == earlier.hash for later, earlier in pairwise(page))
    if ledger.entries == AUDITED:
        right &= audit_store(store, ledger.owner_id, read=lambda call: call()).valid
    if not right:
        raise RuntimeError(f"the seeded ledger of {ledger.owner_id} is not valid")
