"""What many writers of one owner get done, and what an entry of theirs takes, beside as many writers of an owner each.

They are environments of Lambda, which share nothing but DynamoDB, or threads of one server, which share its processor.
DynamoDB Local has no conflicts between transactions, so some of the runs add them to its answers.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from random import Random
from threading import Barrier
from time import perf_counter
from typing import NamedTuple

from functions.example_app.operations import ExampleAppOperations
from infra.dynamodb import create_tables, dynamodb_local
from ledger_core.audit import audit_store
from ledger_core.errors import ContentionError, UnavailableError
from ledger_core.observability import measure_request
from ledger_core.posting import TIMEOUT_SECONDS, GroupCommit, OperationProcessor
from ledger_core.wiring import create_client, create_processor
from tests.benchmarks.report import Part, Row, count, ratio, ratio_of_medians
from tests.benchmarks.sent import Sent, conflicts
from tests.support import add

__all__ = ["Environment", "Outcome", "Race", "race", "run"]

ENTRIES = 320
"""Of all writers of a run together."""
ROUNDS = 3
WRITERS_MAX = 32
CONFLICTS = 0.05
"""The share of transactions that meet a conflict in the runs with conflicts."""
SEED = 20261122
SENT = ("requests", "puts", "balance updates", "stale heads", "retries")


class Environment:
    """A client, and what it sends."""

    def __init__(self) -> None:
        self.client = create_client()
        self.sent = Sent(self.client)

    def processor(self) -> OperationProcessor:
        """A processor that remembers nothing yet."""
        return create_processor(ExampleAppOperations, self.client)

    def ledger(self, *, is_shared: bool) -> GroupCommit | OperationProcessor:
        """What writers post through: as in a server if they share it, else as in Lambda."""
        processor = self.processor()
        return GroupCommit(processor) if is_shared else processor


class Race(NamedTuple):
    """Who writes to whom."""

    writers: int
    environments: int
    """As many as writers, or one that all of them share."""
    owners: int
    conflicts: float = 0.0

    def __str__(self) -> str:
        if self.writers == 1:
            return "1 writer"
        owners = "one owner" if self.owners == 1 else "an owner each"
        where = "one server" if self.environments == 1 else "environments"
        met = f", {self.conflicts:.0%} conflicts" if self.conflicts else ""
        return f"{self.writers} writers in {where}, {owners}{met}"


class Outcome(NamedTuple):
    """What came of it; `counts` has what was accepted, what ended in a 503, and what was sent."""

    seconds: float
    counts: Counter[str]

    @property
    def entries_per_second(self) -> float:
        return self.counts["accepted"] / self.seconds


ALONE = Race(1, 1, 1)
RACES = [
    ALONE,
    *(
        Race(writers, environments, owners)
        for writers in (8, WRITERS_MAX)
        for environments in (writers, 1)
        for owners in (1, writers)
    ),
    *(Race(WRITERS_MAX, environments, 1, CONFLICTS) for environments in (WRITERS_MAX, 1)),
]


def run() -> Part:
    """Every race in turn."""
    outcomes: dict[Race, list[Outcome]] = {one: [] for one in RACES}
    with dynamodb_local() as endpoint:
        os.environ["AWS_ENDPOINT_URL_DYNAMODB"] = endpoint
        create_tables(create_client(), os.environ)
        environments, random = [Environment() for _ in range(WRITERS_MAX)], Random(SEED)
        race("warm-up", Race(WRITERS_MAX, 1, WRITERS_MAX), environments, random, entries=ENTRIES)
        for number in range(ROUNDS):
            for one, found in outcomes.items():
                found.append(race(f"round {number}", one, environments, random, entries=ENTRIES))
    return Part(
        "Hot owner",
        f"{ENTRIES} entries a run, audited after it; means of {ROUNDS} rounds in turn; entries/s as a ratio to that "
        f"of 1 writer, of medians; conflicts by seed {SEED}",
        [row for one in RACES for row in _rows(one, outcomes[one], outcomes[ALONE])],
    )


def race(
    name: str, one: Race, environments: Sequence[Environment], random: Random, *, entries: int
) -> Outcome:
    """Run it on owners of its own, once every writer has posted one entry; raises if a ledger is not right then."""
    running = environments[: one.environments]
    is_shared = one.environments < one.writers
    ledgers = [environment.ledger(is_shared=is_shared) for environment in running]
    owners = [
        f"{name}, {one}, {number}".replace(" ", "-").replace("%", "")
        for number in range(one.owners)
    ]
    posts = [
        partial(_post, ledgers[writer % len(ledgers)], owners[writer % len(owners)], writer)
        for writer in range(one.writers)
    ]
    for post in posts:
        post(range(1))
    for environment in running:
        environment.sent.take()
    numbers, start = range(1, 1 + entries // one.writers), Barrier(one.writers + 1)
    with ExitStack() as stack:
        for environment in running:
            stack.enter_context(
                conflicts(environment.client, lambda: random.random() < one.conflicts)
            )
        threads = stack.enter_context(ThreadPoolExecutor(one.writers))
        posting = threads.map(lambda post: post(numbers, start), posts)
        start.wait()
        begun = perf_counter()
        counts = sum(posting, Counter[str]())
        seconds = perf_counter() - begun
    for environment in running:
        counts += environment.sent.take()
    accepted = one.writers + counts["accepted"]
    _check(running[0].processor(), owners, accepted=accepted, doubtful=counts["ended in 503"])
    return Outcome(seconds, counts)


def _post(
    ledger: GroupCommit | OperationProcessor,
    owner_id: str,
    writer: int,
    numbers: range,
    start: Barrier | None = None,
) -> Counter[str]:
    counts = Counter[str]()
    if start:
        start.wait()
    with measure_request() as usage:
        for number in numbers:
            try:
                ledger.process(add(1, f"{writer}-{number}", owner_id=owner_id))
                counts["accepted"] += 1
            except (ContentionError, UnavailableError):
                counts["ended in 503"] += 1
    counts.update({"stale heads": usage.stale_heads, "retries": usage.retries})
    return counts


def _check(
    processor: OperationProcessor, owners: Sequence[str], *, accepted: int, doubtful: int
) -> None:
    """The ledgers are valid and have the entries that were accepted; of one that ended in a 503 it is not known."""
    reports = [
        audit_store(processor.store, owner_id, read=processor.budget(TIMEOUT_SECONDS).call)
        for owner_id in owners
    ]
    stored = sum(report.entries_checked for report in reports)
    if not all(report.valid for report in reports) or not accepted <= stored <= accepted + doubtful:
        raise RuntimeError(f"{accepted} entries were accepted and {stored} are stored: {reports}")


def _rows(one: Race, outcomes: Sequence[Outcome], alone: Sequence[Outcome]) -> Iterator[Row]:
    """For one owner all figures, for many those that may differ."""
    counts = sum((outcome.counts for outcome in outcomes), Counter[str]())
    pace, base = ([outcome.entries_per_second for outcome in each] for each in (outcomes, alone))
    yield ratio(f"{one}: entries/s", ratio_of_medians(pace, base))
    for name in SENT if one.owners == 1 else SENT[:1]:
        yield count(f"  {name} an entry", counts[name] / counts["accepted"])
    failed = counts["ended in 503"]
    yield Row(
        "  posts that ended in 503",
        f"{failed} of {failed + counts['accepted']:,}",
        "none",
        failed == 0,
    )
