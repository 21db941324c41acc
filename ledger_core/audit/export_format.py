"""The lines of an export: each ledger's head, then its entries."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from ledger_core.account import Head
from ledger_core.dynamodb import HEAD_FIELDS, StoredHead
from ledger_core.errors import InvalidRequestError

__all__ = ["head_line", "row_line", "rows_of"]

NO_HEAD = "line 1: an export begins with the head of a ledger"


def head_line(head: Head | StoredHead) -> str:
    """The line of a head, whatever is in it."""
    stored = StoredHead.of(head) if isinstance(head, Head) else head
    row = {"owner_id": stored.owner_id, **dict.fromkeys(HEAD_FIELDS), **stored.fields}
    return json.dumps(row, ensure_ascii=False, separators=(",", ":"))


def row_line(row: Any) -> str:
    """The line of an entry, whatever is in it."""
    return json.dumps(row, ensure_ascii=False)


def rows_of(lines: Iterable[str]) -> Iterator[tuple[int, Any]]:
    """Each row of an export with the number of its section; the first of a section is its head, a StoredHead.

    Raises:
        InvalidRequestError: it is empty, does not begin with a head, or its last line is cut off; or a head has no
            owner.
    """
    section, unfinished = 0, 0
    held: list[str] = []  # the last line, if it may have been cut off
    for number, line in enumerate(lines, start=1):
        if line == "\n":
            continue
        for text in held:
            if not section:
                raise InvalidRequestError(NO_HEAD)
            yield section, text
        held.clear()
        row = _parsed(line)
        if row is None and line.startswith("{") and not line.endswith("}\n"):
            unfinished = number
            held.append(line)
        elif _is_head(row):
            section += 1
            yield section, _head_from(row, number)
        else:
            if not section:
                raise InvalidRequestError(NO_HEAD)
            yield section, line if row is None else row
    if held:
        raise InvalidRequestError(f"the export is cut off in line {unfinished}")
    if not section:
        raise InvalidRequestError("line 1: the export is empty")


def _parsed(line: str) -> Any:
    """What a line holds; None: it cannot be read."""
    try:
        return json.loads(line, object_pairs_hook=_with_names_once)
    except (ValueError, RecursionError):
        return None


def _with_names_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(fields := dict(pairs)) < len(pairs):
        raise ValueError("a name that is repeated")
    return fields


def _is_head(row: Any) -> bool:
    """Entries have a time at which they were made, as else they would not be found; heads have none."""
    return isinstance(row, dict) and "head_hash" in row and "created_at" not in row


def _head_from(row: dict[str, Any], number: int) -> StoredHead:
    owner_id = row.pop("owner_id", None)
    if not isinstance(owner_id, str):
        raise InvalidRequestError(f"line {number}: this head is malformed: it has no owner")
    return StoredHead(owner_id, row)
