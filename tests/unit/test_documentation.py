"""The pages agree with the code: links, targets, codes, commands, limits and proofs."""

import argparse
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from functions.example_app.app import create_app
from infra.dynamodb import template
from ledger_core import BaseLedgerOperations, ConfigurationError
from ledger_core.audit.findings import FindingKind
from ledger_core.cli import commands
from ledger_core.cli.commands import SEGMENTS_AT_ONCE_MAX
from ledger_core.fields import (
    AMOUNT_MAX,
    BALANCE_MAX,
    METADATA_BYTES_MAX,
    METADATA_KEY_LENGTH_MAX,
    METADATA_KEYS_MAX,
    NONCE_LENGTH_MAX,
    OWNER_ID_LENGTH_MAX,
)
from ledger_core.http.middleware import BODY_BYTES_MAX
from ledger_core.http.openapi import ERRORS
from ledger_core.http.problems import CODE
from ledger_core.http.router import HISTORY_LIMIT_DEFAULT, HISTORY_LIMIT_MAX
from tests.fakes.pages import FENCE, PAGES, ROOT, anchors, blocks, files, links, page, section
from tests.invariants import INVARIANTS

README_LINES_MAX = 150
PROOF = re.compile(r"\[`(test_\w+)`\]\(([\w/.]+\.py)\)")
VARIABLE = re.compile(r'"(LEDGER_[A-Z_]+)"')
TARGET = re.compile(r"(?:^|[ (])make (?:-s )?([a-z][a-z0-9-]*)", flags=re.MULTILINE)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", files(), ids=name_of)
def test_every_link_leads_somewhere(path: Path) -> None:
    """Every relative link is to a file of the repository, and every anchor to a heading of it."""
    broken = []
    for link in links(path):
        if re.match(r"https?://", link):
            continue
        place, _, anchor = link.partition("#")
        target = (path.parent / place).resolve() if place else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_front_page_is_short() -> None:
    """The README is short and links to every page."""
    text = page("README")
    assert len(text.splitlines()) <= README_LINES_MAX
    for path in PAGES.values():
        assert f"({name_of(path)})" in text or path == PAGES["README"]


def makefile() -> str:
    return (ROOT / "Makefile").read_text()


def phony_targets() -> set[str]:
    """The targets that are commands."""
    (line,) = re.findall(r"^\.PHONY: (.*)$", makefile(), flags=re.MULTILINE)
    return set(line.split())


def test_help_has_a_line_for_every_target() -> None:
    """`make help` says in one line what each target does, and lists nothing else."""
    done = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert set(lines) == phony_targets()
    assert all(len(text) > 10 for text in lines.values())


def test_pages_name_targets_that_exist_and_all_of_them() -> None:
    """Every `make …` of a page is a target, and every target is in a page."""
    named: set[str] = set()
    for path in files():
        text = path.read_text()
        if path.name != "CHANGELOG.md":
            code = [*re.findall(r"`([^`]+)`", FENCE.sub("", text)), *FENCE.findall(text)]
            named |= {target for part in code for target in TARGET.findall(part)}
    assert named == phony_targets()


@pytest.mark.parametrize(("target", "part"), [("run", "-m infra.run"), ("test", "-m pytest")])
def test_main_targets_run_the_tested_programs(target: str, part: str) -> None:
    """`make run` starts the server and `make test` the tests that the end-to-end tests use."""
    command = ["make", "-n", target]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert part in done.stdout


@pytest.mark.slow
def test_snippets_are_one_program() -> None:
    """The Python of all pages, in order, is an app that lists its operation and has rewards."""
    sources = [source for name in PAGES for source in blocks(name, "python")]
    assert len(sources) == 5
    printing = (
        "import json; print(json.dumps(app.openapi()['components']['schemas']['EntryRequest']))"
    )
    program = "\n".join([*sources, printing])
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "LEVEL_UP" in json.loads(done.stdout)["properties"]["operation"]["enum"]


def test_every_error_code_is_in_the_table() -> None:
    """The page has a row for each code of an answer."""
    rows = [row for row in section("functions", "Errors").splitlines() if row.startswith("| `")]
    codes = {code for row in rows for code in re.findall(r"`(\w+)`", row.split("|")[1])}
    answered = {error.code for error in ERRORS if error is not ConfigurationError}
    assert codes == answered | {*CODE.values()}


def test_every_route_is_in_the_table() -> None:
    """The page has every route of the Example App, by method and path."""
    table = section("functions", "Routes")
    for path, operations in create_app().openapi()["paths"].items():
        for method in operations:
            assert f"`{method.upper()} {path}" in table


def test_every_finding_is_in_the_table() -> None:
    """The table has a row for exactly each kind of finding."""
    table = section("functions", "Verify it yourself")
    assert re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE) == [
        str(kind) for kind in FindingKind
    ]


def test_every_command_and_option_is_in_the_page() -> None:
    """The page names every command of `ledger`, and every option that it has."""
    text = page("functions")
    (subcommands,) = (
        action
        for action in commands._parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    for name, parser in subcommands.choices.items():
        assert f"| `ledger {name} " in text
        for action in parser._actions:
            for option in action.option_strings:
                assert option in {"-h", "--help"} or f"`{option}" in text
    assert f"1 to {SEGMENTS_AT_ONCE_MAX} |" in text


def test_limits_are_those_of_the_code() -> None:
    """The table of limits has the numbers of the code."""
    table = section("functions", "Fields and limits")
    rows = dict(re.findall(r"^\| `?([\w ]+)`?[^|]* \| (.*) \|$", table, flags=re.MULTILINE))
    assert f"1 to {OWNER_ID_LENGTH_MAX} characters" in rows["owner_id"]
    assert f"1 to {NONCE_LENGTH_MAX} characters" in rows["nonce"]
    assert f"never above {AMOUNT_MAX:,};" in rows["amount"]
    assert f"{METADATA_KEYS_MAX} keys of 1 to {METADATA_KEY_LENGTH_MAX} char" in rows["metadata"]
    assert f"{METADATA_BYTES_MAX:,} bytes in all" in rows["metadata"]
    assert f"{BALANCE_MAX:,} " in rows["balance"]
    assert (
        rows["page of history"]
        == f"{HISTORY_LIMIT_DEFAULT} entries by default, {HISTORY_LIMIT_MAX} at most"
    )
    assert rows["body"] == f"{BODY_BYTES_MAX // 1024} KiB"


def test_shared_operations_are_the_table() -> None:
    """The table of shared operations has the amounts, bounds and rights of the code."""
    for name, config in BaseLedgerOperations.get_operation_config().items():
        (row,) = (row for row in page("functions").splitlines() if row.startswith(f"| `{name}` |"))
        chosen = "no"
        if config.magnitude_min:
            chosen = f"{config.magnitude_min:,} to {config.magnitude_max:,}"
        own = "yes" if config.self_service else "no"
        assert row == f"| `{name}` | {config.amount:+d} | {chosen} | {own} |"


def test_every_variable_is_in_the_table() -> None:
    """The page has each `LEDGER_` variable that the code reads."""
    sources = [*ROOT.glob("ledger_core/**/*.py"), *ROOT.glob("functions/**/*.py")]
    read = {name for path in sources for name in VARIABLE.findall(path.read_text())}
    table = section("functions", "Settings")
    assert read >= {"LEDGER_ENTRIES_TABLE", "LEDGER_AUTH"}
    assert {name for name in read if f"`{name}`" not in table} == set()


def test_every_parameter_is_in_the_operators_page() -> None:
    """Every parameter of the stack has a row that says what it decides."""
    first_columns = " ".join(re.findall(r"^\| ([^|]*) \|", page("infra"), flags=re.MULTILINE))
    assert {name for name in template()["Parameters"] if f"`{name}`" not in first_columns} == set()


def test_every_package_is_in_the_house() -> None:
    """The table of packages has every package of the library."""
    packages = {path.parent.name for path in ROOT.glob("ledger_core/*/__init__.py")}
    table = section("ledger_core", "Packages")
    assert {name for name in packages if f"| `ledger_core.{name}` |" not in table} == set()


@pytest.mark.parametrize("name", ["README", "tests"])
def test_every_proof_exists(name: str) -> None:
    """Each guarantee links to tests that exist."""
    folder = PAGES[name].parent
    proofs = PROOF.findall(page(name))
    assert len(proofs) >= 8
    assert [
        test for test, path in proofs if f"def {test}(" not in (folder / path).read_text()
    ] == []


def test_every_invariant_is_in_the_table() -> None:
    """Each invariant has a row with a ledger that breaks it."""
    rows = re.findall(r"^\| `(\w+)` \|", section("tests", "Invariants"), flags=re.MULTILINE)
    assert rows == [invariant.__name__ for invariant in INVARIANTS]


def test_version_is_that_of_the_changelog() -> None:
    """The last release in the changelog is the version of the project, which is written once."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    released = re.findall(
        r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE
    )
    assert released[:1] in ([], [project["version"]])
    sources = [
        *ROOT.glob("ledger_core/**/*.py"),
        *ROOT.glob("functions/**/*.py"),
        ROOT / "template.yaml",
    ]
    assert [path for path in sources if f'"{project["version"]}"' in path.read_text()] == []
