"""AWS's list prices in us-east-1 without free tiers, and its default quotas; of November 2026."""

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
"""A request to an HTTP API, of the first 300 million a month."""
LAMBDA_REQUEST_DOLLARS = 0.20e-6
LAMBDA_GB_SECOND_DOLLARS = 0.0000133334
"""On arm64, of the first 7.5 billion a month."""
LAMBDA_BILLED_SECONDS_STEP = 0.001
LAMBDA_CPU_MEGABYTES = 1769
"""The memory with which a function has one CPU; with less it has a CPU for a part of the time."""
LOG_GB_DOLLARS = 0.50
"""The price to ingest a gigabyte into CloudWatch Logs."""
STORAGE_GB_MONTH_DOLLARS = 0.25
BACKUP_GB_MONTH_DOLLARS = 0.20
"""The price of point-in-time recovery."""
ITEM_OVERHEAD_BYTES = 100
"""The storage that DynamoDB adds to an item, in a table and again in an index."""

PARTITION_WRITE_UNITS_MAX = 1_000
"""Per second, as all rates below."""
TABLE_WRITE_UNITS_MAX = 40_000
LAMBDAS_MAX = 1_000
"""Functions of an account that run at once."""
API_REQUESTS_PER_SECOND_MAX = 10_000
"""Of an account, for all its APIs."""
