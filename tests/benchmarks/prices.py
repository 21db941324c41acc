"""AWS's list prices in us-east-1, without free tiers and discounts, and its default quotas; as of November 2026."""

from ledger_core.cli.prices import READ_UNIT_DOLLARS, WRITE_UNIT_DOLLARS, WRITE_UNITS_PER_REWARD

__all__ = [
    "API_REQUESTS_PER_SECOND_MAX",
    "API_REQUEST_DOLLARS",
    "BACKUP_GB_MONTH_DOLLARS",
    "GIGABYTE",
    "ITEM_OVERHEAD_BYTES",
    "LAMBDAS_MAX",
    "LAMBDA_BILLED_SECONDS_STEP",
    "LAMBDA_CPU_MEGABYTES",
    "LAMBDA_GB_SECOND_DOLLARS",
    "LAMBDA_REQUEST_DOLLARS",
    "LOG_GB_DOLLARS",
    "MILLION",
    "PARTITION_WRITE_UNITS_MAX",
    "READ_UNIT_DOLLARS",
    "STORAGE_GB_MONTH_DOLLARS",
    "TABLE_WRITE_UNITS_MAX",
    "WRITE_UNITS_PER_REWARD",
    "WRITE_UNIT_DOLLARS",
]

GIGABYTE = 2**30
MILLION = 1_000_000

API_REQUEST_DOLLARS = 1.00e-6
"""An HTTP API's, the first 300 million a month."""
LAMBDA_REQUEST_DOLLARS = 0.20e-6
LAMBDA_GB_SECOND_DOLLARS = 0.0000133334
"""On arm64, the first 7.5 billion a month."""
LAMBDA_BILLED_SECONDS_STEP = 0.001
LAMBDA_CPU_MEGABYTES = 1769
"""Memory at which a function has one CPU; below, it has the CPU for that part of the time."""
LOG_GB_DOLLARS = 0.50
"""What CloudWatch Logs takes to ingest it."""
STORAGE_GB_MONTH_DOLLARS = 0.25
BACKUP_GB_MONTH_DOLLARS = 0.20
"""Of point-in-time recovery."""
ITEM_OVERHEAD_BYTES = 100
"""What DynamoDB charges the storage of beside an item, in a table and again in an index."""

PARTITION_WRITE_UNITS_MAX = 1_000
"""A second, as all limits below that are rates."""
TABLE_WRITE_UNITS_MAX = 40_000
LAMBDAS_MAX = 1_000
"""Invocations of an account at once."""
API_REQUESTS_PER_SECOND_MAX = 10_000
"""Of an account, for all its APIs."""
