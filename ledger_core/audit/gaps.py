"""Which entries of a ledger a reading did not come upon, by their ids; in flat memory, as they are
few or in a row."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ledger_core.fields import BALANCE_MAX

__all__ = ["Gaps", "common", "is_among"]


class Gaps:
    """Follows a reading, whatever is in its rows."""

    def __init__(self) -> None:
        self._next, self._gaps = 1, list[range]()

    def add(self, row: Mapping[str, Any]) -> None:
        """The next row."""
        entry_id = row.get("id")
        if type(entry_id) is not int or entry_id < 1:
            return
        if entry_id > self._next:
            self._gaps.append(range(self._next, entry_id))
        if entry_id >= self._next:
            self._next = entry_id + 1
        elif is_among(self._gaps, entry_id):
            at = bisect_right(self._gaps, entry_id, key=lambda gap: gap.start) - 1
            gap = self._gaps[at]
            parts = range(gap.start, entry_id), range(entry_id + 1, gap.stop)
            self._gaps[at : at + 1] = [part for part in parts if part]

    def of(self, entry_count: Any) -> list[range]:
        """Those up to a count of entries, if it is one."""
        end = min(entry_count, BALANCE_MAX) + 1 if type(entry_count) is int else 1
        gaps = (
            range(gap.start, min(gap.stop, end)) for gap in (*self._gaps, range(self._next, end))
        )
        return [gap for gap in gaps if gap]


def common(left: Sequence[range], right: Sequence[range]) -> list[range]:
    """What both have; each is in order and without overlap."""
    return list(_common(left, right))


def is_among(gaps: Sequence[range], entry_id: int) -> bool:
    """Whether an id is in one of them; they are in order and do not overlap."""
    at = bisect_right(gaps, entry_id, key=lambda gap: gap.start) - 1
    return at >= 0 and entry_id in gaps[at]


def _common(left: Sequence[range], right: Sequence[range]) -> Iterator[range]:
    at_left = 0
    at_right = 0
    while at_left < len(left) and at_right < len(right):
        first = left[at_left]
        second = right[at_right]
        if both := range(max(first.start, second.start), min(first.stop, second.stop)):
            yield both
        if first.stop < second.stop:
            at_left += 1
        else:
            at_right += 1
