"""The built artifact in Lambda's runtime; without them nothing of this is tested, which CI does not accept."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from tests.lambda_runtime.emulator import ARTIFACT, Runtime, emulator, runtime

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Start = Callable[..., Runtime]


@pytest.fixture(scope="session", autouse=True)
def built() -> None:
    if not ARTIFACT.is_dir() or emulator() is None:
        pytest.skip("NOT TESTED in Lambda's runtime: `make cold` builds the artifact and sets up the emulator (Linux)")


@pytest.fixture
def start(real_client: "DynamoDBClient", tmp_path: Path) -> Iterator[Start]:
    """Starts execution environments of the artifact, with the variables that the template sets, over DynamoDB Local."""
    assert real_client is not None
    with ExitStack() as stack:

        def start(**changes: str) -> Runtime:
            variables = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "LEDGER_"))}
            environment = {**variables, "LEDGER_AUTH": "jwt", "POWERTOOLS_SERVICE_NAME": "ledger", **changes}
            folder = tmp_path / str(uuid4())
            folder.mkdir()
            return stack.enter_context(runtime(folder, environment))

        yield start
