"""The README is executed: its commands against `make run`'s server, its app, its tables against the code."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger_core import BaseLedgerOperations, ConfigurationError
from ledger_core.http.openapi import ERRORS
from ledger_core.http.problems import CODE
from tests.e2e.server import Server
from tests.support import ROOT

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```console\n(.*?)```", README, flags=re.DOTALL)
VARIES = [
    (r"(?<=for |ard:)\d{4}-\d\d-\d\d", "DAY"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", "TIME"),
    (r"(?!0{64})[0-9a-f]{64}", "HASH"),
    (r'"(dynamodb_requests|read_units|write_units|seconds)":[0-9.]+', r'"\1":NUMBER'),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID"),
]


def constant(text: str) -> str:
    """Text with what differs from run to run replaced, and without white space at the ends of lines."""
    for pattern, name in VARIES:
        text = re.sub(pattern, name, text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def exchanges() -> Iterator[tuple[str, str]]:
    """Each command of the README and what it says the command prints."""
    for block in BLOCKS:
        for part in block.split("\n$ "):
            command, *output = re.split(r"(?<!\\)\n", part.removeprefix("$ "), maxsplit=1)
            yield command, "".join(output)


def test_commands_print_what_the_readme_says(server: Server, tmp_path: Path) -> None:
    """Every command, in order, in a shell, against a server with an empty ledger."""
    server.start()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"PATH": path, "HOME": str(tmp_path), **server.variables}
    (tmp_path / ".venv").symlink_to(sys.prefix)
    count = 0
    for command, output in exchanges():
        command = command.replace("http://127.0.0.1:8000", server.url)
        done = subprocess.run(
            ["bash", "-c", command], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert constant(done.stdout) == constant(output), command + done.stderr
        count += 1
    assert count >= 8
    server.stop(signal.SIGTERM)


@pytest.mark.parametrize("target", ["run", "test"])
def test_the_two_commands_are_targets(target: str) -> None:
    """`make run` and `make test` exist and do what the tests here do."""
    assert f"make {target}" in README
    planned = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {"run": "-m infra.run", "test": "-m pytest"}[target] in planned


def test_own_app_in_the_readme_works() -> None:
    """The README's lines are an app whose OpenAPI document lists its operation; with more of them, one with rewards."""
    sources = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(sources) == 3
    printing = "import json; print(json.dumps(app.openapi()['components']['schemas']['EntryRequest']))"
    program = "\n".join([*sources, printing])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "LEVEL_UP" in json.loads(done.stdout)["properties"]["operation"]["enum"]


def test_every_error_code_is_in_the_table() -> None:
    """Whatever code an answer may have, the README says when it comes and what to do."""
    table = README.split("### Errors")[1].split("###")[0]
    codes = {error.code for error in ERRORS if error is not ConfigurationError} | {*CODE.values()}
    assert {code for code in codes if f"`{code}`" not in table} == set()


def test_every_proof_exists() -> None:
    """Each guarantee links to a test that is there."""
    proofs = re.findall(r"\[`(test_\w+)`\]\((tests/[\w/]+\.py)\)", README)
    assert len(proofs) > 10
    assert [name for name, path in proofs if f"def {name}(" not in (ROOT / path).read_text()] == []


def test_shared_operations_are_the_table() -> None:
    """The table of shared operations is the code's."""
    for name, config in BaseLedgerOperations.get_operation_config().items():
        row = next(line for line in README.splitlines() if line.startswith(f"| `{name}`"))
        chosen = f"{config.magnitude_min:,} to {config.magnitude_max:,}" if config.magnitude_min else "no"
        own = "yes" if config.self_service else "no"
        assert row == f"| `{name}` | {config.amount:+d} | {chosen} | {own} |"
