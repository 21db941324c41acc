"""The lines of an export: each ledger's head, then its entries."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import TypeAdapter

from ledger_core.errors import InvalidRequestError
from ledger_core.models import Head

__all__ = ["HEAD_FIELDS", "head_line", "rows_of"]

HEAD_FIELDS = ("balance", "entry_count", "head_hash", "updated_at")
HEAD = TypeAdapter(Head)


def head_line(head: Head) -> str:
    """The line of a head."""
    return HEAD.dump_json(head).decode()


def rows_of(lines: Iterable[str]) -> Iterator[tuple[int, Any]]:
    """Each row of an export with the number of its section; the first of a section is its head.

    Raises:
        InvalidRequestError: it is empty or does not begin with a head, or a head is malformed.
    """
    section = 0
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = line  # unreadable, and so reported
        if isinstance(row, dict) and "head_hash" in row:
            section += 1
            try:
                if set(row) != {"owner_id", *HEAD_FIELDS}:
                    raise ValueError  # not the fields of a head
                row = HEAD.validate_json(line, strict=True)
            except ValueError:
                raise InvalidRequestError(f"line {number}: this head is malformed") from None
        elif not section:
            raise InvalidRequestError("line 1: an export begins with the head of a ledger")
        if row != "\n":
            yield section, row
    if not section:
        raise InvalidRequestError("line 1: the export is empty")
