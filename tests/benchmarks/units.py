"""Capacity units by DynamoDB's rules, from the sizes of items: DynamoDB Local's own are wrong for transactions."""

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
"""A write in a transaction is done twice: it is prepared, then committed. An index is written to once."""
NESTING_BYTES = 3
"""What a map or a list takes beside its contents; on top of it comes one byte for each of its elements."""


def item_bytes(item: Mapping[str, Mapping[str, Any]]) -> int:
    """The size of an item, given as DynamoDB types it: the names of its attributes and their values."""
    return sum(len(name.encode()) + _value_bytes(value) for name, value in item.items())


def write_units_of_entry(
    item: Mapping[str, Mapping[str, Any]], *, transactional: bool = True
) -> int:
    """What it takes to put an entry, and to add it to the index by_account, which holds all of it."""
    units = _write_units(item_bytes(item))
    return units * _factor(transactional) + units


def write_units_of_balance(
    before: Mapping[str, Mapping[str, Any]],
    after: Mapping[str, Mapping[str, Any]],
    *,
    transactional: bool = True,
) -> int:
    """What it takes to update a balance: the larger size decides; `before` is empty for a new one."""
    return _write_units(max(item_bytes(before), item_bytes(after))) * _factor(transactional)


def _write_units(size: int) -> int:
    return ceil(size / WRITE_UNIT_BYTES)


def _factor(transactional: bool) -> int:
    return TRANSACTION_FACTOR if transactional else 1


def _value_bytes(typed: Mapping[str, Any]) -> int:
    ((kind, value),) = typed.items()
    if kind == "S":
        return len(str(value).encode())
    if (
        kind == "N"
    ):  # two digits to a byte, less zeros at the ends, a byte for the exponent and one for a minus
        digits = len(value.lstrip("-").replace(".", "").strip("0"))
        return ceil(digits / 2) + 1 + int(value.startswith("-"))
    if kind == "M":
        return NESTING_BYTES + len(value) + item_bytes(value)
    if kind == "L":
        return NESTING_BYTES + len(value) + sum(map(_value_bytes, value))
    raise ValueError(f"the ledger stores no values of type {kind}")
