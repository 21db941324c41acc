"""What DynamoDB's units cost, on demand, at list price in us-east-1; as of November 2026."""

__all__ = ["READ_UNIT_DOLLARS", "WRITE_UNITS_PER_REWARD", "WRITE_UNIT_DOLLARS"]

WRITE_UNIT_DOLLARS = 0.625e-6
READ_UNIT_DOLLARS = 0.125e-6
WRITE_UNITS_PER_REWARD = 5
"""An entry below 1 KB: 2 for it and 2 for its balance, in a transaction, and 1 for the index."""
