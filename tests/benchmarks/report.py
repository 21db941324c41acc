"""What the benchmarks print: one table, in which every figure is a count, or a ratio to something in the same run."""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

__all__ = ["Part", "Row", "Sample", "count", "interleaved", "lines", "ratio", "ratio_of_medians"]

WIDTHS = (68, 18, 16)
Sample = list[float]


class Row(NamedTuple):
    """One figure, and what was to be reached, if anything."""

    what: str
    figure: str
    goal: str = ""
    met: bool | None = None


class Part(NamedTuple):
    """What belongs together: how it was measured, and what came out."""

    title: str
    method: str
    rows: list[Row]


def count(what: str, number: float, *, exactly: float | None = None, unit: str = "") -> Row:
    """A row of something that was counted; `exactly` is the goal."""
    figure, goal = (f"{n:,.4g} {unit}".rstrip() for n in (number, exactly or 0))
    return (
        Row(what, figure)
        if exactly is None
        else Row(what, figure, f"exactly {goal}", number == exactly)
    )


def ratio(
    what: str, number: float, *, at_most: float | None = None, at_least: float | None = None
) -> Row:
    """A row of how many times as much something is as something else in the same run."""
    figure = f"{number:.2f} x"
    if at_most is not None:
        return Row(what, figure, f"at most {at_most:g} x", number <= at_most)
    if at_least is not None:
        return Row(what, figure, f"at least {at_least:g} x", number >= at_least)
    return Row(what, figure)


def interleaved(
    candidates: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    calls: int = 1,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, Sample]:
    """Seconds per call of each candidate in each round, in turn, so that what slows the machine slows all alike."""
    for call in candidates.values():
        for _ in range(calls):
            call()
    samples: dict[str, Sample] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, call in candidates.items():
            begun = clock()
            for _ in range(calls):
                call()
            samples[name].append((clock() - begun) / calls)
    return samples


def ratio_of_medians(sample: Iterable[float], base: Iterable[float]) -> float:
    """How many times as much the one is as the other."""
    return statistics.median(sample) / statistics.median(base)


def lines(parts: Iterable[Part]) -> Iterator[str]:
    """The table."""
    yield _line(("", "figure", "goal"))
    for part in parts:
        yield ""
        yield f"{part.title}: {part.method}"
        for row in part.rows:
            yield (
                _line((f"  {row.what}", row.figure, row.goal))
                + {True: "met", False: "MISSED", None: ""}[row.met]
            )


def _line(cells: tuple[str, str, str]) -> str:
    what, figure, goal = cells
    return f"{what:<{WIDTHS[0]}}{figure:>{WIDTHS[1]}}  {goal:<{WIDTHS[2]}} "
