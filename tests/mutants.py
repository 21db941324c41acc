"""Finds changes to the library that no test notices; fails unless `mutants.md` explains each.

    make mutants
    make mutants ONLY="ledger_core/periods.py ledger_core/http/authorization.py"

mutmut makes small changes, one at a time, to the functions that `[tool.mutmut]` of pyproject.toml
selects. It runs the tests that call the function, with this file as pytest's plugin, on links in
its own directory.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from infra.dynamodb import dynamodb_local
from tests.support import DYNAMODB_LOCAL, ROOT

__all__ = ["EXPLAINED", "SUMMARY", "Mutant", "chosen", "explained", "main"]

EXPLAINED = ROOT / "tests/mutants.md"
WORKSPACE = ROOT / ".local/mutants"
SUMMARY = WORKSPACE / "summary.txt"
LINKS = ("functions", "infra", "ledger_core", "pyproject.toml", "template.yaml", "tests")
WORKERS = 2
NOTICED = {"killed", "timeout"}
"""By a test that failed, or that did not end."""


class Mutant(NamedTuple):
    """A change to a line of a function, spaces squeezed."""

    file: str
    function: str
    old: str
    new: str

    def __str__(self) -> str:
        old, new = (text.replace("|", "\\|") for text in (self.old, self.new))
        return f"| {self.file} | {self.function} | `{old}` | `{new}` |"


def explained(table: str) -> dict[Mutant, str]:
    """The mutants in a table, and why each may live."""
    rows = [
        re.split(r"(?<!\\)\|", line)[1:-1]
        for line in table.splitlines()
        if line.startswith("| ledger_core/")
    ]
    cells = [[cell.strip().replace("\\|", "|") for cell in row] for row in rows]
    return {
        Mutant(file, function, old[1:-1], new[1:-1]): why for file, function, old, new, why in cells
    }


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """First the tests that ask no fake of DynamoDB, which are quick."""
    items.sort(key=lambda item: "moto_client" in getattr(item, "fixturenames", ()))


def chosen(names: Sequence[str], files: Sequence[str]) -> list[str]:
    """Those mutants, by mutmut's names, that are of these files; of all when there are none."""
    modules = [".".join(Path(file).with_suffix("").parts) + "." for file in files]
    return [name for name in names if not modules or name.startswith(tuple(modules))]


def main(files: Sequence[str] = ()) -> int:
    """Run all, or those of some files, and print the score and every survivor.

    It is 1 when one is not explained, or an explanation is of none.
    """
    begun = time.monotonic()
    shutil.rmtree(WORKSPACE, ignore_errors=True)
    WORKSPACE.mkdir(parents=True)
    for name in LINKS:
        (WORKSPACE / name).symlink_to(ROOT / name)
    log = WORKSPACE / "mutmut.log"
    print(
        f"This takes hours, unless you name files; progress is in {log.relative_to(ROOT)}.",
        flush=True,
    )
    patterns = [f"{file.removesuffix('.py').replace('/', '.')}.*" for file in files]
    command = [_MUTMUT, "run", "--max-children", str(WORKERS), *patterns]
    with log.open("w") as output, dynamodb_local() as endpoint:
        environment = {**os.environ, DYNAMODB_LOCAL: endpoint}
        subprocess.run(command, cwd=WORKSPACE, env=environment, stdout=output, check=True)
    found = dict(re.findall(r"^ +(\S+): (.+)$", _mutmut("results", "--all", "true"), re.MULTILINE))
    results = [(name, found[name]) for name in chosen(list(found), files)]
    survivors = [_mutant(name) for name, status in results if status not in NOTICED]
    reasons = {
        mutant: why
        for mutant, why in explained(EXPLAINED.read_text()).items()
        if not files or mutant.file in files
    }
    lines = [f"{mutant} {reasons.get(mutant, 'NOT EXPLAINED')}" for mutant in survivors]
    obsolete = reasons.keys() - set(survivors)
    lines += [f"{mutant} explained, and did not survive" for mutant in obsolete]
    unexplained = sum(mutant not in reasons for mutant in survivors)
    killed = len(results) - len(survivors)
    counts = Counter(status for _, status in results)
    minutes = (time.monotonic() - begun) / 60
    lines.append(", ".join(f"{count} {status}" for status, count in counts.most_common()))
    lines.append(
        f"{len(results)} mutants, {killed} killed, {len(survivors) - unexplained} explained, "
        f"{unexplained} not; score {killed / len(results):.1%} in {minutes:.0f} minutes"
    )
    print("\n".join(lines))
    SUMMARY.write_text("\n".join(lines))
    return 1 if unexplained or obsolete else 0


_MUTMUT = str(Path(sys.executable).parent / "mutmut")


def _mutmut(*arguments: str) -> str:
    return subprocess.run(
        [_MUTMUT, *arguments], cwd=WORKSPACE, capture_output=True, text=True, check=True
    ).stdout


def _mutant(name: str) -> Mutant:
    """What mutmut did, of which it shows a diff."""
    shown = _mutmut("show", name)
    (file,) = re.findall(r"^--- (\S+)$", shown, re.MULTILINE)
    old, new = (
        " ".join(
            " ".join(re.findall(rf"^\{sign}(?!\{sign}\{sign} )(.*)$", shown, re.MULTILINE)).split()
        )
        for sign in "-+"
    )
    function = (
        name.rpartition("__mutmut_")[0]
        .rpartition(".")[2]
        .removeprefix("x_")
        .removeprefix("xǁ")
        .replace("ǁ", ".")
    )
    return Mutant(file, function, old, new)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
