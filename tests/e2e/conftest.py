"""A server to test, ended whatever happens."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.server import Server


@pytest.fixture
def server(dynamodb_local_endpoint: str, tmp_path: Path) -> Iterator[Server]:
    """Not yet started; it needs what the fixture of DynamoDB Local needs, and has one of its own."""
    server = Server(tmp_path)
    yield server
    if server.process is not None and server.process.poll() is None:
        server.stop(signal.SIGTERM)
