"""The clients that functions get, and how functions start."""

import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from functions.example_app.app import create_app
from infra.run import _keep_to_one_cpu
from ledger_core.dynamodb.client import session
from ledger_core.wiring import create_client, create_queue_client, load_settings
from tests.fakes.impostor import impostor
from tests.support import ROOT

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


def sent(client: "DynamoDBClient") -> dict[str, str]:
    """The headers of a request that is stopped before it is sent."""
    headers: dict[str, str] = {}

    def note(request: Any, **_: Any) -> None:
        for name, value in request.headers.items():
            headers[name.lower()] = value.decode() if isinstance(value, bytes) else value
        raise InterruptedError

    client.meta.events.register("before-send.dynamodb", note)
    with pytest.raises(InterruptedError):
        client.list_tables()
    return headers


@pytest.mark.parametrize(
    "endpoint", ["", "http://127.0.0.1:8000", "https://DynamoDB.example/", "http://[::1]:8000"]
)
def test_client_signs_the_headers_that_boto3_signs(
    monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    """The client has the host of boto3's client, and signs the same headers."""
    if endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", endpoint)
    ours = sent(create_client())
    theirs = sent(boto3.client("dynamodb", region_name="us-east-1"))
    signed = re.compile(r"SignedHeaders=([\w;-]+)")
    assert signed.findall(ours["authorization"]) == signed.findall(theirs["authorization"])
    host = endpoint.partition("//")[2].strip("/") or "dynamodb.us-east-1.amazonaws.com"
    assert ours["host"].lower() == host.lower()


def test_client_has_the_user_agent_of_botocore() -> None:
    """The user agent is made once, by botocore."""
    agent = sent(create_client())["user-agent"]
    assert agent == session().user_agent()
    assert agent.startswith("Botocore/")


def test_settings_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts of an app share their settings; another environment has other settings."""
    monkeypatch.setenv("LEDGER_BASE_PATH", "/once")
    first = load_settings()
    create_app()
    assert load_settings() is first
    monkeypatch.setenv("LEDGER_BASE_PATH", "/twice")
    assert (first.base_path, load_settings().base_path) == ("/once", "/twice")


@pytest.mark.slow
@pytest.mark.parametrize("module", ["functions.example_app.app", "functions.daily_reward.app"])
def test_started_function_freezes_its_imported_objects(module: str) -> None:
    """The garbage collector is on, and ignores the objects of the imports."""
    program = f"import gc, {module}; print(gc.isenabled(), gc.get_freeze_count() > 100_000)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "True"]


def test_servers_keep_to_one_cpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server gets one of the process's CPUs, and servers on other ports get other CPUs."""
    chosen: list[set[int]] = []
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {2, 5, 7}, raising=False)
    monkeypatch.setattr(
        "os.sched_setaffinity", lambda _pid, cpus: chosen.append(cpus), raising=False
    )
    for port in (8001, 8002, 8003):
        _keep_to_one_cpu(port)
    assert sorted(cpu for cpus in chosen for cpu in cpus) == [2, 5, 7]


def test_local_endpoint_is_called_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests to a loopback address use no proxy, and other requests use the proxy."""
    with impostor() as proxy, impostor() as here:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        for variable in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_DYNAMODB"):
            monkeypatch.setenv(variable, here.url)
            create_client().list_tables()
        create_queue_client(f"{here.url}/1/queue").list_queues()
        assert (len(here.seen), proxy.seen) == (3, [])
        monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", "http://dynamodb.example")
        create_client().list_tables()
        create_queue_client("http://sqs.example/1/queue").list_queues()
        assert proxy.seen == [
            "POST http://dynamodb.example/ HTTP/1.1",
            "POST http://sqs.example/ HTTP/1.1",
        ]


def test_queue_without_a_host_ends_the_function() -> None:
    """The process ends with a line that says that SQS cannot be reached."""
    with pytest.raises(SystemExit, match=r"^ledger: cannot reach SQS: "):
        create_queue_client("queue")
