"""The time of importing a module, by the modules that it imports, as a flame graph."""

import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from infra.build import LAMBDA_PYTHON

__all__ = ["packages", "written"]

Stacks = Mapping[tuple[str, ...], int]
"""Microseconds of each module alone, by the path of its imports, the outermost first."""

LINE = re.compile(r"import time: +(\d+) \| +\d+ \| ( *)(\S+)")


def written(module: str, artifact: Path, environment: Mapping[str, str], file: Path) -> Stacks:
    """The stacks of a module in an artifact. They are also written to a file for flame graphs."""
    program = f"import awslambdaric.bootstrap, {module}"
    python = subprocess.run(
        [str(LAMBDA_PYTHON), "-X", "importtime", "-c", program],
        env={**environment, "PATH": os.environ["PATH"]},
        cwd=artifact,
        capture_output=True,
        text=True,
        check=True,
    )
    stacks = dict(_stacks(python.stderr))
    lines = [f"{';'.join(stack)} {microseconds}\n" for stack, microseconds in stacks.items()]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(lines))
    return stacks


def packages(stacks: Stacks) -> list[tuple[str, float]]:
    """The packages and their shares of the time, the largest first."""
    of_package: Counter[str] = Counter()
    for stack, microseconds in stacks.items():
        of_package[stack[-1].partition(".")[0]] += microseconds
    total = of_package.total()
    return [(package, microseconds / total) for package, microseconds in of_package.most_common()]


def _stacks(printed: str) -> Iterator[tuple[tuple[str, ...], int]]:
    """Python prints a module after the modules that it imports, so read from the end."""
    path: list[str] = []
    for microseconds, indent, name in reversed(LINE.findall(printed)):
        path[len(indent) // 2 :] = [name]
        yield tuple(path), int(microseconds)
