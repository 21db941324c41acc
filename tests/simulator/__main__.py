"""`make simulate`: histories from new seeds, or a history again; also with an app's operations."""

import argparse
import sys
from functools import partial
from importlib import import_module
from random import SystemRandom

from tests.simulator.broken import BROKEN
from tests.simulator.explore import STEPS, explore, retold, shrunk
from tests.simulator.simulation import Simulation
from tests.simulator.world import Choices

SEEDS = 1000


def main() -> int:
    """0 when the invariants hold, 1 when they do not."""
    options = _parser().parse_args()
    module, _, name = options.operations.partition(":")
    new = partial(Simulation, operations=getattr(import_module(module), name))
    if options.broken:
        broken = BROKEN[options.broken]
        new = partial(new, ledger=broken.ledger, owners=broken.owners, rewards=False)
    if options.seed is not None:
        history = retold(Choices(options.seed), new, steps=options.steps)
        print("\n".join(history))
        failed = [] if history[-1].startswith("all") else [options.seed]
    else:
        first = SystemRandom().randrange(2**32)
        print(
            f"seeds {first} to {first + options.seeds - 1}, {options.steps} steps with faults each",
            flush=True,
        )
        explored = explore(range(first, first + options.seeds), new, steps=options.steps)
        for what, count in sorted(explored.counts.items()):
            print(f"{count:10,} {what}")
        failed = list(explored.failed)
        examples = failed[:10] if failed else ""
        print(f"{len(failed)} of {explored.seeds} seeds contradict the invariants {examples}")
    if failed:
        choices = shrunk(failed[0], new, steps=options.steps)
        print(f"\nseed {failed[0]} and {options.steps} steps, as short as it gets:")
        print("\n".join(retold(Choices(repeat=choices), new, steps=options.steps)))
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="simulate", description=__doc__)
    parser.add_argument(
        "--seed", type=int, help="retell the history of this seed; it is the same every time"
    )
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many new ones to try")
    parser.add_argument("--steps", type=int, default=STEPS, help="after how many the faults cease")
    parser.add_argument(
        "--operations",
        default="functions.example_app.operations:ExampleAppOperations",
        help="module:class of an app's operations",
    )
    parser.add_argument(
        "--broken", choices=BROKEN, help="simulate a ledger that is wrong in this way"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
