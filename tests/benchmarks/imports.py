"""What importing a module takes, by what it imports: Python's own account of it, as a flame graph."""

import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from infra.build import LAMBDA_PYTHON

__all__ = ["packages", "written"]

Stacks = Mapping[tuple[str, ...], int]
"""Microseconds of each module itself, by the modules that it was imported through, the outermost first."""

LINE = re.compile(r"import time: +(\d+) \| +\d+ \| ( *)(\S+)")


def written(module: str, artifact: Path, environment: Mapping[str, str], file: Path) -> Stacks:
    """The stacks of a module in an artifact, also written to a file in the folded form that flame graphs take."""
    program = f"import awslambdaric.bootstrap, {module}"
    told = subprocess.run(
        [str(LAMBDA_PYTHON), "-X", "importtime", "-c", program],
        env={**environment, "PATH": os.environ["PATH"]},
        cwd=artifact,
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    stacks = dict(_stacks(told))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(
        "".join(f"{';'.join(stack)} {microseconds}\n" for stack, microseconds in stacks.items())
    )
    return stacks


def packages(stacks: Stacks) -> list[tuple[str, float]]:
    """The packages whose modules take the time, each for itself, and their shares; the largest first."""
    of_package: Counter[str] = Counter()
    for stack, microseconds in stacks.items():
        of_package[stack[-1].partition(".")[0]] += microseconds
    total = of_package.total()
    return [(package, microseconds / total) for package, microseconds in of_package.most_common()]


def _stacks(told: str) -> Iterator[tuple[tuple[str, ...], int]]:
    """A module is told after those that it imports: read from the end, each comes before what it has imported."""
    path: list[str] = []
    for microseconds, indent, name in reversed(LINE.findall(told)):
        path[len(indent) // 2 :] = [name]
        yield tuple(path), int(microseconds)
