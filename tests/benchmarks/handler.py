"""CPU time of one request in the Lambda handler, the network taken away, and of what it is compared with.

A program for Lambda's Python and the built artifact, which `cpu` starts; it prints seconds per call, as JSON.
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
    """The client, answered at botocore's hook for the wire as DynamoDB answers."""

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
    """What is compared; the same two items in all."""
    client, asked = without_network(create_client()), {}
    client.meta.events.register(
        "provide-client-params.dynamodb.TransactWriteItems",
        lambda params, **_: asked.update(params),
    )
    handler, event, numbers = (
        create_handler(create_app(client)),
        json.loads(EVENT.read_text()),
        count(),
    )

    def post() -> None:
        body = {
            "owner_id": "ada-of-twenty-letters"[:20],
            "operation": "SIGNUP_CREDIT",
            "metadata": {"invoice": "117"},
        }
        answer = handler(
            {**event, "body": json.dumps({**body, "nonce": NONCE.format(next(numbers))})}, None
        )
        if answer["statusCode"] != 200:
            raise RuntimeError(answer)

    post()
    post()  # the first has read the balance, and asked for another condition
    arguments = dict(asked)
    plain = without_network(boto3.client("dynamodb"))
    alike = without_network(create_client())
    app = FastAPI()
    app.add_api_route("/ledger/entry", _empty, methods=["POST"])
    empty: Any = Mangum(app, lifespan="off")
    return {
        "handler": post,
        "plain": lambda: plain.transact_write_items(**arguments),
        "alike": lambda: alike.transact_write_items(**arguments),
        "empty": lambda: empty(event, None),
    }


async def _empty() -> dict[str, str]:
    return {}


def main() -> None:
    """Measure and print."""
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
    ):  # which has the handler's lines
        candidates = calls()
        gc.freeze()  # for all of them alike
        samples = interleaved(candidates, rounds=int(sys.argv[1]), calls=int(sys.argv[2]))
    print(json.dumps(samples))


if __name__ == "__main__":
    main()
