"""What is told of a request: one structured line, its metrics, what it consumed."""

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
"""Not any `ada`: an id in hex digits may have these three by chance."""


class Context:
    """What Lambda tells a handler of an invocation."""

    aws_request_id = "invocation-1"
    milliseconds = 30_000

    def get_remaining_time_in_millis(self) -> int:
        return self.milliseconds


@pytest.fixture
def api(client: "DynamoDBClient", capfd: pytest.CaptureFixture[str]) -> LambdaApi:
    """A handler just started; what it prints is captured."""
    api = LambdaApi(create_handler(create_app(client)))
    api.context = Context()
    capfd.readouterr()
    return api


def lines(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The lines told since this was last asked, none of which gives a secret away."""
    out = capfd.readouterr().out
    assert not SECRETS.findall(out)
    return [json.loads(line) for line in out.splitlines()]


def metrics(line: dict[str, Any]) -> dict[str, float]:
    """The metrics that CloudWatch reads out of a line, by name, less Latency, which they all have."""
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
    """One line per request says who, what, how it ended and what it took; the owner is a hash, the rest is left out."""
    monkeypatch.setenv(
        "_X_AMZN_TRACE_ID",
        "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1",
    )
    api("POST", "/ledger/entry", SIGNUP, headers={"Authorization": "Bearer eyJsecret"})
    (line,) = lines(capfd)
    told = {
        name: value for name, value in line.items() if name.islower() and not name.startswith("_")
    }
    assert told.pop("latency_ms") >= told.pop("dynamodb_ms") > 0
    assert (told.pop("read_units"), told.pop("write_units")) == (
        metrics(line).get("ReadUnits", 0),
        0,
    )  # moto says none
    assert told == {
        "service": "ledger",
        "request_id": "http-api-request",
        "function_request_id": "invocation-1",
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


@pytest.mark.parametrize(
    ("request_", "code", "state", "metric"),
    [
        (("POST", "/ledger/entry", {**SIGNUP, "nonce": "n2"}), "accepted", "Completed", "Accepted"),
        (("POST", "/ledger/entry", SIGNUP), "duplicate_nonce", "CheckingNonce", "Duplicate"),
        (("POST", "/ledger/entry", {**SPEND, "amount": 4}), "insufficient_balance", "CheckingBalance", "Insufficient"),
        (("POST", "/ledger/entry", {**SPEND, "amount": 0}), "invalid", "Validating", "FailedValidating"),
        (("POST", "/ledger/entry", {**SPEND, "operation": "?"}), "unknown_operation", "Validating", "FailedValidating"),
        (("POST", "/ledger/entry", " " * 20_000), "too_large", "Received", "FailedReceived"),
        (("PUT", "/content/secret", {"owner_id": "ada"}), "insufficient_balance", "CheckingBalance", "Insufficient"),
        (("GET", "/ledger/ada/balance"), "answered", "Completed", "Answered"),
        (("GET", "/ledger/ada/entries"), "answered", "Completed", "Answered"),
        (("GET", "/ledger/ada/verify"), "answered", "Completed", "Answered"),
        (("GET", "/secret"), "not_found", "Received", "FailedReceived"),
        (("GET", "/health"), "answered", "Completed", "Answered"),
    ],
)  # fmt: skip
def test_each_request_is_counted_once(
    api: LambdaApi,
    capfd: pytest.CaptureFixture[str],
    request_: Any,
    code: str,
    state: str,
    metric: str,
) -> None:
    """Whatever becomes of a request, one line says so, and one metric of the outcomes counts it."""
    api("POST", "/ledger/entry", SIGNUP)
    lines(capfd)
    answer = api(*request_)
    (line,) = lines(capfd)
    assert (line["code"], line["state"], line["status"], line["cold_start"]) == (
        code,
        state,
        answer.status,
        False,
    )
    assert metrics(line).keys() - {"ReadUnits", "WriteUnits"} == {metric}
    if "code" in answer.body:
        assert (answer.body["code"], answer.body["state"]) == (code, state)


def test_replay_under_idempotency_key_is_a_duplicate(
    api: LambdaApi, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is answered like the first time, but it is no new entry, and is not counted as one."""
    body = {"owner_id": "ada", "operation": "CREDIT_ADD"}
    for _ in range(2):
        assert api("POST", "/ledger/entry", body, headers={"Idempotency-Key": "key"}).status == 200
    first, again = lines(capfd)
    assert (first["code"], again["code"], again["state"]) == (
        "accepted",
        "duplicate_nonce",
        "Completed",
    )
    assert (metrics(first)["Accepted"], metrics(again)["Duplicate"]) == (1, 1)


def test_refused_callers_are_counted(
    monkeypatch: pytest.MonkeyPatch, client: "DynamoDBClient", capfd: pytest.CaptureFixture[str]
) -> None:
    """401 and 403 have their lines too."""
    monkeypatch.setenv("LEDGER_AUTH", "jwt")
    api = LambdaApi(create_handler(create_app(client)))
    capfd.readouterr()
    for claims, code in ((None, "unauthorized"), ({"sub": "eve"}, "forbidden")):
        api.claims = claims
        api("GET", "/ledger/ada/balance")
        (line,) = lines(capfd)
        assert (line["code"], line["state"], metrics(line)) == (
            code,
            "Received",
            {"FailedReceived": 1},
        )
    api.claims = None
    api("GET", "/health")
    (line,) = lines(capfd)
    assert (line["code"], line["state"], metrics(line)) == (
        "answered",
        "Completed",
        {"Answered": 1},
    )


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
def test_who_posted_is_told(
    monkeypatch: pytest.MonkeyPatch,
    client: "DynamoDBClient",
    capfd: pytest.CaptureFixture[str],
    claims: dict[str, Any],
    client_id: str | None,
    caller: str | None,
) -> None:
    """The line of an entry names the client that its token was given to, and the subject by a hash as owners are."""
    monkeypatch.setenv("LEDGER_AUTH", "jwt")
    api = LambdaApi(create_handler(create_app(client)))
    capfd.readouterr()
    api.claims = claims
    assert api("POST", "/ledger/entry", SIGNUP).status == 200
    (line,) = lines(capfd)
    assert (line.get("client_id"), line.get("caller")) == (
        client_id,
        caller and sha256(caller.encode()).hexdigest()[:16],
    )


def test_trouble_with_dynamodb_is_told(
    monkeypatch: pytest.MonkeyPatch,
    client: "DynamoDBClient",
    api: LambdaApi,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A request that DynamoDB did not answer in time: every request sent is counted, and the operator's metric."""

    def fail(**_: Any) -> None:
        raise ReadTimeoutError(endpoint_url="http://secret")

    monkeypatch.setattr(client, "get_item", fail, raising=False)
    api.context.milliseconds = 3500  # which leaves half a second for it
    assert api("POST", "/ledger/entry", SIGNUP).status == 503
    (line,) = lines(capfd)
    assert (line["code"], line["state"], line["attempts"]) == ("unavailable", "CheckingBalance", 0)
    assert line["retries"] == line["dynamodb_requests"] - 1 >= 1
    assert metrics(line) == {
        "FailedCheckingBalance": 1,
        "Unavailable": 1,
        "Retries": line["retries"],
    }


def test_bug_is_told(
    monkeypatch: pytest.MonkeyPatch, api: LambdaApi, capfd: pytest.CaptureFixture[str]
) -> None:
    """What nobody foresaw is counted as Internal; the reason is in a line of its own."""
    monkeypatch.setattr(OperationProcessor, "process", lambda *_, **__: 1 / 0)
    assert api("POST", "/ledger/entry", SIGNUP).status == 500
    (line,) = lines(capfd)
    assert (line["code"], line["status"], metrics(line)) == (
        "internal",
        500,
        {"FailedProcessing": 1, "Internal": 1},
    )


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


def test_lost_race_is_told(
    client: "DynamoDBClient", api: LambdaApi, capfd: pytest.CaptureFixture[str]
) -> None:
    """A head that another process has moved costs one more attempt and is a stale head; no pause, no read."""
    api("POST", "/ledger/entry", SIGNUP)
    LambdaApi(create_handler(create_app(client)))("POST", "/ledger/entry", SPEND)
    lines(capfd)
    api("POST", "/ledger/entry", {**SPEND, "nonce": "order-2"})
    (line,) = lines(capfd)
    assert [line[name] for name in ("attempts", "stale_heads", "retries", "dynamodb_requests")] == [
        2,
        1,
        0,
        2,
    ]
    assert metrics(line)["StaleHeads"] == 1


def test_a_request_that_asks_is_told_what_it_consumed(real_client: "DynamoDBClient") -> None:
    """The header goes only to those who ask for it. The units are DynamoDB's own; DynamoDB Local is right of reads."""
    api = LambdaApi(create_handler(create_app(real_client)))
    assert "consumed-capacity" not in api("POST", "/ledger/entry", SIGNUP).headers
    asked = {"Return-Consumed-Capacity": "TOTAL"}
    posted = api("POST", "/ledger/entry", {**SIGNUP, "nonce": "n"}, headers=asked).headers[
        "consumed-capacity"
    ]
    assert re.fullmatch(r"read=0\.0, write=[1-9]\d*\.0, requests=1", posted)
    told = api("GET", "/ledger/ada/balance", headers=asked).headers["consumed-capacity"]
    assert told == "read=1.0, write=0.0, requests=1"
    assert (
        api("GET", "/health", headers=asked).headers["consumed-capacity"]
        == "read=0.0, write=0.0, requests=0"
    )


def test_a_line_that_cannot_be_written_harms_no_answer(
    monkeypatch: pytest.MonkeyPatch, api: LambdaApi, caplog: pytest.LogCaptureFixture
) -> None:
    """The entry is stored and answered; the log's own trouble is in the log."""
    monkeypatch.setattr("ledger_core.http.telemetry.owner_hash", lambda owner_id: 1 / 0)
    assert api("POST", "/ledger/entry", SIGNUP).status == 200
    assert "ZeroDivisionError" in caplog.text


def test_requests_that_overlap_are_counted_apart(
    monkeypatch: pytest.MonkeyPatch, client: "DynamoDBClient", capfd: pytest.CaptureFixture[str]
) -> None:
    """Under a server too, where calls run in threads at once: what one request used is on its own line."""
    gate = Gate(monkeypatch, client, "held")
    with serving(client) as server, ThreadPoolExecutor(1) as pool:
        capfd.readouterr()
        held = pool.submit(server.post, "/ledger/entry", json={**SIGNUP, "owner_id": "held"})
        assert gate.reached.wait(SECONDS_MAX)
        for number in range(3):
            assert (
                server.post("/ledger/entry", json={**SIGNUP, "nonce": f"n{number}"}).status_code
                == 200
            )
        gate.opened.set()
        assert held.result().status_code == 200
    told = [(line["owner"], line["dynamodb_requests"], line["attempts"]) for line in lines(capfd)]
    ada, other = owner_hash("ada"), owner_hash("held")
    assert told == [(ada, 2, 1), (ada, 1, 1), (ada, 1, 1), (other, 2, 1)]


def test_nothing_of_a_request_is_on_the_next_one_s_line(
    monkeypatch: pytest.MonkeyPatch, api: LambdaApi, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not even when a line could not be written."""
    monkeypatch.setattr("sys.stdout.write", lambda line: 1 / 0)
    assert api("POST", "/ledger/entry", SIGNUP).status == 200
    monkeypatch.undo()
    api("GET", "/health")
    (line,) = lines(capfd)
    assert (line["code"], metrics(line)) == ("answered", {"Answered": 1})
    assert not {"owner", "operation"} & line.keys()


def test_who_is_cancelled_got_no_answer(
    client: "DynamoDBClient", capfd: pytest.CaptureFixture[str]
) -> None:
    """A request that a server cancels, as when it ends, is not told as answered."""

    async def cancelled(scope: Scope, receive: Receive, send: Send) -> None:
        raise asyncio.CancelledError

    scope = {"type": "http", "method": "GET", "path": "/health", "headers": []}
    with pytest.raises(asyncio.CancelledError):
        asyncio.get_event_loop().run_until_complete(Telemetry(cancelled)(scope, none, none))
    (line,) = lines(capfd)
    assert (line["status"], line["code"]) == (500, "internal")


async def none(*_: Any) -> Any:
    raise AssertionError


def test_websockets_are_turned_away(client: "DynamoDBClient") -> None:
    """Nobody checks who opens one, so nobody may, whatever an app's router offers."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    app = create_app(client)
    scope = {"type": "websocket", "path": "/ledger/entry", "headers": []}
    asyncio.get_event_loop().run_until_complete(app(scope, none, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_short_lines_are_for_people(
    client: "DynamoDBClient", capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where LEDGER_LOG asks for them, a request is one short line, a dash for what is not known."""
    monkeypatch.setenv("LEDGER_LOG", "short")
    api = LambdaApi(create_handler(create_app(client)))
    api("POST", "/ledger/entry", SIGNUP, headers={"Authorization": "Bearer eyJsecret"})
    api("GET", "/ledger/ada/balance")
    api("GET", "/secret")
    told = capfd.readouterr().out
    assert not SECRETS.findall(told)
    assert [re.sub(r"[0-9.]+ ms$", "", line[9:]) for line in told.splitlines()] == [
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
    """In Lambda always: CloudWatch makes metrics of them."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert isinstance(request_lines(), MetricLines)
