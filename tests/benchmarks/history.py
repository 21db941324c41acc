"""Whether what an owner's ledger takes depends on its length: requests, units and time, at three lengths."""

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

SHORTEST, AUDITED, LONGEST = 10, 1_000, 100_000
"""Entries of the ledgers; the second is checked entry by entry."""
PAGE = 4
"""Entries on a page: before the middle of the shortest ledger there are these and the one that tells of more."""
ROUNDS = 100
RATIO_MAX = 1.25
"""More than this is no noise, whatever else the machine does."""
Call = Callable[[], object]


def run() -> Part:
    """Seed the ledgers on DynamoDB Local, check them, count, and take the time."""
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
        rows = [_count_row(what, [each[what] for each in counted]) for what in counted[0]]
        for what in counted[0]:
            rows += _time_rows(
                what, ledgers, another, {owner_id: each[what] for owner_id, each in calls.items()}
            )
    return Part(
        "Flat in history",
        f"on DynamoDB Local, the past being read in the middle, {PAGE} entries a page; times are medians of {ROUNDS} "
        f"rounds in turn, to those of an owner of {SHORTEST}, and what another one of {SHORTEST} takes is noise. "
        "The rounds lengthen each ledger by as many entries",
        rows,
    )


def taken(client: "DynamoDBClient", ledger: Seeded) -> dict[str, Taken]:
    """What each of the calls takes, of a process that knows the owner."""
    calls = _calls(create_processor(ExampleAppOperations, client), ledger, "counted")
    calls["append"]()
    meter = Meter(client)
    return {what: meter.of(ledger.owner_id, call) for what, call in calls.items()}


def _calls(processor: OperationProcessor, ledger: Seeded, name: str) -> dict[str, Call]:
    owner_id, middle, store = ledger.owner_id, ledger.middle, processor.store
    nonces: Iterator[str] = (f"{name}-{number}" for number in count())
    return {
        "append": lambda: processor.process(add(1, next(nonces), owner_id=owner_id)),
        "balance": lambda: store.account(owner_id, consistent=True),
        "past balance": lambda: store.latest(owner_id, at=middle),
        "page": lambda: store.page(owner_id, before=middle, limit=PAGE),
    }


def _count_row(what: str, each: list[Taken]) -> Row:
    figures = list(dict.fromkeys(map(str, each)))
    lengths = f"{SHORTEST}, {AUDITED:,} and {LONGEST:,} entries"
    return Row(
        f"{what}: requests / units, {lengths}",
        "; ".join(figures),
        "one and the same",
        len(figures) == 1,
    )


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
    """That what was seeded is a ledger."""
    page, _ = store.page(ledger.owner_id, before=ledger.middle, limit=PAGE)
    right = [entry.id for entry in page] == [ledger.entries // 2 - step for step in range(PAGE)]
    right &= all(later.prev_hash == earlier.hash for later, earlier in pairwise(page))
    if ledger.entries == AUDITED:
        right &= audit_store(store, ledger.owner_id, read=lambda call: call()).valid
    if not right:
        raise RuntimeError(f"what was seeded for {ledger.owner_id} is no ledger")
