"""The simulator: new repeatable histories each time, and broken ledgers, which it must catch."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import pytest

from tests.fakes.apps import GameOperations
from tests.fakes.pages import page
from tests.invariants import INVARIANTS
from tests.simulator.broken import BROKEN, Broken, Naive
from tests.simulator.explore import explore, failure, retold, shrunk
from tests.simulator.simulation import Simulation
from tests.simulator.world import FAULTS, Choices
from tests.support import DEEP, ROOT, new_seed

SEEDS = 20_000 if DEEP else 2_000
STEPS = 400 if DEEP else 120
BROKEN_SEEDS_MAX = 300
"""By which a broken ledger must have been caught."""
LONG_SEED = 1
"""Of a long history in which an account from a cache breaks an invariant."""
README_SEED = 18
README_STEPS = 80
"""Of the history that the README shows."""


def test_invariants_hold_whatever_happens(record_property: Callable[[str, object], None]) -> None:
    """Clients, Lambdas and workers with all faults and crashes break no invariant, by new seeds."""
    first = new_seed()
    explored = explore(range(first, first + SEEDS), steps=STEPS)
    for name, count in {
        "seeds": explored.seeds,
        "steps": explored.steps,
        **explored.counts,
    }.items():
        record_property(name, count)
    assert not explored.failed, "\n".join(
        [
            f"make simulate SEED={seed} STEPS={STEPS}: {what}"
            for seed, what in explored.failed.items()
        ][:5]
    )
    assert explored.seeds == SEEDS
    for what in (*FAULTS, "crash", "accepted", "duplicate", "refused", "in doubt"):
        assert explored.counts[what] > SEEDS // 10, what


def test_same_seed_makes_the_same_history() -> None:
    """What is printed is the same every time, in another process and whatever Python hashes by."""
    command = [sys.executable, "-m", "tests.simulator", "--seed", "7", "--steps", "400"]
    told = [
        subprocess.check_output(
            command, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": hash_seed}, text=True
        )
        for hash_seed in ("1", "2")
    ]
    assert told[0] == told[1]
    assert len(told[0].splitlines()) > 100
    assert told[0].endswith("all invariants hold\n")


def test_operations_of_another_app_are_simulated_too(
    record_property: Callable[[str, object], None],
) -> None:
    """An app's own operations and its own schedule, for who wants them proved."""
    first, new = new_seed(), partial(Simulation, operations=GameOperations, others=())
    explored = explore(range(first, first + 50), new, steps=STEPS, jobs=1)
    record_property("seeds", explored.seeds)
    assert not explored.failed
    told = "\n".join(line for seed in range(5) for line in retold(Choices(seed), new))
    assert "LEVEL_UP" in told
    assert "REVIVE" in told
    assert "ledger:@game:level-up:2026-11-22" in told


@pytest.mark.parametrize("name", BROKEN)
def test_broken_ledger_is_caught_by_name(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    """A ledger with a well-known mistake is caught, by the invariant that is there for it."""
    broken = BROKEN[name]
    assert broken.invariant in {invariant.__name__ for invariant in INVARIANTS}
    new = simulation_of(broken)
    for seed in range(BROKEN_SEEDS_MAX):
        if f"{broken.invariant}: " in failure(Choices(seed), new, steps=STEPS):
            record_property("caught by", broken.invariant)
            record_property("after histories", seed + 1)
            return
    raise AssertionError(f"{broken.invariant} did not catch it in {BROKEN_SEEDS_MAX} histories")


def test_naive_ledger_without_a_mistake_is_not_accused() -> None:
    """What the broken ones are made from passes: it is their mistakes that are caught."""
    new = simulation_of(Broken(Naive, ""))
    assert [failure(Choices(seed), new, steps=STEPS) for seed in range(50)] == [""] * 50


def test_failing_history_shrinks_to_one_that_a_person_can_read() -> None:
    """A long history that fails becomes a short history that fails in the same way."""
    new = simulation_of(BROKEN["account from a cache without condition"])
    choices = shrunk(LONG_SEED, new)
    short = retold(Choices(repeat=choices), new)
    long = retold(Choices(LONG_SEED), new)
    assert short[-1].partition(":")[0] == long[-1].partition(":")[0] == "conservation"
    assert short == retold(Choices(repeat=choices), new)
    assert len(short) < min(40, len(long) / 3)


def test_history_in_the_page_is_the_one_that_is_printed() -> None:
    """The page shows what its command prints last."""
    new = simulation_of(BROKEN["balance before nonce"])
    choices = shrunk(README_SEED, new, steps=README_STEPS)
    history = retold(Choices(repeat=choices), new, steps=README_STEPS)
    assert "\n".join(history) in page("tests")


def simulation_of(broken: Broken) -> Callable[..., Simulation]:
    return partial(
        Simulation, ledger=broken.ledger, owners=broken.owners, rewards=False, others=broken.others
    )
