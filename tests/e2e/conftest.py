"""A server of `make run`, which ends with its test."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.server import Server


@pytest.fixture
def server(dynamodb_local_endpoint: str, tmp_path: Path) -> Iterator[Server]:
    """A server that is not started yet. It runs its own DynamoDB Local."""
    server = Server(tmp_path)
    yield server
    if server.process is not None and server.process.poll() is None:
        server.stop(signal.SIGTERM)
