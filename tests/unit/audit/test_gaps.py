"""Which entries a reading did not come upon."""

from ledger_core.audit.gaps import Gaps, common, is_among


def test_gaps_are_what_two_readings_have_in_common() -> None:
    """In order, whatever their ends are."""
    some, others = [range(1, 3), range(5, 9)], [range(2, 6), range(7, 8)]
    assert common(some, others) == common(others, some) == [range(2, 3), range(5, 6), range(7, 8)]
    assert common([range(1, 2)], [range(3, 4)]) == common([], others) == []


def test_gaps_are_closed_by_what_comes_late() -> None:
    """Up to the count of entries, if it is one; what has no id closes nothing."""
    gaps = Gaps()
    for entry_id in (2, 7, 4, 7, "5", True, 0):
        gaps.add({"id": entry_id})
    assert gaps.of(9) == [range(1, 2), range(3, 4), range(5, 7), range(8, 10)]
    assert gaps.of(5) == [range(1, 2), range(3, 4), range(5, 6)]
    assert gaps.of("9") == gaps.of(True) == []
    assert [one for one in range(10) if is_among(gaps.of(9), one)] == [1, 3, 5, 6, 8, 9]
