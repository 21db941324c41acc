"""`make run` without make: a server that tests start, kill and start again on the same data."""

import contextlib
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx

from infra.processes import free_port
from tests.support import ROOT

START_SECONDS_MAX = 60
OF_FILES = (
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
)
"""The variables that name AWS's files and what is in them."""


class Server:
    """A server in its own process. `variables` are those that it prints for other tools."""

    def __init__(self, folder: Path, *options: str) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.data = folder / "data"
        self.log = folder / "server.log"
        program = [sys.executable, "-m", "infra.run"]
        self.command = [*program, "--port", str(port), "--data", str(self.data), *options]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, **environment: str) -> None:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command, cwd=ROOT, stdout=log, stderr=log, env=environment or None
            )
        deadline = time.monotonic() + START_SECONDS_MAX
        while True:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health", trust_env=False).status_code == 200:
                    return
            time.sleep(0.1)

    def stop(self, number: signal.Signals) -> str:
        """End the server by a signal, and return what it printed."""
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(START_SECONDS_MAX)
        return self.log.read_text()

    @property
    def variables(self) -> dict[str, str]:
        (exports,) = re.findall(r"export (.*)", self.log.read_text())
        return dict(variable.split("=", 1) for variable in shlex.split(exports))

    @property
    def place(self) -> dict[str, str]:
        """The variables for this process, which has read AWS's files already."""
        return {name: value for name, value in self.variables.items() if name not in OF_FILES}

    def has_children(self) -> bool:
        """Whether the server's DynamoDB Local runs."""
        command = ["pgrep", "-f", str(self.data)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
