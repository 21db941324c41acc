"""The table of the benchmarks. A figure is a count, or a ratio to a figure of the same run."""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

__all__ = ["Part", "Row", "Sample", "count", "interleaved", "lines", "ratio", "ratio_of_medians"]

WIDTHS = (68, 18, 16)
Sample = list[float]


class Row(NamedTuple):
    """A figure with its goal, if it has one."""

    what: str
    figure: str
    goal: str = ""
    met: bool | None = None


class Part(NamedTuple):
    """A group of figures, with the method by which they were measured."""

    title: str
    method: str
    rows: list[Row]


def count(what: str, number: float, *, exactly: float | None = None, unit: str = "") -> Row:
    """A row of a number that was counted; `exactly` is the goal."""
    figure = f"{number:,.4g} {unit}".rstrip()
    if exactly is None:
        return Row(what, figure)
    goal = f"{exactly:,.4g} {unit}".rstrip()
    return Row(what, figure, f"exactly {goal}", number == exactly)


def ratio(
    what: str, number: float, *, at_most: float | None = None, at_least: float | None = None
) -> Row:
    """A row of a ratio of two figures of the same run."""
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
    """The seconds per call of each candidate in each round.

    The candidates take turns, so that a slow moment of the machine slows all of them.
    """
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
    """The median of a sample, divided by the median of a base."""
    return statistics.median(sample) / statistics.median(base)


def lines(parts: Iterable[Part]) -> Iterator[str]:
    """The lines of the table."""
    words = {True: "met", False: "MISSED", None: ""}
    yield _line(("", "figure", "goal"))
    for part in parts:
        yield ""
        yield f"{part.title}: {part.method}"
        for row in part.rows:
            yield _line((f"  {row.what}", row.figure, row.goal)) + words[row.met]


def _line(cells: tuple[str, str, str]) -> str:
    what, figure, goal = cells
    return f"{what:<{WIDTHS[0]}}{figure:>{WIDTHS[1]}}  {goal:<{WIDTHS[2]}} "
