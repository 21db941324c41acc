"""Lambda's runtime on this machine: sam's runtime emulator and the runtime interface client."""

import contextlib
import json
import platform
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from infra.build import LAMBDA_PYTHON
from infra.dynamodb import template
from infra.processes import free_port, running
from tests.support import ROOT

BUILT = ROOT / ".aws-sam/build"
FUNCTIONS = ["ApiFunction", "DailyRewardFunction"]
MACHINE = {"x86_64": "x86_64", "aarch64": "arm64"}.get(platform.machine(), "none")
FIXED = ("PYDANTIC_DISABLE_PLUGINS",)
"""Variables that the template gives functions, whatever the stack."""
SECONDS_MAX = 60


def emulator() -> Path | None:
    """The emulator for this machine, if it was set up."""
    found = [
        *ROOT.glob(
            f".local/sam/lib/python*/site-packages/samcli/local/rapid/aws-lambda-rie-{MACHINE}"
        )
    ]
    return found[0] if found else None


class Runtime:
    """An execution environment. A call sends an event; `log` is what it wrote so far."""

    def __init__(self, url: str, log: Path) -> None:
        self._url = url
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def init_ms(self) -> float:
        """How long the initialization took."""
        (duration,) = re.findall(r"INIT REPORT\(durationMs: ([0-9.]+)\)", self.log)[-1:]
        return float(duration)

    def __call__(self, event: Mapping[str, Any], _context: Any = None) -> dict[str, Any]:
        answer = httpx.post(self._url, json=event, timeout=SECONDS_MAX)
        # A function that ends without an answer is 502 here, and a bare 500 from API Gateway.
        return {} if answer.status_code == 502 else dict(answer.json())

    def kill(self) -> bool:
        """Kill the function's process; the next call starts another. False if no process runs."""
        of_this = rf"^{emulator()} .*{urlsplit(self._url).netloc}"
        (pid,) = subprocess.run(
            ["pgrep", "-f", of_this], capture_output=True, text=True, check=True
        ).stdout.split()
        return subprocess.run(["pkill", "-KILL", "-P", pid], check=False).returncode == 0

    def lines(self) -> list[dict[str, Any]]:
        """The structured lines of its log."""
        return [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]


def runtime(
    folder: Path, environment: Mapping[str, str], function: str = "ApiFunction"
) -> contextlib.AbstractContextManager[Runtime]:
    """An execution environment for the built artifact of a function, without other code."""
    properties = template()["Resources"][function]["Properties"]
    fixed = {name: properties["Environment"]["Variables"][name] for name in FIXED}
    return started(folder, {**fixed, **environment}, BUILT / function, properties["Handler"])


@contextlib.contextmanager
def started(
    folder: Path, environment: Mapping[str, str], artifact: Path, handler: str
) -> Iterator[Runtime]:
    """An execution environment for any artifact."""
    binary = emulator()
    assert binary is not None
    port, log = free_port(), folder / "runtime.log"
    addresses = ["--runtime-interface-emulator-address", f"127.0.0.1:{port}"]
    addresses += ["--runtime-api-address", f"127.0.0.1:{free_port()}"]
    command = [
        str(binary),
        "--log-level",
        "info",
        *addresses,
        str(LAMBDA_PYTHON),
        "-m",
        "awslambdaric",
        handler,
    ]
    variables = {
        "AWS_LAMBDA_LOG_FORMAT": "JSON",
        "AWS_LAMBDA_LOG_LEVEL": "INFO",
        "LAMBDA_TASK_ROOT": str(artifact),
        **environment,
    }
    with running(
        "the runtime emulator", command, port=port, log=log, folder=artifact, environment=variables
    ):
        yield Runtime(f"http://127.0.0.1:{port}/2015-03-31/functions/function/invocations", log)
