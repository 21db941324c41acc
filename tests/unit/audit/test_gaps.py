"""The gaps of a reading: the ids of the entries that it did not show."""

from ledger_core.audit.gaps import Gaps, common, is_among


def test_common_gaps_are_those_of_both_readings() -> None:
    """The common gaps of two readings are sorted ranges of ids."""
    some = [range(1, 3), range(5, 9)]
    others = [range(2, 6), range(7, 8)]
    assert common(some, others) == common(others, some) == [range(2, 3), range(5, 6), range(7, 8)]
    assert common([range(1, 2)], [range(3, 4)]) == common([], others) == []


def test_late_entry_closes_its_gap() -> None:
    """Gaps end at the entry count; a malformed id closes no gap, a malformed count has no gaps."""
    gaps = Gaps()
    for entry_id in (2, 7, 4, 7, "5", True, 0):
        gaps.add({"id": entry_id})
    assert gaps.of(9) == [range(1, 2), range(3, 4), range(5, 7), range(8, 10)]
    assert gaps.of(5) == [range(1, 2), range(3, 4), range(5, 6)]
    assert gaps.of("9") == gaps.of(True) == []
    assert [number for number in range(10) if is_among(gaps.of(9), number)] == [1, 3, 5, 6, 8, 9]
