"""The commands of the pages run against the server of `make run`, and print what the pages say."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.server import Server
from tests.fakes.pages import PAGES, blocks, exchanges

VARIES = [
    (r"(?<=for |ard:)\d{4}-\d\d-\d\d", "DAY"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", "TIME"),
    (r"(?!0{64})[0-9a-f]{64}", "HASH"),
    (r'"(dynamodb_requests|read_units|write_units|seconds)":[0-9.]+', r'"\1":NUMBER'),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID"),
]
COMMANDS_MIN = {"README": 3, "functions": 20, "ledger_core": 3}
"""The least number of commands of a page, so that no mistake of the test skips a page."""


def constant(text: str) -> str:
    """A text without the parts that differ from run to run, and without trailing spaces."""
    for pattern, name in VARIES:
        text = re.sub(pattern, name, text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def test_every_page_with_commands_is_executed() -> None:
    """A page with console blocks is one of those that are executed."""
    assert {name for name in PAGES if blocks(name, "console")} == set(COMMANDS_MIN)


@pytest.mark.parametrize("page", COMMANDS_MIN)
def test_commands_print_what_the_page_says(server: Server, tmp_path: Path, page: str) -> None:
    """Every command of a page, in order, in a shell, against a server with an empty ledger."""
    server.start()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"PATH": path, "HOME": str(tmp_path), **server.variables}
    (tmp_path / ".venv").symlink_to(sys.prefix)
    count = 0
    for documented, output in exchanges(page):
        command = documented.replace("http://127.0.0.1:8000", server.url)
        bash = subprocess.run(
            ["bash", "-c", command],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert constant(bash.stdout) == constant(output), command + bash.stderr
        count += 1
    assert count >= COMMANDS_MIN[page]
    server.stop(signal.SIGTERM)
