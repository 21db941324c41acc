"""The built artifact in Lambda's runtime. CI does not accept that these tests are skipped."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import boto3
import pytest

from infra.dynamodb import create_tables
from infra.processes import free_port
from infra.stack import MINISTACK, ministack
from tests.lambda_runtime.emulator import BUILT, FUNCTIONS, Runtime, emulator, runtime

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_sqs import SQSClient

Start = Callable[..., Runtime]


@pytest.fixture(scope="session", autouse=True)
def built() -> None:
    if not all((BUILT / function).is_dir() for function in FUNCTIONS) or emulator() is None:
        pytest.skip(
            "NOT TESTED in Lambda's runtime: `make cold` builds the artifact and emulator (Linux)"
        )


@dataclass
class Queue:
    """An SQS queue, of ministack's."""

    client: "SQSClient"
    url: str

    def receive(self) -> list[dict[str, Any]]:
        """What is on it, as Lambda hands it over."""
        messages = self.client.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10).get(
            "Messages", []
        )
        return [{"messageId": one["MessageId"], "body": one["Body"]} for one in messages]


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    """Where the scheduled function puts its segments."""
    if not MINISTACK.exists():
        pytest.skip("NOT TESTED with a queue: `make cold` sets up the emulator of SQS")
    with ministack(free_port(), tmp_path) as endpoint:
        client = boto3.client("sqs", endpoint_url=endpoint, region_name="us-east-1")
        yield Queue(client, client.create_queue(QueueName="rewards")["QueueUrl"])


@pytest.fixture
def start(real_client: "DynamoDBClient", tmp_path: Path) -> Iterator[Start]:
    """Starts environments of the artifact with the template's variables, on DynamoDB Local."""
    create_tables(real_client, os.environ)  # the one of runs, too
    with ExitStack() as stack:

        def start(function: str = "ApiFunction", **changes: str) -> Runtime:
            variables = {
                name: value
                for name, value in os.environ.items()
                if name.startswith(("AWS_", "LEDGER_"))
            }
            environment = {**variables, "LEDGER_AUTH": "jwt", **changes}
            folder = tmp_path / str(uuid4())
            folder.mkdir()
            return stack.enter_context(runtime(folder, environment, function))

        yield start
