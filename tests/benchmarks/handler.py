"""A program that measures the CPU time of a request in the Lambda handler, and of other calls.

`cpu` starts it on Lambda's Python with the built artifact. It prints seconds per call as JSON.
"""

import contextlib
import gc
import io
import json
import os
import sys
import zlib
from collections.abc import Callable
from email.utils import formatdate
from functools import cache
from itertools import count
from pathlib import Path
from time import time
from typing import Any

import boto3
from botocore.awsrequest import AWSResponse
from fastapi import FastAPI
from mangum import Mangum

from functions.example_app.app import create_app
from ledger_core.http import create_handler
from ledger_core.wiring import create_client
from tests.benchmarks.report import interleaved

EVENT = Path(__file__).parent.parent.parent / "infra/events/http_api.json"
NONCE = "8e03978e-40d5-43dd-bc93-{:012}"
"""As long as a UUID."""
ANSWERS = {
    "TransactWriteItems": {
        "ConsumedCapacity": [
            {"TableName": "entries", "CapacityUnits": 3.0},
            {"TableName": "accounts", "CapacityUnits": 2.0},
        ]
    },
    "GetItem": {"ConsumedCapacity": {"TableName": "accounts", "CapacityUnits": 0.5}},
}


class _Body(io.BytesIO):
    """A body as botocore reads it from urllib3."""

    def stream(self, **_: Any) -> Any:
        yield self.getvalue()


@cache
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


def without_network(client: Any) -> Any:
    """The client with DynamoDB's answers from a hook in botocore, instead of the network."""

    def answer(request: Any, **_: Any) -> AWSResponse:
        target = request.headers["X-Amz-Target"]
        operation = (target.decode() if isinstance(target, bytes) else target).rpartition(".")[2]
        body = json.dumps(ANSWERS[operation]).encode()
        headers: Any = {
            "content-type": "application/x-amz-json-1.0",
            "content-length": str(len(body)),
            "x-amz-crc32": str(zlib.crc32(body)),
            "x-amzn-requestid": "A" * 52,
            "date": _date(int(time())),
            "server": "Server",
        }
        return AWSResponse(request.url, 200, headers, _Body(body))

    client.meta.events.register("before-send.dynamodb", answer)
    return client


def calls() -> dict[str, Callable[[], Any]]:
    """The calls to compare. All write the same two items."""
    client = without_network(create_client())
    sent: dict[str, Any] = {}
    client.meta.events.register(
        "provide-client-params.dynamodb.TransactWriteItems",
        lambda params, **_: sent.update(params),
    )
    handler = create_handler(create_app(client))
    event = json.loads(EVENT.read_text())
    numbers = count()

    def post() -> None:
        body = {
            "owner_id": "ada-of-twenty-letters"[:20],
            "operation": "SIGNUP_CREDIT",
            "nonce": NONCE.format(next(numbers)),
            "metadata": {"invoice": "117"},
        }
        answer = handler({**event, "body": json.dumps(body)}, None)
        if answer["statusCode"] != 200:
            raise RuntimeError(answer)

    post()
    post()  # the first post reads the account, and sends another condition
    arguments = dict(sent)
    plain = without_network(boto3.client("dynamodb"))
    ledger_client = without_network(create_client())
    app = FastAPI()
    app.add_api_route("/ledger/entry", _empty, methods=["POST"])
    empty: Any = Mangum(app, lifespan="off")
    return {
        "handler": post,
        "plain": lambda: plain.transact_write_items(**arguments),
        "ledger_client": lambda: ledger_client.transact_write_items(**arguments),
        "empty": lambda: empty(event, None),
    }


async def _empty() -> dict[str, str]:
    return {}


def main() -> None:
    """Measure and print."""
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        candidates = calls()
        gc.freeze()  # the same state for all candidates
        samples = interleaved(candidates, rounds=int(sys.argv[1]), calls=int(sys.argv[2]))
    print(json.dumps(samples))


if __name__ == "__main__":
    main()
