"""The line of a request, its metrics and the capacity that it consumed."""

import asyncio
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ReadTimeoutError
from starlette.types import Receive, Scope, Send

from functions.example_app.app import create_app
from ledger_core.fields import owner_hash
from ledger_core.http import create_handler
from ledger_core.http.telemetry import Telemetry
from ledger_core.observability import MetricLines, request_lines
from ledger_core.observability.metric_lines import METRICS_NAMESPACE
from ledger_core.posting import OperationProcessor
from tests.fakes.server import SECONDS_MAX, Gate, serving
from tests.support import LambdaApi

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

SIGNUP = {
    "owner_id": "ada",
    "operation": "SIGNUP_CREDIT",
    "nonce": "secret-nonce",
    "metadata": {"k": "secret-value"},
}
SPEND = {"owner_id": "ada", "operation": "CREDIT_SPEND", "nonce": "order"}
SECRETS = re.compile(r"secret|\bada\b|Bearer|eyJ")
"""The word `ada`, because an id in hex digits may have its letters by chance."""


class Context:
    """The context that Lambda passes to a handler."""

    aws_request_id = "function-request"
    milliseconds = 30_000

    def get_remaining_time_in_millis(self) -> int:
        return self.milliseconds


@pytest.fixture
def api(client: "DynamoDBClient", capfd: pytest.CaptureFixture[str]) -> LambdaApi:
    """A new handler, whose output is captured."""
    api = LambdaApi(create_handler(create_app(client)))
    api.context = Context()
    capfd.readouterr()
    return api


def lines(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The lines since the last call, after a check that they have no secret."""
    out = capfd.readouterr().out
    assert not SECRETS.findall(out)
    return [json.loads(line) for line in out.splitlines()]


def metrics(line: dict[str, Any]) -> dict[str, float]:
    """The metrics of a line by name, without Latency, which each line has."""
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    assert (directive["Namespace"], directive["Dimensions"]) == (METRICS_NAMESPACE, [["service"]])
    assert line["service"] == "ledger"
    units = {metric["Name"]: metric["Unit"] for metric in directive["Metrics"]}
    assert units.pop("Latency") == "Milliseconds"
    assert set(units.values()) == {"Count"}
    assert line["Latency"] == line["latency_ms"]
    return {name: line[name] for name in units}


def test_line_of_an_accepted_entry(
    api: LambdaApi, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line has the outcome, the counts and a hash of the owner, and no other content."""
    monkeypatch.setenv(
        "_X_AMZN_TRACE_ID",
        "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1",
    )
    api("POST", "/ledger/entry", SIGNUP, headers={"Authorization": "Bearer eyJsecret"})
    (line,) = lines(capfd)
    values = {
        name: value for name, value in line.items() if name.islower() and not name.startswith("_")
    }
    assert values.pop("latency_ms") >= values.pop("dynamodb_ms") > 0
    assert values.pop("read_units") == metrics(line).get("ReadUnits", 0)
    assert values.pop("write_units") == 0  # moto consumes no units
    assert values == {
        "service": "ledger",
        "request_id": "http-api-request",
        "function_request_id": "function-request",
        "trace_id": "1-5759e988-bd862e3fe1be46a994272793",
        "method": "POST",
        "route": "/ledger/entry",
        "status": 200,
        "code": "accepted",
        "state": "Completed",
        "owner": sha256(b"ada").hexdigest()[:16],
        "operation": "SIGNUP_CREDIT",
        "attempts": 1,
        "retries": 0,
        "stale_heads": 0,
        "dynamodb_requests": 2,
        "cold_start": True,
    }


ENTRY = "/ledger/entry"
ACCEPTED = ("accepted", "Completed", "Accepted")
ANSWERED = ("answered", "Completed", "Answered")
INSUFFICIENT = ("insufficient_balance", "CheckingBalance", "Insufficient")
INVALID = ("Validating", "FailedValidating")


@pytest.mark.parametrize(
    ("arguments", "code", "state", "metric"),
    [
        (("POST", ENTRY, {**SIGNUP, "nonce": "n2"}), *ACCEPTED),
        (("POST", ENTRY, SIGNUP), "duplicate_nonce", "CheckingNonce", "Duplicate"),
        (("POST", ENTRY, {**SPEND, "amount": 4}), *INSUFFICIENT),
        (("POST", ENTRY, {**SPEND, "amount": 0}), "invalid", *INVALID),
        (("POST", ENTRY, {**SPEND, "operation": "?"}), "unknown_operation", *INVALID),
        (("POST", ENTRY, " " * 20_000), "too_large", "Received", "FailedReceived"),
        (("PUT", "/content/secret", {"owner_id": "ada"}), *INSUFFICIENT),
        (("GET", "/ledger/ada/balance"), *ANSWERED),
        (("GET", "/ledger/ada/entries"), *ANSWERED),
        (("GET", "/ledger/ada/verify"), *ANSWERED),
        (("GET", "/secret"), "not_found", "Received", "FailedReceived"),
        (("GET", "/health"), *ANSWERED),
    ],
)
def test_each_request_is_counted_once(
    api: LambdaApi,
    capfd: pytest.CaptureFixture[str],
    arguments: Any,
    code: str,
    state: str,
    metric: str,
) -> None:
    """Each request has a line, and a metric of its outcome counts it."""
    api("POST", "/ledger/entry", SIGNUP)
    lines(capfd)
    answer = api(*arguments)
    (line,) = lines(capfd)
    assert (line["code"], line["state"], line["status"]) == (code, state, answer.status)
    assert not line["cold_start"]
    assert metrics(line).keys() - {"ReadUnits", "WriteUnits"} == {metric}
    if "code" in answer.body:
        assert (answer.body["code"], answer.body["state"]) == (code, state)


def test_replay_under_idempotency_key_is_a_duplicate(
    api: LambdaApi, capfd: pytest.CaptureFixture[str]
) -> None:
    """A replay is answered like the first request, and counted as a duplicate."""
    body = {"owner_id": "ada", "operation": "CREDIT_ADD"}
    for _ in range(2):
        assert api("POST", "/ledger/entry", body, headers={"Idempotency-Key": "key"}).status == 200
    first, again = lines(capfd)
    assert first["code"] == "accepted"
    assert (again["code"], again["state"]) == ("duplicate_nonce", "Completed")
    assert (metrics(first)["Accepted"], metrics(again)["Duplicate"]) == (1, 1)


def test_refused_callers_are_counted(
    monkeypatch: pytest.MonkeyPatch, client: "DynamoDBClient", capfd: pytest.CaptureFixture[str]
) -> None:
    """A 401 and a 403 have a line and a metric."""
    monkeypatch.setenv("LEDGER_AUTH", "jwt")
    api = LambdaApi(create_handler(create_app(client)))
    capfd.readouterr()
    for claims, code in ((None, "unauthorized"), ({"sub": "eve"}, "forbidden")):
        api.claims = claims
        api("GET", "/ledger/ada/balance")
        (line,) = lines(capfd)
        assert (line["code"], line["state"]) == (code, "Received")
        assert metrics(line) == {"FailedReceived": 1}
    api.claims = None
    api("GET", "/health")
    (line,) = lines(capfd)
    assert (line["code"], line["state"]) == ("answered", "Completed")
    assert metrics(line) == {"Answered": 1}


@pytest.mark.parametrize(
    ("claims", "client_id", "caller"),
    [
        (
            {"sub": "shop-id", "client_id": "shop", "azp": "other", "scope": "ledger/write"},
            "shop",
            "shop-id",
        ),
        ({"sub": "", "azp": "shop", "scope": "ledger/write"}, "shop", None),
        ({"cid": "shop", "appid": "", "scope": "ledger/write"}, "shop", None),
        (
            {"sub": "ops", "client_id": ["shop"], "appid": "c" * 200, "scope": "ledger/write"},
            "c" * 128,
            "ops",
        ),
        ({"sub": "ops", "client_id": 7, "scope": "ledger/write"}, None, "ops"),
    ],
)
def test_line_names_the_client_and_the_caller(
    monkeypatch: pytest.MonkeyPatch,
    client: "DynamoDBClient",
    capfd: pytest.CaptureFixture[str],
    claims: dict[str, Any],
    client_id: str | None,
    caller: str | None,
) -> None:
    """A line has the client of the token, and a hash of its subject."""
    monkeypatch.setenv("LEDGER_AUTH", "jwt")
    api = LambdaApi(create_handler(create_app(client)))
    capfd.readouterr()
    api.claims = claims
    assert api("POST", "/ledger/entry", SIGNUP).status == 200
    (line,) = lines(capfd)
    assert line.get("client_id") == client_id
    assert line.get("caller") == (caller and sha256(caller.encode()).hexdigest()[:16])


def test_lost_answers_of_dynamodb_are_counted(
    monkeypatch: pytest.MonkeyPatch,
    client: "DynamoDBClient",
    api: LambdaApi,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A request that DynamoDB does not answer counts as Unavailable, with its retries."""

    def fail(**_: Any) -> None:
        raise ReadTimeoutError(endpoint_url="http://secret")

    monkeypatch.setattr(client, "get_item", fail, raising=False)
    api.context.milliseconds = 3500  # half a second for the request
    assert api("POST", "/ledger/entry", SIGNUP).status == 503
    (line,) = lines(capfd)
    assert (line["code"], line["state"], line["attempts"]) == ("unavailable", "CheckingBalance", 0)
    assert line["retries"] == line["dynamodb_requests"] - 1 >= 1
    assert metrics(line) == {
        "FailedCheckingBalance": 1,
        "Unavailable": 1,
        "Retries": line["retries"],
    }


def test_unexpected_error_is_counted(
    monkeypatch: pytest.MonkeyPatch, api: LambdaApi, capfd: pytest.CaptureFixture[str]
) -> None:
    """An unexpected error counts as Internal."""
    monkeypatch.setattr(OperationProcessor, "process", lambda *_, **__: 1 / 0)
    assert api("POST", "/ledger/entry", SIGNUP).status == 500
    (line,) = lines(capfd)
    assert (line["code"], line["status"]) == ("internal", 500)
    assert metrics(line) == {"FailedProcessing": 1, "Internal": 1}


def test_newer_format_needs_the_operator(
    client: "DynamoDBClient",
    api: LambdaApi,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A 501 is counted as Internal. The log names the unknown attributes, the answer does not."""
    client.put_item(
        TableName=os.environ["LEDGER_ACCOUNTS_TABLE"],
        Item={"account": {"S": "ada"}, "entry_count": {"N": "1"}, "vaults": {"S": "1"}},
    )
    answer = api("POST", "/ledger/entry", SIGNUP)
    assert (answer.status, answer.body["code"]) == (501, "unknown_format")
    upgrade = "A newer version of the ledger wrote this; upgrade this deployment."
    assert answer.body["detail"] == upgrade
    assert "vaults" not in str(answer.body)
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert "vaults" in caplog.text
    (line,) = lines(capfd)
    assert (line["code"], line["status"]) == ("unknown_format", 501)
    counted = metrics(line)
    assert (counted["FailedCheckingBalance"], counted["Internal"]) == (1, 1)


def test_lost_race_is_counted(
    client: "DynamoDBClient", api: LambdaApi, capfd: pytest.CaptureFixture[str]
) -> None:
    """An account that another process has moved costs a second attempt, no pause and no read."""
    api("POST", "/ledger/entry", SIGNUP)
    LambdaApi(create_handler(create_app(client)))("POST", "/ledger/entry", SPEND)
    lines(capfd)
    api("POST", "/ledger/entry", {**SPEND, "nonce": "order-2"})
    (line,) = lines(capfd)
    assert (line["attempts"], line["stale_heads"], line["retries"]) == (2, 1, 0)
    assert line["dynamodb_requests"] == 2
    assert metrics(line)["StaleHeads"] == 1


def test_answer_has_the_consumed_capacity_on_request(real_client: "DynamoDBClient") -> None:
    """A request header asks for the capacity; DynamoDB Local counts read units as DynamoDB does."""
    api = LambdaApi(create_handler(create_app(real_client)))
    assert "consumed-capacity" not in api("POST", "/ledger/entry", SIGNUP).headers
    asked = {"Return-Consumed-Capacity": "TOTAL"}
    posted = api("POST", "/ledger/entry", {**SIGNUP, "nonce": "n"}, headers=asked)
    capacity = posted.headers["consumed-capacity"]
    assert re.fullmatch(r"read=0\.0, write=[1-9]\d*\.0, requests=1", capacity)
    read = api("GET", "/ledger/ada/balance", headers=asked)
    assert read.headers["consumed-capacity"] == "read=1.0, write=0.0, requests=1"
    health = api("GET", "/health", headers=asked)
    assert health.headers["consumed-capacity"] == "read=0.0, write=0.0, requests=0"


def test_line_that_cannot_be_made_changes_no_answer(
    monkeypatch: pytest.MonkeyPatch, api: LambdaApi, caplog: pytest.LogCaptureFixture
) -> None:
    """The entry is written and answered, and the error is logged."""
    monkeypatch.setattr("ledger_core.http.telemetry.owner_hash", lambda owner_id: 1 / 0)
    assert api("POST", "/ledger/entry", SIGNUP).status == 200
    assert "ZeroDivisionError" in caplog.text


def test_requests_that_overlap_are_counted_apart(
    monkeypatch: pytest.MonkeyPatch, client: "DynamoDBClient", capfd: pytest.CaptureFixture[str]
) -> None:
    """Under a server, each line has only the counts of its own request."""
    gate = Gate(monkeypatch, client, "held")
    with serving(client) as server, ThreadPoolExecutor(1) as pool:
        capfd.readouterr()
        held = pool.submit(server.post, "/ledger/entry", json={**SIGNUP, "owner_id": "held"})
        assert gate.reached.wait(SECONDS_MAX)
        for number in range(3):
            body = {**SIGNUP, "nonce": f"n{number}"}
            assert server.post("/ledger/entry", json=body).status_code == 200
        gate.opened.set()
        assert held.result().status_code == 200
    counts = [(line["owner"], line["dynamodb_requests"], line["attempts"]) for line in lines(capfd)]
    ada = owner_hash("ada")
    other = owner_hash("held")
    assert counts == [(ada, 2, 1), (ada, 1, 1), (ada, 1, 1), (other, 2, 1)]


def test_line_has_nothing_of_the_request_before(
    monkeypatch: pytest.MonkeyPatch, api: LambdaApi, capfd: pytest.CaptureFixture[str]
) -> None:
    """Even if the line of a request could not be written, the next line is its own."""
    monkeypatch.setattr("sys.stdout.write", lambda line: 1 / 0)
    assert api("POST", "/ledger/entry", SIGNUP).status == 200
    monkeypatch.undo()
    api("GET", "/health")
    (line,) = lines(capfd)
    assert (line["code"], metrics(line)) == ("answered", {"Answered": 1})
    assert not {"owner", "operation"} & line.keys()


def test_cancelled_request_is_not_counted_as_answered(
    client: "DynamoDBClient", capfd: pytest.CaptureFixture[str]
) -> None:
    """The line of a request that a server cancels has the code internal."""

    async def cancelled(scope: Scope, receive: Receive, send: Send) -> None:
        raise asyncio.CancelledError

    scope = {"type": "http", "method": "GET", "path": "/health", "headers": []}
    with pytest.raises(asyncio.CancelledError):
        asyncio.get_event_loop().run_until_complete(Telemetry(cancelled)(scope, unused, unused))
    (line,) = lines(capfd)
    assert (line["status"], line["code"]) == (500, "internal")


async def unused(*_: Any) -> Any:
    raise AssertionError


def test_websockets_are_refused(client: "DynamoDBClient") -> None:
    """A websocket is closed, because its caller would not be checked."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    app = create_app(client)
    scope = {"type": "websocket", "path": "/ledger/entry", "headers": []}
    asyncio.get_event_loop().run_until_complete(app(scope, unused, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_short_lines_are_for_people(
    client: "DynamoDBClient", capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `LEDGER_LOG=short`, a request has a short line, with a dash for an unknown value."""
    monkeypatch.setenv("LEDGER_LOG", "short")
    api = LambdaApi(create_handler(create_app(client)))
    api("POST", "/ledger/entry", SIGNUP, headers={"Authorization": "Bearer eyJsecret"})
    api("GET", "/ledger/ada/balance")
    api("GET", "/secret")
    printed = capfd.readouterr().out
    assert not SECRETS.findall(printed)
    assert [re.sub(r"[0-9.]+ ms$", "", line[9:]) for line in printed.splitlines()] == [
        "POST /ledger/entry 200 accepted SIGNUP_CREDIT ",
        "GET /ledger/{owner_id}/balance 200 answered - ",
        "GET - 404 not_found - ",
    ]


@pytest.mark.parametrize(
    "environment",
    [
        {"LEDGER_LOG": "json"},
        {"LEDGER_LOG": ""},
        {"LEDGER_LOG": "loud"},
        {"LEDGER_LOG": "short", "AWS_LAMBDA_FUNCTION_NAME": "api"},
    ],
)
def test_lines_are_json_unless_a_server_is_asked_for_short_ones(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    """In Lambda, lines are always JSON, because CloudWatch makes metrics of them."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert isinstance(request_lines(), MetricLines)
