"""What the ledger adds to a call of DynamoDB: CPU time of a request in the Lambda handler, the network taken away."""

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
    """An entry posted through the handler, against the call that it makes."""
    samples = _samples()
    rows = [
        ratio(
            "handler: event in, answer out",
            _times(samples, "handler", "plain"),
            at_most=HANDLER_MAX,
        ),
        ratio(
            "  of it the call, as the ledger's client makes it", _times(samples, "alike", "plain")
        ),
        ratio(
            "  of it FastAPI and Mangum, around an empty endpoint",
            _times(samples, "empty", "plain"),
        ),
        ratio(
            "handler, to the call as the ledger's client makes it",
            _times(samples, "handler", "alike"),
        ),
        Row("handler, on this machine", f"{handler_cpu_seconds() * 1e3:.2f} ms"),
        Row("plain call, on this machine", f"{statistics.median(samples['plain']) * 1e3:.2f} ms"),
    ]
    return Part(
        "CPU of an accepted entry, warm",
        "the built artifact on Lambda's Python, DynamoDB's answer given at botocore's hook for the wire, against "
        f"client.transact_write_items(...) of the same items by boto3.client('dynamodb'); medians of {ROUNDS} rounds",
        rows,
    )


def handler_cpu_seconds() -> float:
    """Of one POST /ledger/entry in the handler, with the network taken away."""
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
    done = subprocess.run(
        command, env=variables, cwd=ROOT / "tests", capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"run `make build` first: {done.stderr}")
    samples: dict[str, Sample] = json.loads(done.stdout)
    return samples


def _times(samples: dict[str, Sample], name: str, base: str) -> float:
    return ratio_of_medians(samples[name], samples[base])
