"""How far the ledger scales before it meets a quota of AWS, and the cost of a million owners."""

from collections.abc import Iterator
from math import ceil

from infra.dynamodb import template
from ledger_core.dynamodb import ENTRIES_MAX, WRITES_MAX
from ledger_core.rewards.sweep import PAGE_OWNERS_MAX
from tests.benchmarks import prices
from tests.benchmarks.report import Row
from tests.benchmarks.units import READ_UNIT_BYTES, TRANSACTION_FACTOR

__all__ = ["rate_rows", "reward_rows", "storage_rows"]

REWARD_SECONDS = 600
"""The goal for a reward to a million owners."""
BALANCE_UNITS = TRANSACTION_FACTOR
ENTRY_UNITS = TRANSACTION_FACTOR
INDEX_UNITS = 1
"""The write units of an entry below a kilobyte, in the accounts, the entries and the index."""


def rate_rows(entry_seconds: float, memory: int) -> Iterator[Row]:
    """The entries per second that each quota allows.

    Args:
        entry_seconds: the time that a function takes for an entry.
        memory: the function's memory, in megabytes.
    """
    partition = prices.PARTITION_WRITE_UNITS_MAX
    table = prices.TABLE_WRITE_UNITS_MAX
    grouped = min(ENTRIES_MAX * partition // BALANCE_UNITS, partition // INDEX_UNITS)
    functions = f"{prices.LAMBDAS_MAX:,} functions of {memory:,} MB at once"
    throttle = int(template()["Parameters"]["ThrottlingRateLimit"]["Default"])
    rates = (
        (f"one owner, one after the other: {entry_seconds * 1e3:.1f} ms each", 1 / entry_seconds),
        (
            f"one owner, an entry to a transaction: {partition:,} units for its row",
            partition / BALANCE_UNITS,
        ),
        (
            f"one owner, {ENTRIES_MAX} to a transaction: {partition:,} for its part of the index",
            grouped,
        ),
        (f"all owners: {table:,} units for the accounts table", table / BALANCE_UNITS),
        (f"all owners: {table:,} units for the entries table", table / ENTRY_UNITS),
        (f"all owners: {table:,} units for the index", table / INDEX_UNITS),
        (f"all owners: {functions}", prices.LAMBDAS_MAX / entry_seconds),
        ("all owners: API Gateway, of an account", prices.API_REQUESTS_PER_SECOND_MAX),
        ("all owners: API Gateway, as the template sets it", throttle),
    )
    for label, rate in rates:
        yield Row(label, f"{rate:,.0f} entries/s")


def reward_rows(balance_bytes: int, memory: int) -> Iterator[Row]:
    """The cost of a reward to a million owners, and the workers that it needs."""
    what = "a million rewards"
    units = prices.MILLION * prices.WRITE_UNITS_PER_REWARD
    pages = ceil(prices.MILLION / PAGE_OWNERS_MAX)
    read_units = pages * ceil(PAGE_OWNERS_MAX * balance_bytes / READ_UNIT_BYTES)
    dynamodb = units * prices.WRITE_UNIT_DOLLARS + read_units * prices.READ_UNIT_DOLLARS
    per_worker = prices.PARTITION_WRITE_UNITS_MAX / BALANCE_UNITS
    worker_seconds = prices.MILLION / per_worker
    function = worker_seconds * memory / 1024 * prices.LAMBDA_GB_SECOND_DOLLARS
    workers_max = ceil(prices.TABLE_WRITE_UNITS_MAX / BALANCE_UNITS / per_worker)
    yield Row(f"{what}: DynamoDB, {units:,} units and {read_units:,} to read", f"${dynamodb:,.3f}")
    yield Row(
        f"{what}: Lambda of {memory:,} MB, {per_worker:,.0f} owners/s each", f"${function:,.3f}"
    )
    yield Row(f"{what}: in all", f"${dynamodb + function:,.3f}")
    yield Row(
        f"{what}: transactions of {WRITES_MAX} owners", f"{ceil(prices.MILLION / WRITES_MAX):,}"
    )
    yield Row(
        f"{what}: workers, for {REWARD_SECONDS / 60:g} minutes",
        f"{ceil(worker_seconds / REWARD_SECONDS)}",
    )
    yield Row(
        f"{what}: with {workers_max} workers, the most that the table allows",
        f"{worker_seconds / workers_max:,.0f} s",
    )


def storage_rows(entry_bytes: int, balance_bytes: int) -> Iterator[Row]:
    """The cost to store a million accounts, and a million entries in the table and its index."""
    balance = balance_bytes + prices.ITEM_OVERHEAD_BYTES
    entry = 2 * (entry_bytes + prices.ITEM_OVERHEAD_BYTES)
    sizes = {
        f"a million balances of {balance_bytes} bytes": balance,
        f"a million entries of {entry_bytes} bytes, and in the index": entry,
    }
    for label, size in sizes.items():
        gigabytes = size * prices.MILLION / prices.GIGABYTE
        dollars = gigabytes * (prices.STORAGE_GB_MONTH_DOLLARS + prices.BACKUP_GB_MONTH_DOLLARS)
        yield Row(f"{label}, {gigabytes:.2f} GB with backups", f"${dollars:.2f} a month")
