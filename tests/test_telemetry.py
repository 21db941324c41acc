"""What is told of a request: one structured line, its metrics, what it consumed."""

import json
import re
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from botocore.exceptions import ReadTimeoutError

from functions.example_app.app import create_app
from ledger_core import OperationProcessor
from ledger_core.api import create_handler
from ledger_core.telemetry import METRICS_NAMESPACE
from tests.support import LambdaApi
from tests.test_server import serving

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

SIGNUP = {"owner_id": "ada", "operation": "SIGNUP_CREDIT", "nonce": "secret-nonce", "metadata": {"k": "secret-value"}}
SPEND = {"owner_id": "ada", "operation": "CREDIT_SPEND", "nonce": "order"}
SECRETS = ("secret", "ada", "Bearer", "eyJ")


class Context:
    """What Lambda tells a handler of an invocation with time enough for one call."""

    aws_request_id = "invocation-1"

    def get_remaining_time_in_millis(self) -> int:
        return 3100


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
    assert not [secret for secret in SECRETS if secret in out]
    return [json.loads(line) for line in out.splitlines()]


def metrics(line: dict[str, Any]) -> dict[str, float]:
    """The metrics that CloudWatch reads out of a line, by name, less Latency, which they all have."""
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    assert (directive["Namespace"], directive["Dimensions"]) == (METRICS_NAMESPACE, [["service"]])
    assert line["service"] == "ledger"
    units = {metric["Name"]: metric["Unit"] for metric in directive["Metrics"]}
    assert units.pop("Latency") == "Milliseconds"
    assert set(units.values()) == {"Count"}
    assert line["Latency"] == [line["latency_ms"]]
    return {name: sum(line[name]) for name in units}


def test_line_of_an_accepted_entry(
    api: LambdaApi, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line per request says who, what, how it ended and what it took; the owner is a hash, the rest is left out."""
    monkeypatch.setenv("_X_AMZN_TRACE_ID", "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1")
    api("POST", "/ledger/entry", SIGNUP, headers={"Authorization": "Bearer eyJsecret"})
    (line,) = lines(capfd)
    told = {name: value for name, value in line.items() if name.islower() and not name.startswith("_")}
    assert told.pop("latency_ms") >= told.pop("dynamodb_ms") > 0
    assert (told.pop("read_units"), told.pop("write_units")) == (metrics(line).get("ReadUnits", 0), 0)  # moto says none
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
    api: LambdaApi, capfd: pytest.CaptureFixture[str], request_: Any, code: str, state: str, metric: str
) -> None:
    """Whatever becomes of a request, one line says so, and one metric of the outcomes counts it."""
    api("POST", "/ledger/entry", SIGNUP)
    lines(capfd)
    answer = api(*request_)
    (line,) = lines(capfd)
    assert (line["code"], line["state"], line["status"], line["cold_start"]) == (code, state, answer.status, False)
    assert metrics(line).keys() - {"ReadUnits", "WriteUnits"} == {metric}
    if "code" in answer.body:
        assert (answer.body["code"], answer.body["state"]) == (code, state)


def test_replay_under_idempotency_key_is_a_duplicate(api: LambdaApi, capfd: pytest.CaptureFixture[str]) -> None:
    """It is answered like the first time, but it is no new entry, and is not counted as one."""
    body = {"owner_id": "ada", "operation": "CREDIT_ADD"}
    for _ in range(2):
        assert api("POST", "/ledger/entry", body, headers={"Idempotency-Key": "key"}).status == 200
    first, again = lines(capfd)
    assert (first["code"], again["code"], again["state"]) == ("accepted", "duplicate_nonce", "Completed")
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
        assert (line["code"], line["state"], metrics(line)) == (code, "Received", {"FailedReceived": 1})
    api.claims = None
    api("GET", "/health")
    (line,) = lines(capfd)
    assert (line["code"], line["state"], metrics(line)) == ("answered", "Completed", {"Answered": 1})


def test_trouble_with_dynamodb_is_told(
    monkeypatch: pytest.MonkeyPatch, client: "DynamoDBClient", api: LambdaApi, capfd: pytest.CaptureFixture[str]
) -> None:
    """A request that DynamoDB did not answer in time: every request sent is counted, and the operator's metric."""

    def fail(**_: Any) -> None:
        raise ReadTimeoutError(endpoint_url="http://secret")

    monkeypatch.setattr(client, "get_item", fail, raising=False)
    assert api("POST", "/ledger/entry", SIGNUP).status == 503
    (line,) = lines(capfd)
    assert (line["code"], line["state"], line["attempts"]) == ("unavailable", "CheckingBalance", 0)
    assert line["dynamodb_requests"] >= 1
    assert line["retries"] >= 1
    assert metrics(line) == {"FailedCheckingBalance": 1, "Unavailable": 1, "Retries": line["retries"]}


def test_bug_is_told(monkeypatch: pytest.MonkeyPatch, api: LambdaApi, capfd: pytest.CaptureFixture[str]) -> None:
    """What nobody foresaw is counted as Internal; the reason is in a line of its own."""
    monkeypatch.setattr(OperationProcessor, "process", lambda *_, **__: 1 / 0)
    assert api("POST", "/ledger/entry", SIGNUP).status == 500
    (line,) = lines(capfd)
    assert (line["code"], line["status"], metrics(line)) == ("internal", 500, {"FailedProcessing": 1, "Internal": 1})


def test_lost_race_is_told(client: "DynamoDBClient", api: LambdaApi, capfd: pytest.CaptureFixture[str]) -> None:
    """A head that another process has moved costs one more attempt and is a stale head; no pause, no read."""
    api("POST", "/ledger/entry", SIGNUP)
    LambdaApi(create_handler(create_app(client)))("POST", "/ledger/entry", SPEND)
    lines(capfd)
    api("POST", "/ledger/entry", {**SPEND, "nonce": "order-2"})
    (line,) = lines(capfd)
    assert [line[name] for name in ("attempts", "stale_heads", "retries", "dynamodb_requests")] == [2, 1, 0, 2]
    assert metrics(line)["StaleHeads"] == 1


def test_a_request_that_asks_is_told_what_it_consumed(real_client: "DynamoDBClient") -> None:
    """The header goes only to those who ask for it. The units are DynamoDB's own; DynamoDB Local is right of reads."""
    api = LambdaApi(create_handler(create_app(real_client)))
    assert "consumed-capacity" not in api("POST", "/ledger/entry", SIGNUP).headers
    asked = {"Return-Consumed-Capacity": "TOTAL"}
    posted = api("POST", "/ledger/entry", {**SIGNUP, "nonce": "n"}, headers=asked).headers["consumed-capacity"]
    assert re.fullmatch(r"read=0\.0, write=[1-9]\d*\.0, requests=1", posted)
    told = api("GET", "/ledger/ada/balance", headers=asked).headers["consumed-capacity"]
    assert told == "read=1.0, write=0.0, requests=1"
    assert api("GET", "/health", headers=asked).headers["consumed-capacity"] == "read=0.0, write=0.0, requests=0"


def test_a_line_that_cannot_be_written_harms_no_answer(
    monkeypatch: pytest.MonkeyPatch, api: LambdaApi, caplog: pytest.LogCaptureFixture
) -> None:
    """The entry is stored and answered; the log's own trouble is in the log."""
    monkeypatch.setattr("ledger_core.telemetry.owner_hash", lambda owner_id: 1 / 0)
    assert api("POST", "/ledger/entry", SIGNUP).status == 200
    assert "ZeroDivisionError" in caplog.text


def test_requests_that_overlap_are_counted_apart(client: "DynamoDBClient", capfd: pytest.CaptureFixture[str]) -> None:
    """Under a server too, where calls run in threads: what one request used is on its own line."""
    with serving(client) as server:
        capfd.readouterr()
        for number in range(3):
            answer: httpx.Response = server.post("/ledger/entry", json={**SIGNUP, "nonce": f"n{number}"})
            assert answer.status_code == 200
    assert [line["dynamodb_requests"] for line in lines(capfd)] == [2, 1, 1]
