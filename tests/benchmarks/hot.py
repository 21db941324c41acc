"""Many writers of one owner, against as many writers of an owner each: their rate and costs.

The writers are environments of Lambda, which share only DynamoDB, or threads of a server, which
share its processor. DynamoDB Local has no conflicts between transactions, so some runs add them.
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

__all__ = ["Environment", "Outcome", "Race", "run", "run_race"]

ENTRIES = 320
"""The entries of a run, of all writers together."""
ROUNDS = 3
WRITERS_MAX = 32
CONFLICTS = 0.05
"""The share of transactions that meet a conflict in the runs with conflicts."""
SEED = 20261122
SENT = ("requests", "puts", "balance updates", "stale heads", "retries")


class Environment:
    """A client, with counts of what it sends."""

    def __init__(self) -> None:
        self.client = create_client()
        self.sent = Sent(self.client)

    def processor(self) -> OperationProcessor:
        """A processor that knows no account."""
        return create_processor(ExampleAppOperations, self.client)

    def ledger(self, *, is_shared: bool) -> GroupCommit | OperationProcessor:
        """A group commit, as in a server, if the writers share it; else a processor."""
        processor = self.processor()
        return GroupCommit(processor) if is_shared else processor


class Race(NamedTuple):
    """The writers of a run, and the owners to whom they write."""

    writers: int
    environments: int
    """One for each writer, or one for all writers."""
    owners: int
    conflicts: float = 0.0

    def __str__(self) -> str:
        if self.writers == 1:
            return "1 writer"
        owners = "one owner" if self.owners == 1 else "an owner each"
        place = "one server" if self.environments == 1 else "environments"
        conflicts = f", {self.conflicts:.0%} conflicts" if self.conflicts else ""
        return f"{self.writers} writers in {place}, {owners}{conflicts}"


class Outcome(NamedTuple):
    """The result of a race; `counts` has the accepted posts, the 503s and what was sent."""

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
    outcomes: dict[Race, list[Outcome]] = {race: [] for race in RACES}
    with dynamodb_local() as endpoint:
        os.environ["AWS_ENDPOINT_URL_DYNAMODB"] = endpoint
        create_tables(create_client(), os.environ)
        environments = [Environment() for _ in range(WRITERS_MAX)]
        random = Random(SEED)
        warm_up = Race(WRITERS_MAX, 1, WRITERS_MAX)
        run_race("warm-up", warm_up, environments, random, entries=ENTRIES)
        for number in range(ROUNDS):
            for race, found in outcomes.items():
                name = f"round {number}"
                found.append(run_race(name, race, environments, random, entries=ENTRIES))
    return Part(
        "Hot owner",
        f"{ENTRIES} entries a run, audited after it; means of {ROUNDS} rounds in turn; entries/s "
        f"as a ratio of medians to that of 1 writer; conflicts by seed {SEED}",
        [row for race in RACES for row in _rows(race, outcomes[race], outcomes[ALONE])],
    )


def run_race(
    name: str, race: Race, environments: Sequence[Environment], random: Random, *, entries: int
) -> Outcome:
    """Run a race on new owners, after each writer posts an entry.

    Raises:
        RuntimeError: a ledger is not valid afterwards.
    """
    running = environments[: race.environments]
    is_shared = race.environments < race.writers
    ledgers = [environment.ledger(is_shared=is_shared) for environment in running]
    owners = [
        f"{name}, {race}, {number}".replace(" ", "-").replace("%", "")
        for number in range(race.owners)
    ]
    posts = [
        partial(_post, ledgers[writer % len(ledgers)], owners[writer % len(owners)], writer)
        for writer in range(race.writers)
    ]
    for post in posts:
        post(range(1))
    for environment in running:
        environment.sent.take()
    numbers = range(1, 1 + entries // race.writers)
    start = Barrier(race.writers + 1)

    def has_conflict() -> bool:
        return random.random() < race.conflicts

    with ExitStack() as stack:
        for environment in running:
            stack.enter_context(conflicts(environment.client, has_conflict))
        threads = stack.enter_context(ThreadPoolExecutor(race.writers))
        posting = threads.map(lambda post: post(numbers, start), posts)
        start.wait()
        begun = perf_counter()
        counts = sum(posting, Counter[str]())
        seconds = perf_counter() - begun
    for environment in running:
        counts += environment.sent.take()
    accepted = race.writers + counts["accepted"]
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
    with measure_request() as metrics:
        for number in numbers:
            try:
                ledger.process(add(1, f"{writer}-{number}", owner_id=owner_id))
                counts["accepted"] += 1
            except (ContentionError, UnavailableError):
                counts["ended in 503"] += 1
    counts.update({"stale heads": metrics.stale_heads, "retries": metrics.retries})
    return counts


def _check(
    processor: OperationProcessor, owners: Sequence[str], *, accepted: int, doubtful: int
) -> None:
    """Raise an error if a ledger is not valid or lacks an accepted entry.

    A post that ended in a 503 may have written its entry.
    """
    reports = [
        audit_store(processor.store, owner_id, read=processor.budget(TIMEOUT_SECONDS).call)
        for owner_id in owners
    ]
    stored = sum(report.entries_checked for report in reports)
    is_complete = accepted <= stored <= accepted + doubtful
    if not is_complete or not all(report.valid for report in reports):
        raise RuntimeError(f"{accepted} entries were accepted and {stored} are stored: {reports}")


def _rows(race: Race, outcomes: Sequence[Outcome], alone: Sequence[Outcome]) -> Iterator[Row]:
    """All figures of a race with one owner; fewer of a race with many owners."""
    counts = sum((outcome.counts for outcome in outcomes), Counter[str]())
    rates = [outcome.entries_per_second for outcome in outcomes]
    base = [outcome.entries_per_second for outcome in alone]
    yield ratio(f"{race}: entries/s", ratio_of_medians(rates, base))
    for name in SENT if race.owners == 1 else SENT[:1]:
        yield count(f"  {name} an entry", counts[name] / counts["accepted"])
    failed = counts["ended in 503"]
    yield Row(
        "  posts that ended in 503",
        f"{failed} of {failed + counts['accepted']:,}",
        "none",
        failed == 0,
    )
