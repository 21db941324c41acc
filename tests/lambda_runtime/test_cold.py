"""The built artifact in Lambda's runtime: it starts, answers events, and fails as it should."""

import json
import re
import socket
from typing import Any

import pytest

from tests.lambda_runtime.conftest import Queue, Start
from tests.support import ROOT, LambdaApi

EMULATOR_S = re.compile(r"(START|END|REPORT) RequestId|\d\d \w{3} \d{4} [\d:,]+ \[\w+\] \(rapid\)")
SIGNUP = {"owner_id": "ada", "operation": "SIGNUP_CREDIT", "nonce": "signup"}


def event(name: str) -> Any:
    return json.loads((ROOT / f"infra/events/{name}.json").read_text())


def test_artifact_answers_events_in_the_real_runtime(start: Start) -> None:
    """Events of the HTTP API and a REST API: an entry, its duplicate; then more of them."""
    runtime = start()
    accepted, duplicate = (runtime(event(name)) for name in ("http_api", "rest_api"))
    print(f"\nINIT {runtime.init_ms:.0f} ms")
    assert runtime.init_ms > 0
    assert (accepted["statusCode"], json.loads(accepted["body"])["balance_after"]) == (200, 3)
    assert (duplicate["statusCode"], json.loads(duplicate["body"])["entry"]) == (
        409,
        json.loads(accepted["body"]),
    )
    api = LambdaApi(runtime)
    for _ in range(3):
        assert api("POST", "/ledger/entry", SIGNUP).body["replay"] is True
    assert api("GET", "/ledger/ada/verify").body["valid"] is True
    api.claims = {"sub": "eve"}
    assert api("GET", "/ledger/ada/balance").status == 403
    api.claims = None
    assert api("GET", "/ledger/ada/balance").status == 401


def test_scheduled_function_grants_rewards_in_the_real_runtime(start: Start, queue: Queue) -> None:
    """The schedule's event becomes segments on a queue; each segment is swept to its end."""
    api = LambdaApi(start())
    owners = [f"owner-{number}" for number in range(30)]
    for owner_id in owners:
        assert api("POST", "/ledger/entry", {**SIGNUP, "owner_id": owner_id}).status == 200
    runtime = start("DailyRewardFunction", LEDGER_REWARDS_QUEUE_URL=queue.url)
    assert runtime(event("schedule")) == {
        "operation": "DAILY_REWARD",
        "period": "2026-11-22",
        "segments": 4,
    }
    print(f"\nINIT of the scheduled function {runtime.init_ms:.0f} ms")
    records = queue.receive()
    assert len(records) == 4
    assert runtime({"Records": [*records, {"messageId": "bad", "body": "?"}]}) == {
        "batchItemFailures": [{"itemIdentifier": "bad"}]
    }
    # A segment of all owners, who have the reward by now.
    assert runtime(event("segment")) == {"batchItemFailures": []}
    for owner_id in owners:
        found = api("GET", f"/ledger/{owner_id}/entries").body["entries"]
        assert [one["nonce"] for one in found] == ["ledger:daily-reward:2026-11-22", "signup"]
        assert api("GET", f"/ledger/{owner_id}/verify").body["valid"] is True
    complete, again = (line for line in runtime.lines() if line.get("sweep") == "complete")
    assert (complete["granted"], complete["service"], again["already"]) == (30, "ledger", 30)
    assert "owner-" not in runtime.log
    written = [line for line in runtime.log.splitlines() if line and not EMULATOR_S.match(line)]
    assert all(isinstance(json.loads(line), dict) for line in written)


def test_scheduled_function_refuses_other_events_in_the_real_runtime(
    start: Start, queue: Queue
) -> None:
    """Lambda retries the error and then keeps a dead letter; the log says what is wrong."""
    runtime = start("DailyRewardFunction", LEDGER_REWARDS_QUEUE_URL=queue.url)
    answer = runtime({"segmnets": 4})
    assert answer["errorType"] == "InvalidRequestError"
    assert "invalid schedule event: segmnets" in answer["errorMessage"]
    assert queue.receive() == []


def test_log_of_the_real_runtime_is_json(start: Start) -> None:
    """The function logs a line of JSON for each request; the first says that it is a cold start."""
    runtime = start()
    api = LambdaApi(runtime)
    for _ in range(2):
        api("POST", "/ledger/entry", SIGNUP)
    first, second = (line for line in runtime.lines() if "latency_ms" in line)
    written = [line for line in runtime.log.splitlines() if line and not EMULATOR_S.match(line)]
    assert len(written) >= 2
    assert all(isinstance(json.loads(line), dict) for line in written)
    assert [(line["code"], line["cold_start"]) for line in (first, second)] == [
        ("accepted", True),
        ("duplicate_nonce", False),
    ]
    assert len(first["function_request_id"]) == 36
    assert first["function_request_id"] in runtime.log.replace(json.dumps(first), "")
    assert api("GET", "/ledger/some-owner-s-id/balance").status == 200
    assert (
        len(
            [
                line
                for line in runtime.lines()
                if line.get("logger", "").partition(".")[0] != "botocore"
            ]
        )
        == 3
    )
    assert "some-owner-s-id" not in runtime.log


def test_no_auth_is_refused_inside_lambda(start: Start) -> None:
    """LEDGER_AUTH=none does not start: the log says why, outside it is a bare failure."""
    runtime = start(LEDGER_AUTH="none")
    assert runtime(event("http_api")) == {}
    assert (
        "ledger: LEDGER_AUTH=none is for local runs only and is refused inside Lambda"
        in runtime.log
    )


def test_missing_setting_is_a_readable_line(start: Start) -> None:
    """A function deployed without its table's name says so when it starts."""
    runtime = start(LEDGER_ACCOUNTS_TABLE="")
    assert runtime(event("http_api")) == {}
    assert (
        "ledger: LEDGER_ACCOUNTS_TABLE is not set: give it the name of the DynamoDB table"
        in runtime.log
    )


def test_missing_table_is_a_readable_error_and_a_bare_500(start: Start) -> None:
    """A cold start without a table: the log names the error, and the caller does not learn it."""
    runtime = start(LEDGER_ACCOUNTS_TABLE="not-there")
    answer = runtime(event("http_api"))
    assert answer["statusCode"] == 500
    body = json.loads(answer["body"])
    assert (body["code"], body["state"]) == ("internal", "CheckingBalance")
    assert "ResourceNotFoundException" not in answer["body"]
    (line,) = (line for line in runtime.lines() if line.get("level") == "ERROR")
    assert (line["request_id"], line["errorType"]) == (body["request_id"], "StoreError")
    assert "ResourceNotFoundException" in line["errorMessage"]


@pytest.mark.parametrize(
    ("trouble", "timeout_seconds"),
    [("nobody listens", "6"), ("nobody answers", "6"), ("nobody answers", "15")],
)
def test_dynamodb_out_of_reach_is_503_before_the_function_s_time_is_up(
    start: Start, trouble: str, timeout_seconds: str
) -> None:
    """The answer comes before the function's time is up, and each try can end within it."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1] if trouble == "nobody answers" else 9  # where nobody listens
        endpoint = f"http://127.0.0.1:{port}"
        runtime = start(
            AWS_ENDPOINT_URL_DYNAMODB=endpoint, AWS_LAMBDA_FUNCTION_TIMEOUT=timeout_seconds
        )
        # Here this request's time includes the initialization.
        assert LambdaApi(runtime)("GET", "/health").status == 200
        answer = runtime(event("http_api"))
    assert (answer["statusCode"], answer["headers"]["retry-after"]) == (503, "1")
    body = json.loads(answer["body"])
    assert (body["code"], body["state"]) == ("unavailable", "CheckingBalance")
    assert "127.0.0.1" not in answer["body"]
    _, line = (line for line in runtime.lines() if "latency_ms" in line)
    assert line["latency_ms"] < int(timeout_seconds) * 1000
    assert line["dynamodb_requests"] >= (2 if timeout_seconds == "15" else 1)
    assert "timed out" not in runtime.log.lower().replace("connect timeout", "")
