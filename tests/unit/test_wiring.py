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
    """The headers of a request that gets no further than the wire."""
    headers: dict[str, str] = {}

    def note(request: Any, **_: Any) -> None:
        found = {name.lower(): value for name, value in request.headers.items()}
        headers.update(
            {
                name: value.decode() if isinstance(value, bytes) else value
                for name, value in found.items()
            }
        )
        raise InterruptedError

    client.meta.events.register("before-send.dynamodb", note)
    with pytest.raises(InterruptedError):
        client.list_tables()
    return headers


@pytest.mark.parametrize(
    "endpoint", ["", "http://127.0.0.1:8000", "https://DynamoDB.example/", "http://[::1]:8000"]
)
def test_client_signs_what_boto3_signs(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """The host that it names itself is the one that boto3 takes from the URL, and the same headers are signed."""
    if endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", endpoint)
    ours, theirs = sent(create_client()), sent(boto3.client("dynamodb", region_name="us-east-1"))
    signed = re.compile(r"SignedHeaders=([\w;-]+)")
    assert signed.findall(ours["authorization"]) == signed.findall(theirs["authorization"])
    host = {"": "dynamodb.us-east-1.amazonaws.com"}.get(
        endpoint, endpoint.partition("//")[2].strip("/")
    )
    assert ours["host"].lower() == host.lower()


def test_client_says_who_it_is_by_a_text_that_is_made_once() -> None:
    """Botocore's, as long as nobody configures another."""
    agent = sent(create_client())["user-agent"]
    assert agent == session().user_agent()
    assert agent.startswith("Botocore/")


def test_settings_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many parts of an app ask for them; another environment, as tests have it, has others."""
    monkeypatch.setenv("LEDGER_BASE_PATH", "/once")
    first = load_settings()
    create_app()
    assert load_settings() is first
    monkeypatch.setenv("LEDGER_BASE_PATH", "/twice")
    assert (first.base_path, load_settings().base_path) == ("/once", "/twice")


@pytest.mark.parametrize("module", ["functions.example_app.app", "functions.daily_reward.app"])
def test_started_function_has_what_was_imported_out_of_the_way(module: str) -> None:
    """Garbage is collected again, but not among objects that stay for good."""
    program = f"import gc, {module}; print(gc.isenabled(), gc.get_freeze_count() > 100_000)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "True"]


def test_servers_keep_to_one_cpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that the process may use; by the port, so that several servers have several."""
    chosen: list[set[int]] = []
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {2, 5, 7}, raising=False)
    monkeypatch.setattr(
        "os.sched_setaffinity", lambda _pid, cpus: chosen.append(cpus), raising=False
    )
    for port in (8001, 8002, 8003):
        _keep_to_one_cpu(port)
    assert sorted(cpu for cpus in chosen for cpu in cpus) == [2, 5, 7]


def test_nothing_on_this_machine_is_reached_by_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """DynamoDB or SQS at a loopback address is asked itself; what is elsewhere, by the proxy that there is."""
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


def test_queue_that_has_no_host_ends_the_function_with_one_line() -> None:
    """The message says that SQS cannot be reached."""
    with pytest.raises(SystemExit, match=r"^ledger: cannot reach SQS: "):
        create_queue_client("queue")
