"""The Example App on a server in a thread, and a gate that stops its writes."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import uvicorn
from starlette.types import ASGIApp

from functions.example_app.app import create_app
from infra.processes import free_port

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

SECONDS_MAX = 30


@contextmanager
def serving(
    client: "DynamoDBClient",
    *,
    root_path: str = "",
    around: Callable[[ASGIApp], ASGIApp] = lambda app: app,
) -> Iterator[httpx.Client]:
    """A server of the Example App in a thread, and a client of it."""
    port = free_port()
    app = around(create_app(client))
    server = uvicorn.Server(
        uvicorn.Config(app, port=port, log_level="warning", root_path=root_path)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    transport = httpx.HTTPTransport(retries=10)
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(transport=transport, base_url=url, timeout=SECONDS_MAX) as http:
            yield http
    finally:
        server.should_exit = True
        thread.join()


class Gate:
    """Stops the transactions of one owner until a test opens the gate.

    Attributes:
        reached: set when a transaction waits at the gate.
        opened: a test sets it to let the transactions pass.
        entries: the number of entries of each transaction.
    """

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, client: "DynamoDBClient", owner_id: str
    ) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()
        self.owner_id = owner_id
        self.entries: list[int] = []
        self.transact = client.transact_write_items
        monkeypatch.setattr(client, "transact_write_items", self, raising=False)

    def __call__(self, **arguments: Any) -> Any:
        if arguments["TransactItems"][-1]["Update"]["Key"]["account"]["S"] == self.owner_id:
            self.entries.append(len(arguments["TransactItems"]) - 1)
            self.reached.set()
            assert self.opened.wait(SECONDS_MAX)
        return self.transact(**arguments)
