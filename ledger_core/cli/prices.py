"""Prices of DynamoDB's units: on demand, list price, us-east-1, November 2026."""

__all__ = ["READ_UNIT_DOLLARS", "WRITE_UNITS_PER_REWARD", "WRITE_UNIT_DOLLARS"]

WRITE_UNIT_DOLLARS = 0.625e-6
READ_UNIT_DOLLARS = 0.125e-6
WRITE_UNITS_PER_REWARD = 5
"""Of an entry below 1 KB, in a transaction: 2 for it, 2 for its account, 1 for the index."""
