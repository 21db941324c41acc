"""The main job on the real parts: `make run`'s server, killed in the middle; the Lambda handler."""

import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from functions.example_app.app import create_app
from ledger_core.http import create_handler
from tests.e2e.main_job import MainJob
from tests.e2e.server import START_SECONDS_MAX, Server
from tests.invariants import Outcome
from tests.support import DEEP, ROOT, Answer, LambdaApi

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

OPERATIONS = 5000 if DEEP else 400
JOB_SECONDS_MAX = 30 * START_SECONDS_MAX
"""After this time a server that does not answer fails the test."""


class HttpClient:
    """Sends a request again when no answer comes. A POST returns each missing answer as 503."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, limits=httpx.Limits(max_connections=64), timeout=30)
        self.answered = threading.Semaphore(0)
        self.deadline = time.monotonic() + JOB_SECONDS_MAX

    def __call__(
        self, method: str, path: str, body: Any = None, *, query: dict[str, str] | None = None
    ) -> Answer:
        while True:
            answer = self._once(method, path, body, query)
            if answer.status != 503:
                self.answered.release()
                return answer
            assert time.monotonic() < self.deadline
            time.sleep(0.1)
            if method == "POST":
                return answer

    def _once(self, method: str, path: str, body: Any, query: dict[str, str] | None) -> Answer:
        try:
            response = self.http.request(method, path, json=body, params=query)
        except httpx.TransportError:
            return Answer(503, {}, None)
        return Answer(response.status_code, response.headers, response.json())


def test_main_job_over_http_with_a_server_that_is_killed(server: Server) -> None:
    """16 clients; the server and DynamoDB Local are killed twice: each ledger fits the answers."""
    server.start()
    client = HttpClient(server.url)
    job = MainJob(client, owners=OPERATIONS // 5, operations=OPERATIONS, clients=16, seed=20261122)

    def kill_and_restart() -> None:
        for _ in range(2):
            for _ in range(OPERATIONS // 3):
                client.answered.acquire()
            server.stop(signal.SIGKILL)
            server.start()

    killer = threading.Thread(target=kill_and_restart)
    killer.start()
    with client.http:
        job.run()
        killer.join()
        answers = job.check()
    assert answers[Outcome.ACCEPTED] > OPERATIONS * 0.7
    assert answers[Outcome.REFUSED] > OPERATIONS * 0.08
    assert answers[Outcome.DUPLICATE] > OPERATIONS * 0.05


def test_main_job_through_the_lambda_handler(real_client: "DynamoDBClient") -> None:
    """The main job by API Gateway's events, one at a time, as Lambda sends them."""
    api = LambdaApi(create_handler(create_app(real_client)))
    job = MainJob(api, owners=100, operations=500, clients=1, seed=20261123)
    job.run()
    assert job.check()[Outcome.ACCEPTED] > 400


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_server_ends_with_all_it_started(server: Server, number: signal.Signals) -> None:
    """Ctrl-C or SIGTERM ends the server and DynamoDB Local without a traceback; the data stays."""
    server.start()
    body = {"owner_id": "ada", "operation": "SIGNUP_CREDIT", "nonce": "signup"}
    assert httpx.post(f"{server.url}/ledger/entry", json=body).status_code == 200
    assert server.has_children()
    printed = server.stop(number)
    assert not server.has_children()
    assert "Traceback" not in printed
    assert f"The ledger answers at {server.url}" in printed
    assert "curl" in printed
    server.start()
    assert httpx.get(f"{server.url}/ledger/ada/balance").json()["balance"] == 3


def test_port_in_use_is_one_line(server: Server) -> None:
    """A port that another process uses is an error of one line."""
    with socket.create_server(("127.0.0.1", int(server.url.rpartition(":")[2]))):
        ended = subprocess.run(
            server.command, cwd=ROOT, capture_output=True, text=True, check=False
        )
    assert ended.returncode == 1
    assert ended.stderr.startswith("ledger: port ")
    assert len(ended.stderr.splitlines()) == 1


def test_data_in_use_is_one_line(server: Server, tmp_path: Path) -> None:
    """A second server on the same data fails with an error of one line."""
    server.start()
    second = Server(tmp_path)
    ended = subprocess.run(second.command, cwd=ROOT, capture_output=True, text=True, check=False)
    message = f"ledger: DynamoDB Local cannot start: another process uses {server.data}\n"
    assert (ended.returncode, ended.stderr) == (1, message)


def test_without_java_it_runs_on_moto_and_says_so(server: Server, tmp_path: Path) -> None:
    """On a machine without Java the ledger runs on moto, and says that moto forgets everything."""
    (tmp_path / "bin").mkdir()
    server.start(**{**os.environ, "PATH": str(tmp_path / "bin")})
    body = {"owner_id": "ada", "operation": "SIGNUP_CREDIT", "nonce": "signup"}
    assert httpx.post(f"{server.url}/ledger/entry", json=body).json()["balance_after"] == 3
    printed = server.stop(signal.SIGINT)
    assert "moto" in printed
    assert "forgets everything" in printed
