"""The lines of an export: each ledger's head, then its entries."""

import json
from collections.abc import Iterable, Iterator
from tempfile import SpooledTemporaryFile
from typing import Any, Self

from ledger_core.account import Head
from ledger_core.dynamodb import HEAD_FIELDS, StoredHead, same
from ledger_core.errors import InvalidRequestError
from ledger_core.keys import CREDIT
from ledger_core.models import FORMAT_VERSION

__all__ = [
    "COPY_BYTES_IN_MEMORY_MAX",
    "LineCopy",
    "head_line",
    "row_from_line",
    "row_line",
    "rows_of",
]

COPY_BYTES_IN_MEMORY_MAX = 1 << 20
"""What a copy of lines may take before it becomes a file."""

NO_HEAD = "line 1: an export begins with the head of a ledger"


def head_line(head: Head | StoredHead) -> str:
    """The line of a head, whatever is in it."""
    stored = StoredHead.of(head) if isinstance(head, Head) else head
    row = {**dict.fromkeys(HEAD_FIELDS), **stored.fields}
    row |= {"v": FORMAT_VERSION, "owner_id": stored.owner_id}
    if stored.unit != CREDIT:
        row["unit"] = stored.unit
    return json.dumps(row, ensure_ascii=False, separators=(",", ":"))


def row_line(row: Any) -> str:
    """The line of an entry, whatever is in it."""
    return json.dumps(row, ensure_ascii=False)


def rows_of(lines: Iterable[str]) -> Iterator[tuple[int, Any, str]]:
    """Each row of an export with the number of its section and its line. A section begins with a
    StoredHead.

    Raises:
        InvalidRequestError: the export is empty, does not begin with a head, or is cut off in its
            last line; or a head has no owner.
    """
    section = 0
    unfinished = 0
    held: list[str] = []
    """The last line, if it may have been cut off."""
    for number, line in enumerate(lines, start=1):
        if line == "\n":
            continue
        for text in held:
            if not section:
                raise InvalidRequestError(NO_HEAD)
            yield section, text, text
        held.clear()
        row = row_from_line(line)
        if row is line and line.startswith("{") and not line.endswith("}\n"):
            unfinished = number
            held.append(line)
        elif _is_head(row):
            section += 1
            yield section, _head_from(row, number), line
        else:
            if not section:
                raise InvalidRequestError(NO_HEAD)
            yield section, row, line
    if held:
        raise InvalidRequestError(f"the export is cut off in line {unfinished}")
    if not section:
        raise InvalidRequestError("line 1: the export is empty")


def row_from_line(line: str) -> Any:
    """The row that a line holds; the line itself if it cannot be read."""
    try:
        return json.loads(line, object_pairs_hook=_with_names_once)
    except (ValueError, RecursionError):
        return line


class LineCopy:
    """A copy of lines that can be read once. A long copy is a file without a name, which closing it
    removes."""

    def __init__(self) -> None:
        # Closed by __exit__.
        self._file = SpooledTemporaryFile(COPY_BYTES_IN_MEMORY_MAX)  # noqa: SIM115

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, line: str) -> None:
        """Keep a line. JSON takes a carriage return for the same as a line feed, so none is left
        within the line."""
        text = line.rstrip("\n").replace("\n", "\r")
        self._file.write(text.encode("utf-8", "surrogatepass") + b"\n")

    def rows(self) -> Iterator[Any]:
        """The rows of the lines, from the first."""
        self._file.seek(0)
        for line in self._file:
            yield row_from_line(line.decode("utf-8", "surrogatepass"))


def _with_names_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(fields := dict(pairs)) < len(pairs):
        raise ValueError("a name that is repeated")
    return fields


def _is_head(row: Any) -> bool:
    """Entries have a time at which they were made, as else they would not be found; heads have
    none."""
    return isinstance(row, dict) and "head_hash" in row and "created_at" not in row


def _head_from(row: dict[str, Any], number: int) -> StoredHead:
    owner_id = row.pop("owner_id", None)
    unit = row.pop("unit", CREDIT)
    if not isinstance(owner_id, str) or not isinstance(unit, str):
        raise InvalidRequestError(f"line {number}: this head is malformed: it has no owner or unit")
    if same(row.get("v"), FORMAT_VERSION):  # any other version stays, as an unknown field
        del row["v"]
    return StoredHead(owner_id, row, unit)
