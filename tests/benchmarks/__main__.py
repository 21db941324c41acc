"""All benchmarks of the ledger, or some, in one table.

    make bench                  # all of them
    make bench ONLY="cpu cost"  # some

No figure fails the run, because machines differ. Tests count what must hold on each machine.
"""

import argparse
import importlib
import os
import platform
import sys
from collections.abc import Sequence

from infra.dynamodb import ENVIRONMENT
from tests.benchmarks.report import lines

PARTS = ("requests", "cpu", "cold", "history", "hot", "server", "cost")
"""Modules of this folder, each with `run() -> Part`, in the order of the table."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmarks and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all of them by default"
    )
    chosen = parser.parse_args(arguments).parts or PARTS
    for name in list(os.environ):
        if name.startswith(("AWS_", "LEDGER_")):
            del os.environ[name]  # the machine's variable, which may name another store
    os.environ.update(ENVIRONMENT)
    parts = []
    for name in chosen:
        print(f"Measuring {name}", file=sys.stderr, flush=True)
        parts.append(importlib.import_module(f"tests.benchmarks.{name}").run())
    command = "make bench"
    if chosen != PARTS:
        command += f" ONLY={' '.join(chosen)!r}"
    print(
        f"{command}: {os.cpu_count()} CPUs ({platform.machine()}), "
        f"load average {os.getloadavg()[0]:.2f}, Python {platform.python_version()}, "
        "DynamoDB Local on the same CPUs\n"
    )
    print("\n".join(lines(parts)))


if __name__ == "__main__":
    main()
