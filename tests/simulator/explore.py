"""Many histories, each from a seed of its own; and of one that fails, a short one that fails in the same way."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
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


def explore(seeds: Sequence[int], new: New = Simulation, *, steps: int = STEPS, jobs: int | None = None) -> Explored:
    """Live the history of every seed, in as many processes as there are processors."""
    total, jobs = Explored(), jobs or os.cpu_count() or 1
    parts = [seeds[first : first + 50] for first in range(0, len(seeds), 50)]
    with ProcessPoolExecutor(jobs) as processes:
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


def shrunk(seed: int, new: New = Simulation, *, steps: int = STEPS, runs: int = SHRINKING_RUNS_MAX) -> list[int]:
    """The choices of a short history in which the same invariant fails as in that of a seed.

    Choices are left out, in ever smaller parts, or made plainer, as long as it fails; 0 is the plainest.
    """
    whole = Choices(seed)
    invariant = failure(whole, new, steps=steps).partition(":")[0]
    best = whole.made

    def better(candidate: Sequence[int]) -> bool:
        nonlocal best, runs
        if not runs or candidate == best:
            return False
        runs -= 1
        choices = Choices(repeat=candidate)
        if failure(choices, new, steps=steps).partition(":")[0] != invariant:
            return False
        best = list(candidate)
        return True

    size = len(best)
    while size := size // 2:
        for first in range(len(best) - size, -size, -size):
            head, tail = best[: max(first, 0)], best[first + size :]
            if not better([*head, *tail]):
                better([*head, *[0] * (len(best) - len(head) - len(tail)), *tail])
    for position in reversed(range(len(best))):
        while position < len(best) and better([*best[:position], best[position] // 2, *best[position + 1 :]]):
            pass
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
