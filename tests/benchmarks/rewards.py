"""The cost of a reward to all owners, by a sweep and by a naive loop, on DynamoDB Local.

    make bench-rewards

It prints a table and the goals. No figure fails the run, because machines differ. All runs share
the same tables; each run has its own period.
"""

import argparse
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from functions.example_app.operations import ExampleAppOperations
from infra.dynamodb import ENVIRONMENT, create_tables, dynamodb_local
from ledger_core.account import Account
from ledger_core.dynamodb import WRITES_MAX, LedgerStore, SweepStore
from ledger_core.dynamodb.decode import units_from
from ledger_core.errors import UnavailableError
from ledger_core.operations import LedgerOperationType
from ledger_core.periods import Period
from ledger_core.rewards import Reward, Segment, Sweep
from ledger_core.rewards.sweep import PAGE_OWNERS_MAX
from ledger_core.wiring import create_account_store, create_client, create_processor
from tests.benchmarks.units import item_bytes, write_units_of_balance, write_units_of_entry
from tests.support import change_of, operation, wire

__all__ = ["Cost", "main"]

REQUESTS_PER_OWNER_MAX = 0.03
PEAK_GROWTH_MAX = 1.1
SPEEDUP_MIN = 3.0

SEEDED_AT = datetime(2026, 11, 17, 12, tzinfo=UTC)
FEW = "2026-11-18"
WARM_UP = "2026-11-19"
NAIVE_BEFORE = "2026-11-20"
NAIVE_AFTER = "2026-11-21"
SWEEP = "2026-11-22"
SWEEP_FOR_MEMORY = "2026-11-23"
"""The periods of the runs, whose rewards no owner has."""
FEW_OWNERS = 2000
"""The owners of the sweep with whose memory the sweep of all owners is compared."""
WARM_UP_OWNERS = 300
"""DynamoDB Local is slow until Java compiles its code."""
SWEEP_SECONDS_MAX = 3600.0
SEED_THREADS = 2
SEED_TRIES_MAX = 60
SIZE_ROWS = 500
"""Rows that are read at a time, few because the client waits for two seconds only."""


@dataclass
class Cost:
    """The cost of a run over some owners."""

    owners: int = 0
    requests: int = 0
    write_requests: int = 0
    refused: int = 0
    """Requests without an answer or with an error; no figure has their write units."""
    read_units: float = 0.0
    write_units: int = 0
    entry_bytes: int = 0
    """The bytes of all new entries."""
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        names = [field.name for field in fields(self)]
        return Cost(**{name: getattr(self, name) + getattr(other, name) for name in names})

    @property
    def owners_per_second(self) -> float:
        """The owners of a second."""
        return self.owners / self.seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark, print its figures, and return 0."""
    options = _parser().parse_args(arguments)
    if options.peak_of:
        print(_own_peak_kibibytes(options.peak_of))
        return 0
    for name in list(os.environ):
        if name.startswith(("AWS_", "LEDGER_")):
            del os.environ[name]  # the machine's variable, which may name another store
    os.environ.update(ENVIRONMENT)
    print(
        f"{os.cpu_count()} CPUs ({platform.machine()}), load average {os.getloadavg()[0]:.2f}, "
        f"Python {platform.python_version()}, DynamoDB Local in memory on the same CPUs"
    )
    with dynamodb_local() as endpoint:
        os.environ["AWS_ENDPOINT_URL_DYNAMODB"] = endpoint
        create_tables(create_client(), os.environ)
        _benchmark(options.owners, options.naive_owners)
    return 0


def _benchmark(owners: int, naive_owners: int) -> None:
    few = min(FEW_OWNERS, owners)
    _seed(range(few))
    few_kibibytes = _peak_kibibytes(FEW)
    _naive(WARM_UP, WARM_UP_OWNERS)
    _seed(range(few, owners))

    before = _with_write_units(lambda: _naive(NAIVE_BEFORE, naive_owners), NAIVE_BEFORE)
    sweep = _with_write_units(lambda: _sweep(SWEEP), SWEEP)
    after = _with_write_units(lambda: _naive(NAIVE_AFTER, naive_owners), NAIVE_AFTER)
    again = _sweep(SWEEP)
    all_kibibytes = _peak_kibibytes(SWEEP_FOR_MEMORY)

    naive = before + after
    requests = sweep.requests / sweep.owners
    growth = all_kibibytes / few_kibibytes
    speedup = sweep.owners_per_second / naive.owners_per_second
    _print_table(sweep, naive, speedup)
    print(
        f"The naive loop ran over a sample of {before.owners:,} owners: before the sweep "
        f"({before.owners_per_second:,.0f} owners/s) and after it "
        f"({after.owners_per_second:,.0f} owners/s)."
    )
    print(
        f"The same sweep again: {again.requests / again.owners:.4f} requests per owner, "
        f"{again.write_requests} write requests, {again.owners_per_second:,.0f} owners/s."
    )
    print(
        f"Peak memory of a new process that sweeps: {few_kibibytes / 1024:.1f} MiB for {few:,} "
        f"owners, {all_kibibytes / 1024:.1f} MiB for {owners:,}, {growth:.3f}x.\n"
    )
    met = requests <= REQUESTS_PER_OWNER_MAX
    _print_goal(f"at most {REQUESTS_PER_OWNER_MAX} requests per owner", f"{requests:.4f}", met)
    _print_goal(
        f"peak memory flat (at most {PEAK_GROWTH_MAX}x)",
        f"{growth:.3f}x",
        growth <= PEAK_GROWTH_MAX,
    )
    _print_goal(
        f"at least {SPEEDUP_MIN:g}x the naive loop's owners/s",
        f"{speedup:.1f}x",
        speedup >= SPEEDUP_MIN,
    )


def _naive(period: str, owners: int) -> Cost:
    """A naive loop: scan the first owners, and post to one after the other."""
    reward = _reward(period)
    processor = create_processor(ExampleAppOperations)
    client = _client_of(processor.store)
    with _measured(client) as cost:
        pages = client.get_paginator("scan").paginate(
            TableName=os.environ["LEDGER_ACCOUNTS_TABLE"],
            ReturnConsumedCapacity="TOTAL",
            PaginationConfig={"MaxItems": owners, "PageSize": min(owners, PAGE_OWNERS_MAX)},
        )
        for page in pages:
            for item in page["Items"]:
                processor.process(reward.request(item["account"]["S"]))
                cost.owners += 1
    return cost


def _sweep(period: str) -> Cost:
    """A sweep over all owners."""
    reward = _reward(period)
    store = create_account_store()
    with _measured(_client_of(store)) as cost:
        (segment,) = Segment.all_of(reward, 1, datetime.now(UTC))
        segment = Sweep(store, reward).run(segment, seconds=SWEEP_SECONDS_MAX)
        cost.owners = segment.tally.owners
    if not segment.finished or segment.tally.rewarded != segment.tally.owners:
        raise RuntimeError(f"the sweep is not finished: {segment}")
    return cost


@contextmanager
def _measured(client: Any) -> Iterator[Cost]:
    """The cost of a client's requests until the end of the block, without the write units."""
    cost = Cost()
    sent = wire(client)
    read: list[float] = []
    accepted: list[bool] = []

    def on_answer(http_response: Any, parsed: Mapping[str, Any], model: Any, **_: Any) -> None:
        accepted.append(http_response.status_code < 300)
        if model.name != "TransactWriteItems" and "ConsumedCapacity" in parsed:
            read.append(units_from(parsed))

    client.meta.events.register("after-call.dynamodb", on_answer)
    begun = time.perf_counter()
    cpu_begun = time.process_time()
    yield cost
    cost.seconds = time.perf_counter() - begun
    cost.cpu_seconds = time.process_time() - cpu_begun
    cost.requests = len(sent)
    cost.write_requests = sent.count("TransactWriteItems")
    cost.refused = len(sent) - sum(accepted)
    cost.read_units = sum(read)


def _with_write_units(run: Callable[[], Cost], period: str) -> Cost:
    """Run, and add the write units, computed from the items before and after."""
    balances = {item["account"]["S"]: item for item in _items("LEDGER_ACCOUNTS_TABLE")}
    cost = run()
    nonce = _reward(period).nonce
    entries = {
        item["account"]["S"]: item
        for item in _items(
            "LEDGER_ENTRIES_TABLE",
            FilterExpression="nonce = :nonce",
            ExpressionAttributeValues={":nonce": {"S": nonce}},
        )
    }
    if len(entries) != cost.owners:
        raise RuntimeError(f"{len(entries):,} entries were written for {cost.owners:,} owners")
    cost.entry_bytes = sum(map(item_bytes, entries.values()))
    cost.write_units = sum(map(write_units_of_entry, entries.values()))
    for item in _items("LEDGER_ACCOUNTS_TABLE"):
        if (owner_id := item["account"]["S"]) in entries:
            cost.write_units += write_units_of_balance(balances[owner_id], item)
    return cost


def _items(table: str, **options: Any) -> Iterator[dict[str, Any]]:
    paginator = create_client().get_paginator("scan")
    for page in paginator.paginate(
        TableName=os.environ[table], PaginationConfig={"PageSize": SIZE_ROWS}, **options
    ):
        yield from page["Items"]


def _seed(numbers: Sequence[int]) -> None:
    """Post a first entry for the owner of each number."""
    store = create_account_store()
    batches = [numbers[first : first + WRITES_MAX] for first in range(0, len(numbers), WRITES_MAX)]
    with ThreadPoolExecutor(SEED_THREADS) as threads:
        list(threads.map(lambda batch: _seed_batch(store, batch), batches))


def _seed_batch(store: SweepStore, numbers: Sequence[int]) -> None:
    signup = LedgerOperationType.SIGNUP_CREDIT
    amount = ExampleAppOperations.get_operation_config()[signup].amount
    changes = []
    for number in numbers:
        account = Account(owner_id=f"{number:036}")  # as long as a UUID
        request = operation(signup, owner_id=account.owner_id)
        entry = account.next_entry(request, amount=amount, now=SEEDED_AT)
        changes.append(change_of(account, entry))
    for _ in range(SEED_TRIES_MAX):
        try:
            cancelled = store.transact(changes, token=str(uuid4()))
        except UnavailableError:
            continue
        # Cancellations with a stored entry mean that an earlier try without an answer succeeded.
        if all(cancellation.stored for cancellation in cancelled):
            return
        time.sleep(1)
    raise RuntimeError("DynamoDB Local writes no entries: see .local/dynamodb-local.log")


def _peak_kibibytes(period: str) -> int:
    """The most memory that a new process has while it sweeps."""
    command = [sys.executable, "-m", "tests.benchmarks.rewards", "--peak-of", period]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def _own_peak_kibibytes(period: str) -> int:
    """The most memory that this process has while it sweeps.

    ru_maxrss is wrong here: on Linux it begins with the peak of the parent process, so that both
    sweeps would seem to need as much as the benchmark.
    """
    _sweep(period)
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])


def _reward(period: str) -> Reward:
    return Reward.of(ExampleAppOperations, LedgerOperationType.DAILY_REWARD, Period.parse(period))


def _client_of(store: LedgerStore) -> Any:
    """The store's own client, which ledger_core.wiring configures."""
    return store._client


def _print_table(sweep: Cost, naive: Cost, speedup: float) -> None:
    figures: dict[str, Callable[[Cost], str]] = {
        "owners": lambda cost: f"{cost.owners:,}",
        "requests per owner": lambda cost: f"{cost.requests / cost.owners:.4f}",
        "requests refused or unanswered": lambda cost: f"{cost.refused:,}",
        "write units per owner": lambda cost: f"{cost.write_units / cost.owners:.3f}",
        "read units per owner": lambda cost: f"{cost.read_units / cost.owners:.4f}",
        "bytes per new entry": lambda cost: f"{cost.entry_bytes / cost.owners:.0f}",
        "owners/s": lambda cost: f"{cost.owners_per_second:,.0f}",
        "CPU time of this process per owner, µs": lambda cost: (
            f"{cost.cpu_seconds / cost.owners * 1e6:,.0f}"
        ),
    }
    rows = [(label, figure(sweep), figure(naive)) for label, figure in figures.items()]
    rows = [
        ("", "this design", "naive loop (sample)"),
        *rows,
        ("ratio of owners/s", f"{speedup:.1f}x", "1.0x"),
    ]
    print()
    for label, ours, theirs in rows:
        print(f"{label:40}{ours:>15}{theirs:>22}")
    print()


def _print_goal(goal: str, figure: str, met: bool) -> None:
    print(f"{goal + ':':42}{figure:>9}  {'met' if met else 'MISSED'}")


def _parser() -> argparse.ArgumentParser:
    description = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.rewards", description=description
    )
    parser.add_argument(
        "--owners", type=int, default=20_000, help="owners to sweep (default: %(default)s)"
    )
    parser.add_argument(
        "--naive-owners",
        type=int,
        default=2000,
        help="the sample that the naive loop posts to (default: %(default)s)",
    )
    parser.add_argument("--peak-of", metavar="PERIOD", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
