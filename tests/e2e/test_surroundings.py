"""`make run` in an environment for other programs: it uses only its own store."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import httpx
import pytest

from infra.dynamodb import _kept_port
from infra.environment import ENDPOINT
from infra.processes import free_port
from tests.conftest import MACHINE
from tests.e2e.server import Server
from tests.fakes.impostor import Impostor, Page, impostor
from tests.fakes.upgrade import H2C, JAVA
from tests.support import ROOT

BODY = {"owner_id": "ada", "operation": "SIGNUP_CREDIT", "nonce": "signup"}
CONFIG = """
[default]
region = mars-north-1
ignore_configured_endpoint_urls = true
endpoint_url = {url}
[profile away]
sso_session = away
region = mars-south-1
endpoint_url = {url}
[sso-session away]
sso_start_url = {url}/start
sso_region = mars-south-1
"""


@pytest.fixture
def elsewhere() -> Iterator[Impostor]:
    """Whatever comes here went astray."""
    with impostor() as server:
        yield server


def proxies(url: str) -> dict[str, str]:
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    return {name: url for upper in names for name in (upper, upper.lower())}


def hostile(url: str, home: Path) -> dict[str, str]:
    """An environment in which everything leads to `url`."""
    (home / ".aws").mkdir(parents=True, exist_ok=True)
    (home / ".aws/config").write_text(CONFIG.format(url=url))
    machine = {name: MACHINE[name] for name in ("PATH", "LANG") if name in MACHINE}
    return {
        **machine,
        **proxies(url),
        "HOME": str(home),
        "NO_PROXY": "example.com",
        "AWS_ENDPOINT_URL": url,
        "AWS_ENDPOINT_URL_DYNAMODB": url,
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
        "AWS_USE_FIPS_ENDPOINT": "true",
        "AWS_PROFILE": "nobody",
        "AWS_DEFAULT_PROFILE": "away",
        "AWS_ACCESS_KEY_ID": "dummy-key",
        "AWS_SECRET_ACCESS_KEY": "dummy/key",
        "AWS_SESSION_TOKEN": "dummy-token",
        "AWS_REGION": "eu-north-1",
        "AWS_DEFAULT_REGION": "eu-south-1",
        "LEDGER_RECEIPT_KEY": "1234abcd-12ab-34cd-56ef-1234567890ab",
        "WEB_CONCURRENCY": "3",
        "ENDPOINT": url,
        "LOG": "loud",
    }


# For each environment: create a client, as the server does, and create a table with it.
CREATE_TABLES = """
import json, os, sys
from ledger_core.dynamodb.client import session
from ledger_core.wiring import create_client
from infra.dynamodb import create_tables
from infra.environment import keep_to_this_machine
for table, environment in json.load(sys.stdin).items():
    os.environ.clear()
    os.environ.update(environment)
    session.cache_clear()
    keep_to_this_machine(sys.argv[1])
    client = create_client()
    create_tables(client, {"LEDGER_ENTRIES_TABLE": table})
    access_key = client._request_signer._credentials.access_key
    print(client.meta.endpoint_url, client.meta.region_name, access_key)
"""


def test_tables_are_created_in_the_store_that_is_here(
    dynamodb_local_endpoint: str, elsewhere: Impostor, tmp_path: Path
) -> None:
    """No variable, alone or with the others, changes the store in which tables are created."""
    hostile_variables = hostile(elsewhere.url, tmp_path)
    kept = {name: hostile_variables.pop(name) for name in ("PATH", "HOME")}
    environments = {
        f"{name}-{free_port()}": {**kept, name: value} for name, value in hostile_variables.items()
    }
    environments[f"all-{free_port()}"] = {**kept, **hostile_variables}
    command = [sys.executable, "-c", CREATE_TABLES, dynamodb_local_endpoint]
    program = subprocess.run(
        command,
        cwd=ROOT,
        input=json.dumps(environments),
        capture_output=True,
        text=True,
        check=False,
    )
    line = f"{dynamodb_local_endpoint} us-east-1 local"
    assert program.stdout.splitlines() == [line] * len(environments), program.stderr
    assert elsewhere.seen == []
    local = boto3.client(
        "dynamodb",
        endpoint_url=dynamodb_local_endpoint,
        aws_access_key_id="local",
        aws_secret_access_key="local",
        region_name="us-east-1",
    )
    pages = local.get_paginator("list_tables").paginate()
    assert environments.keys() <= {name for page in pages for name in page["TableNames"]}


def pasted(
    server: Server, environment: dict[str, str], command: str
) -> "subprocess.CompletedProcess[str]":
    """Run a command in another terminal, after the lines that the server printed for it."""
    (lines,) = re.findall(
        r"in another terminal:\n(.*?)\n\n", server.log.read_text(), flags=re.DOTALL
    )
    return subprocess.run(
        ["sh", "-c", f"{lines}\n{command}"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_all_at_once(server: Server, elsewhere: Impostor, tmp_path: Path) -> None:
    """The server, `ledger` in another terminal and curl work; no request goes elsewhere."""
    environment = hostile(elsewhere.url, tmp_path / "home")
    server.start(**environment)
    direct = httpx.Client(trust_env=False, base_url=server.url, headers=H2C)
    assert direct.post("/ledger/entry", json=BODY).json()["balance_after"] == 3
    assert direct.get("/ledger/ada/receipt").status_code == 200
    direct.close()
    verified = pasted(server, environment, f"{Path(sys.executable).parent}/ledger verify ada")
    assert (verified.returncode, json.loads(verified.stdout)["valid"]) == (0, True), verified.stderr
    echoed = pasted(
        server,
        environment,
        'echo "$LEDGER_AUTH $AWS_DEFAULT_REGION $AWS_REGION ${AWS_ENDPOINT_URL-unset}"',
    )
    assert echoed.stdout == "none us-east-1 us-east-1 unset\n"
    if shutil.which("curl"):
        body = json.dumps(BODY | {"nonce": "by-curl"})
        command = f"curl -sS --http2 {server.url}/ledger/entry --json '{body}'"
        curl = pasted(server, environment, command)
        assert json.loads(curl.stdout)["balance_after"] == 6, curl.stderr
    assert elsewhere.seen == []
    assert "by-curl" not in server.stop(signal.SIGTERM)


def test_variables_alone_are_enough(server: Server, elsewhere: Impostor, tmp_path: Path) -> None:
    """The printed `export` works also without the line before it, as many tools use it."""
    server.start()
    environment = hostile(elsewhere.url, tmp_path / "home") | server.variables
    del environment["AWS_USE_FIPS_ENDPOINT"]
    program = [f"{Path(sys.executable).parent}/ledger", "verify", "ada"]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
    assert json.loads(done.stdout)["entries_checked"] == 0, done.stderr
    assert elsewhere.seen == []


@pytest.mark.skipif(not shutil.which("java"), reason="NOT TESTED: needs Java")
def test_tokens_and_java_in_spite_of_a_proxy(
    server: Server, elsewhere: Impostor, tmp_path: Path
) -> None:
    """The issuer's key is not read by the proxy, and a Java client without a token gets 401."""
    port = str(free_port())
    server.command += ["--auth", "jwt", "--issuer-port", port]
    environment = hostile(elsewhere.url, tmp_path / "home")
    server.start(**environment)
    program = [sys.executable, "-m", "infra.issuer", "--port", port]
    command = [*program, "--owner", "shop", "--scope", "ledger/write"]
    issuer = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    headers = {"Authorization": f"Bearer {issuer.stdout.strip()}"}
    url = f"{server.url}/ledger/entry"
    assert httpx.post(url, json=BODY, headers=headers, trust_env=False).status_code == 200
    (tmp_path / "Main.java").write_text(JAVA)
    java = ["java", str(tmp_path / "Main.java"), url, json.dumps(BODY)]
    printed = subprocess.run(java, capture_output=True, text=True, check=True).stdout
    assert printed.count('"status":401') == 2, printed
    assert elsewhere.seen == []


def test_another_dynamodb_is_used_when_it_is_named(
    dynamodb_local_endpoint: str, elsewhere: Impostor, tmp_path: Path
) -> None:
    """Only the option names another DynamoDB, which is used without a proxy."""
    server = Server(tmp_path, "--endpoint", dynamodb_local_endpoint)
    environment = hostile(elsewhere.url, tmp_path / "home")
    for name in ("LEDGER_ENTRIES_TABLE", "LEDGER_ACCOUNTS_TABLE"):
        environment[name] = f"{name}-{free_port()}"
    # With another DynamoDB these variables count.
    for name in (
        "AWS_PROFILE",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_USE_FIPS_ENDPOINT",
        "LEDGER_RECEIPT_KEY",
    ):
        del environment[name]
    server.start(**environment)
    try:
        answer = httpx.post(f"{server.url}/ledger/entry", json=BODY, trust_env=False)
        assert answer.status_code == 200
        assert server.variables[ENDPOINT] == dynamodb_local_endpoint
        assert not (server.data / "port").exists()
        assert elsewhere.seen == []
    finally:
        server.stop(signal.SIGTERM)


def test_what_is_not_dynamodb_is_no_store(elsewhere: Impostor, tmp_path: Path) -> None:
    """The server does not start on another service, and its error of one line names the URL."""
    server = Server(tmp_path, "--endpoint", elsewhere.url)
    ended = subprocess.run(server.command, cwd=ROOT, capture_output=True, text=True, check=False)
    problem = f"the server at {elsewhere.url} is not DynamoDB"
    message = f"ledger: the tables cannot be created: {problem}\n"
    assert (ended.returncode, ended.stderr) == (1, message)


def test_port_of_dynamodb_local_is_kept(server: Server) -> None:
    """A restarted server uses the same port of DynamoDB Local, or says that the port is taken."""
    server.start()
    first = server.variables[ENDPOINT]
    assert "is taken" not in server.stop(signal.SIGTERM)
    server.start()
    assert server.variables[ENDPOINT] == first
    server.stop(signal.SIGKILL)
    while server.has_children():
        time.sleep(0.1)
    port = first.rpartition(":")[2]
    with socket.create_server(("127.0.0.1", int(port))):
        server.start()
        second = server.variables[ENDPOINT]
        assert second != first
        printed = server.stop(signal.SIGTERM)
        assert f"Port {port}, where DynamoDB Local was, is taken" in printed
    assert (server.data / "port").read_text().strip() == second.rpartition(":")[2]


@pytest.mark.parametrize("noted", ["", "0", "-1", "99999", "eight"])
def test_impossible_port_is_not_kept(tmp_path: Path, noted: str) -> None:
    """A new port replaces one that a cut or edited file has wrong."""
    (tmp_path / "port").write_text(noted)
    port = _kept_port(tmp_path / "port")
    assert 1024 < port < 65536
    assert _kept_port(tmp_path / "port") == port


LINE_SECONDS_MAX = 10.0


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="NOT TESTED: needs Linux")
def test_lines_are_short_and_cpus_are_all_unless_asked(server: Server) -> None:
    """The server logs a short line for each request; options give JSON and one CPU."""
    server.start()
    assert server.process is not None
    httpx.post(f"{server.url}/ledger/entry", json=BODY)
    assert os.sched_getaffinity(server.process.pid) == os.sched_getaffinity(0)
    deadline = time.monotonic() + LINE_SECONDS_MAX  # the line is written after the answer is sent
    while not (lines := re.findall(r"^.*POST.*ms$", server.log.read_text(), flags=re.MULTILINE)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (line,) = lines
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d POST /ledger/entry 200 accepted SIGNUP_CREDIT [0-9.]+ ms", line
    )
    assert "_aws" not in server.stop(signal.SIGTERM)
    server.command += ["--log", "json", "--one-cpu"]
    server.start()
    assert len(os.sched_getaffinity(server.process.pid)) == 1
    assert '"_aws":' in server.stop(signal.SIGTERM)


def test_make_takes_options_from_its_command_line_only() -> None:
    """The variables ENDPOINT and LOG of the environment are for other programs."""

    def planned(*options: str) -> str:
        environment = {**MACHINE, "ENDPOINT": "http://elsewhere", "LOG": "loud", "ONE_CPU": "1"}
        command = ["make", "-n", "run", *options]
        make = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        return make.stdout.replace("\\\n", "")

    plain = planned()
    assert "--log short" in plain
    assert "elsewhere" not in plain + planned("LOG=json")
    assert "--endpoint" not in plain
    assert "--one-cpu" not in plain
    asked = planned("LOG=json", "ENDPOINT=http://127.0.0.1:1", "ONE_CPU=yes")
    assert re.search(r'--log json\s+--endpoint "http://127.0.0.1:1"\s+--one-cpu', asked)


@pytest.mark.parametrize("status", [200, 503])
def test_container_asks_itself_how_it_is(elsewhere: Impostor, status: int) -> None:
    """The container's health check ignores Docker's proxy; an option names its store."""
    dockerfile = (ROOT / "infra/Dockerfile").read_text()
    assert "--endpoint $AWS_ENDPOINT_URL_DYNAMODB" in dockerfile
    (check,) = re.findall(r"CMD python (-c .*)", dockerfile)
    with impostor(Page(status=status)) as server:
        environment = {**MACHINE, **proxies(elsewhere.url), "PORT": server.url.rpartition(":")[2]}
        command = ["sh", "-c", f"{sys.executable} {check}"]
        done = subprocess.run(command, env=environment, capture_output=True, check=False)
        assert (done.returncode == 0, server.seen) == (status == 200, ["GET /health HTTP/1.1"])
    assert elsewhere.seen == []
