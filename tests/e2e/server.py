"""`make run`, less make: started, killed and started again on one port, over one data folder."""

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


class Server:
    """A server in a process of its own; `variables` are those that it tells people to give to other tools."""

    def __init__(self, folder: Path, *options: str) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.data = folder / "data"
        self.log = folder / "server.log"
        self.command = [
            sys.executable,
            "-m",
            "infra.run",
            "--port",
            str(port),
            "--data",
            str(self.data),
            *options,
        ]
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
        """End it by a signal; what it printed."""
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
        """Those of them that say where the ledger is, for this process, whose AWS files were read before."""
        of_files = (
            "AWS_CONFIG_FILE",
            "AWS_SHARED_CREDENTIALS_FILE",
            "AWS_PROFILE",
            "AWS_DEFAULT_PROFILE",
        )
        return {name: value for name, value in self.variables.items() if name not in of_files}

    def has_children(self) -> bool:
        """Whether a DynamoDB Local of ours is still running."""
        return (
            subprocess.run(
                ["pgrep", "-f", str(self.data)], capture_output=True, check=False
            ).returncode
            == 0
        )
