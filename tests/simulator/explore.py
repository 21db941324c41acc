"""Many histories from seeds; and for one that fails, a short one that fails in the same way."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from typing import Any

from tests.simulator.simulation import Simulation
from tests.simulator.world import Choices

__all__ = ["STEPS", "Explored", "explore", "failure", "retold", "shrunk"]

STEPS = 300
"""After how many the faults of a history cease, unless it is told otherwise."""
SHRINKING_RUNS_MAX = 3000

New = Callable[..., Simulation]
"""Makes a simulation of choices: `Simulation`, with what else it is to be given."""


@dataclass
class Explored:
    """What came of some seeds."""

    seeds: int = 0
    steps: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    """Requests to DynamoDB, answers by their outcome, faults by their kind."""
    failed: dict[int, str] = field(default_factory=dict)
    """Seeds that contradict the invariants, and the first contradiction."""

    def add(self, other: "Explored") -> None:
        self.seeds += other.seeds
        self.steps += other.steps
        self.counts += other.counts
        self.failed |= other.failed


def explore(
    seeds: Sequence[int], new: New = Simulation, *, steps: int = STEPS, jobs: int | None = None
) -> Explored:
    """Live the history of every seed, in as many processes as there are processors."""
    total, jobs = Explored(), jobs or os.cpu_count() or 1
    parts = [seeds[first : first + 50] for first in range(0, len(seeds), 50)]
    with ProcessPoolExecutor(jobs, get_context("spawn")) as processes:
        for part in processes.map(partial(_explored, new=new, steps=steps), parts):
            total.add(part)
    return total


def failure(choices: Choices, new: New = Simulation, *, steps: int = STEPS, **options: Any) -> str:
    """The first contradiction in a history, or nothing; one that ends in an error is one too."""
    return _lived(new(choices, steps, **options))


def retold(choices: Choices, new: New = Simulation, *, steps: int = STEPS) -> list[str]:
    """A history step by step, and what contradicts the invariants in it."""
    lines: list[str] = []
    found = failure(choices, new, steps=steps, tell=lines.append)
    return [*lines, found or "all invariants hold"]


def shrunk(
    seed: int, new: New = Simulation, *, steps: int = STEPS, runs: int = SHRINKING_RUNS_MAX
) -> dict[str, list[int]]:
    """The choices of a short history in which the same invariant fails as in that of a seed.

    In each stream, leave choices out in ever smaller parts, or use 0, as long as the failure stays.
    """
    whole = Choices(seed)
    invariant = failure(whole, new, steps=steps).partition(":")[0]
    best = whole.made

    def better(name: str, stream: list[int]) -> bool:
        nonlocal best, runs
        if not runs or stream == best[name]:
            return False
        runs -= 1
        candidate = {**best, name: stream}
        if failure(Choices(repeat=candidate), new, steps=steps).partition(":")[0] != invariant:
            return False
        best = candidate
        return True

    before = None
    while runs and best != before:
        before = best
        for name in sorted(best, key=lambda name: -len(best[name])):
            size = 2 * len(best[name])
            while size := size // 2:
                for first in range(len(best[name]) - size, -size, -size):
                    stream = best[name]
                    head, tail = stream[: max(first, 0)], stream[max(first, 0) + size :]
                    if not better(name, [*head, *tail]):
                        better(name, [*head, *[0] * (len(stream) - len(head) - len(tail)), *tail])
    return best


def _explored(seeds: Iterable[int], *, new: New, steps: int) -> Explored:
    explored = Explored()
    for seed in seeds:
        simulation = new(Choices(seed), steps)
        if found := _lived(simulation):
            explored.failed[seed] = found
        explored.seeds += 1
        explored.steps += simulation.world.steps
        explored.counts.update(simulation.world.faults)
        explored.counts.update(str(one.outcome) for one in simulation.answers)
        explored.counts["requests to DynamoDB"] += simulation.world.requests
        explored.counts["entries"] += sum(len(book.entries) for book in simulation.books)
    return explored


def _lived(simulation: Simulation) -> str:
    try:
        return "\n".join(map(str, simulation.run()))
    except Exception as error:  # of the ledger, or because the world does not come to an end
        return f"{type(error).__name__}: {error}"
