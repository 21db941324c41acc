"""Capacity units by DynamoDB's rules, from the sizes of items.

The units of DynamoDB Local are wrong for transactions.
"""

from collections.abc import Mapping
from math import ceil
from typing import Any

__all__ = [
    "READ_UNIT_BYTES",
    "TRANSACTION_FACTOR",
    "WRITE_UNIT_BYTES",
    "item_bytes",
    "write_units_of_balance",
    "write_units_of_entry",
]

WRITE_UNIT_BYTES = 1024
READ_UNIT_BYTES = 4096
TRANSACTION_FACTOR = 2
"""DynamoDB prepares and commits a write in a transaction. It writes to an index once."""
NESTING_BYTES = 3
"""The size of an empty map or list. Each element takes a byte and its own size."""


def item_bytes(item: Mapping[str, Mapping[str, Any]]) -> int:
    """The size of an item with typed values: the names of its attributes and their values."""
    return sum(len(name.encode()) + _value_bytes(value) for name, value in item.items())


def write_units_of_entry(
    item: Mapping[str, Mapping[str, Any]], *, transactional: bool = True
) -> int:
    """The units to put an entry, and to add it to the index by_account, which holds all of it."""
    units = _write_units(item_bytes(item))
    return units * _factor(transactional) + units


def write_units_of_balance(
    before: Mapping[str, Mapping[str, Any]],
    after: Mapping[str, Mapping[str, Any]],
    *,
    transactional: bool = True,
) -> int:
    """The units to update an account, by the larger size; `before` is empty for a new account."""
    return _write_units(max(item_bytes(before), item_bytes(after))) * _factor(transactional)


def _write_units(size: int) -> int:
    return ceil(size / WRITE_UNIT_BYTES)


def _factor(transactional: bool) -> int:
    return TRANSACTION_FACTOR if transactional else 1


def _value_bytes(typed: Mapping[str, Any]) -> int:
    ((kind, value),) = typed.items()
    if kind == "S":
        return len(str(value).encode())
    if kind == "N":
        # Two digits take a byte; zeros at the ends take none; exponent and minus take a byte each.
        digits = len(value.lstrip("-").replace(".", "").strip("0"))
        return ceil(digits / 2) + 1 + int(value.startswith("-"))
    if kind == "M":
        return NESTING_BYTES + len(value) + item_bytes(value)
    if kind == "L":
        return NESTING_BYTES + len(value) + sum(map(_value_bytes, value))
    raise ValueError(f"the ledger stores no values of type {kind}")
