"""Cold starts of the built artifact in Lambda's runtime, against a handler that only has boto3."""

import json
import os
import shutil
import statistics
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from infra.build import COMPILE, LAMBDA_PYTHON
from infra.dynamodb import CACHE, template
from tests.benchmarks.imports import packages, written
from tests.benchmarks.report import Part, Row, Sample, ratio, ratio_of_medians
from tests.lambda_runtime.emulator import BUILT, FUNCTIONS, runtime, started
from tests.support import ROOT

__all__ = ["run"]

STARTS = 9
GOALS = {"ApiFunction": 1.3, "DailyRewardFunction": 1.1}
HELLO = """import boto3

client = boto3.client("dynamodb")


def handler(event, context):
    return {"statusCode": 200}
"""
FOLDER = CACHE / "bench"
PACKAGE_SHARE_MIN = 0.04
"""Packages with a smaller share of the time are left out."""


def run() -> Part:
    """Measure the initialization of each function."""
    settings = {
        name: value for name, value in os.environ.items() if name.startswith(("AWS_", "LEDGER_"))
    }
    environment = {
        **settings,
        "PATH": os.environ["PATH"],
        "AWS_DEFAULT_REGION": os.environ["AWS_REGION"],
        "LEDGER_AUTH": "jwt",
        "LEDGER_REWARDS_QUEUE_URL": "https://sqs.us-east-1.amazonaws.com/123456789012/rewards",
    }
    hello = _hello()
    samples: dict[str, Sample] = {name: [] for name in ("hello", *FUNCTIONS)}
    for _ in range(STARTS):
        samples["hello"].append(_init_ms(environment, artifact=hello))
        for function in FUNCTIONS:
            samples[function].append(_init_ms(environment, function))
    rows = [
        ratio(name, ratio_of_medians(samples[name], samples["hello"]), at_most=GOALS[name])
        for name in FUNCTIONS
    ]
    rows += [
        Row(f"{name}, on this machine", f"{statistics.median(sample):.0f} ms")
        for name, sample in samples.items()
    ]
    for function in FUNCTIONS:
        module = template()["Resources"][function]["Properties"]["Handler"].rpartition(".")[0]
        stacks = written(module, BUILT / function, environment, FOLDER / f"{function}.folded")
        rows += [
            Row(f"{function}: share of its imports, {package}", f"{share:.0%}")
            for package, share in packages(stacks)
            if share >= PACKAGE_SHARE_MIN
        ]
    return Part(
        "Cold start",
        f"INIT REPORT of Lambda's runtime emulator, medians of {STARTS}, to a hello handler with "
        "boto3.client('dynamodb') in the same artifact; flame graphs of imports, for any viewer of "
        f"folded stacks, are in {FOLDER.relative_to(ROOT)}",
        rows,
    )


def _init_ms(
    environment: dict[str, str], function: str = "", artifact: Path | None = None
) -> float:
    event: dict[str, Any] = {"Records": []}
    if function != "DailyRewardFunction":
        event = json.loads((ROOT / "infra/events/http_api.json").read_text())
        event["rawPath"] = "/health"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ExitStack() as stack:
            if artifact:
                starting = started(folder, environment, artifact, "hello.handler")
                emulator = stack.enter_context(starting)
            else:
                emulator = stack.enter_context(runtime(folder, environment, function))
            emulator(event)
            return emulator.init_ms


def _hello() -> Path:
    """The API's artifact with another handler."""
    artifact = FOLDER / "hello"
    shutil.rmtree(artifact, ignore_errors=True)
    shutil.copytree(BUILT / "ApiFunction", artifact, copy_function=os.link)
    (artifact / "hello.py").write_text(HELLO)
    subprocess.run([str(LAMBDA_PYTHON), *COMPILE, str(artifact / "hello.py")], check=True)
    return artifact
