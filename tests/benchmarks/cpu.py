"""The CPU time of a request in the Lambda handler without the network, against a plain call."""

import json
import os
import statistics
import subprocess
from functools import cache

from infra.build import LAMBDA_PYTHON
from tests.benchmarks.report import Part, Row, Sample, ratio, ratio_of_medians
from tests.lambda_runtime.emulator import BUILT
from tests.support import ROOT

__all__ = ["handler_cpu_seconds", "run"]

ROUNDS = 25
CALLS = 200
HANDLER_MAX = 1.25


def run() -> Part:
    """Compare an entry that is posted through the handler with the handler's call of DynamoDB."""
    samples = _samples()
    rows = [
        ratio(
            "handler: event in, answer out",
            _times(samples, "handler", "plain"),
            at_most=HANDLER_MAX,
        ),
        ratio("  of it the call by the ledger's client", _times(samples, "ledger_client", "plain")),
        ratio(
            "  of it FastAPI and Mangum, around an empty endpoint",
            _times(samples, "empty", "plain"),
        ),
        ratio(
            "handler, to the call by the ledger's client",
            _times(samples, "handler", "ledger_client"),
        ),
        Row("handler, on this machine", f"{handler_cpu_seconds() * 1e3:.2f} ms"),
        Row("plain call, on this machine", f"{statistics.median(samples['plain']) * 1e3:.2f} ms"),
    ]
    return Part(
        "CPU of an accepted entry, warm",
        "the built artifact on Lambda's Python, with DynamoDB's answers from a hook in botocore, "
        "against client.transact_write_items(...) of the same items by boto3.client('dynamodb'); "
        f"medians of {ROUNDS} rounds",
        rows,
    )


def handler_cpu_seconds() -> float:
    """The CPU time of a POST /ledger/entry in the handler, without the network."""
    return statistics.median(_samples()["handler"])


@cache
def _samples() -> dict[str, Sample]:
    artifact = BUILT / "ApiFunction"
    variables = {
        **os.environ,
        "PYTHONPATH": f"{artifact}{os.pathsep}{ROOT}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "AWS_DEFAULT_REGION": os.environ["AWS_REGION"],
        "AWS_ENDPOINT_URL_DYNAMODB": "https://dynamodb.us-east-1.amazonaws.com",
    }
    command = [str(LAMBDA_PYTHON), "-m", "tests.benchmarks.handler", str(ROUNDS), str(CALLS)]
    program = subprocess.run(
        command, env=variables, cwd=ROOT / "tests", capture_output=True, text=True, check=False
    )
    if program.returncode:
        raise RuntimeError(f"run `make build` first: {program.stderr}")
    samples: dict[str, Sample] = json.loads(program.stdout)
    return samples


def _times(samples: dict[str, Sample], name: str, base: str) -> float:
    return ratio_of_medians(samples[name], samples[base])
