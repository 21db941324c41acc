"""Every route and every refusal, through the Lambda handler and API Gateway's events."""

import asyncio
import base64
import json
import os
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError
from fastapi import Depends

from functions.example_app.app import create_app
from ledger_core import LedgerOperationType, OperationRequest
from ledger_core.dynamodb import LedgerStore
from ledger_core.errors import ConfigurationError
from ledger_core.fields import NONCE_LENGTH_MAX, OWNER_ID_LENGTH_MAX, format_time
from ledger_core.http import LedgerRouter, create_api, create_handler
from ledger_core.http import router as router_module
from ledger_core.http.app import BODY_BYTES_MAX
from ledger_core.http.cursor import cursor_at
from ledger_core.http.router import HISTORY_LIMIT_DEFAULT, HISTORY_LIMIT_MAX
from ledger_core.posting import TIMEOUT_SECONDS, OperationProcessor
from ledger_core.settings import AuthMode
from tests.support import NOON, Answer, LambdaApi, wire

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

SIGNUP = {"owner_id": "ada", "operation": "SIGNUP_CREDIT", "nonce": "signup"}
SPEND = {"owner_id": "ada", "operation": "CREDIT_SPEND", "nonce": "spend"}


@pytest.fixture(params=["http_api", "rest_api"])
def api(request: pytest.FixtureRequest, client: "DynamoDBClient") -> LambdaApi:
    """The Example App's handler, called by API Gateway's HTTP API and by its REST API."""
    return LambdaApi(create_handler(create_app(client)), rest_api=request.param == "rest_api")


def post(api: LambdaApi, body: Any = None, **options: Any) -> Answer:
    return api("POST", "/ledger/entry", SIGNUP if body is None else body, **options)


def is_problem(answer: Answer, status: int, code: str, state: str) -> bool:
    """Whether an answer is a complete problem with this status, code and state."""
    assert answer.headers["content-type"] == "application/problem+json"
    assert {"title", "detail", "request_id"} <= set(answer.body)
    assert answer.body["request_id"] in {"http-api-request", "rest-api-request"}
    got = (answer.status, answer.body["status"], answer.body["code"], answer.body["state"])
    return got == (status, status, code, state)


def test_accepted_entry_is_flat(api: LambdaApi) -> None:
    """An accepted operation is answered with the fields of its entry, with hashes in hex."""
    answer = post(api, {**SIGNUP, "metadata": {"campaign": "autumn"}})
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.body == {
        "v": 1,
        "id": 1,
        "operation": "SIGNUP_CREDIT",
        "owner_id": "ada",
        "amount": 3,
        "nonce": "signup",
        "created_at": answer.body["created_at"],
        "updated_at": answer.body["created_at"],
        "balance_after": 3,
        "metadata": {"campaign": "autumn"},
        "prev_hash": "0" * 64,
        "hash": answer.body["hash"],
    }
    assert len(bytes.fromhex(answer.body["hash"])) == 32


def test_second_use_of_a_body_nonce_is_refused_with_the_original(api: LambdaApi) -> None:
    """The 409 has the stored entry, and says whether the request was the same."""
    original = post(api).body
    same = post(api)
    different = post(api, {**SIGNUP, "metadata": {"k": "v"}})
    for answer, replay in ((same, True), (different, False)):
        assert is_problem(answer, 409, "duplicate_nonce", "CheckingNonce")
        assert (answer.body["entry"], answer.body["replay"]) == (original, replay)


@pytest.mark.parametrize("key", ["key-1", '"key-1"'])
def test_idempotency_key_repeats_the_original_answer(api: LambdaApi, key: str) -> None:
    """With a key of the header, the same request gets the same answer, and another request 422."""
    body = {"owner_id": "ada", "operation": "CREDIT_ADD"}
    first = post(api, body, headers={"Idempotency-Key": key})
    assert (first.status, first.body["nonce"]) == (200, "key-1")
    assert "idempotency-replayed" not in first.headers
    again = post(api, body, headers={"Idempotency-Key": key})
    assert (again.status, again.body) == (200, first.body)
    assert again.headers["idempotency-replayed"] == "true"
    other = post(api, {**body, "amount": 5}, headers={"Idempotency-Key": key})
    assert is_problem(other, 422, "duplicate_nonce", "CheckingNonce")
    assert (other.body["replay"], other.body["entry"]) == (False, first.body)
    assert post(api, {**body, "nonce": "key-1"}).status == 409


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ("a", "a"),
        (" a\t", "a"),
        ('"a"', "a"),
        (' "a" ', "a"),
        (r'"a\"b\\c"', r'a"b\c'),
        (r"a\b", r"a\b"),
        ("a b", "a b"),
    ],
)
def test_idempotency_key_may_be_quoted(api: LambdaApi, header: str, key: str) -> None:
    """A key may be a quoted string of RFC 8941; blanks around it are ignored."""
    answer = post(api, {**SIGNUP, "nonce": key}, headers={"Idempotency-Key": header})
    assert answer.body["nonce"] == key


@pytest.mark.slow
@pytest.mark.parametrize(
    "key", ['"a', 'a"', 'a"b', '"a"b"', r'"a\b"', r'"a\"', '"', '""', " ", "a,b", '"a","a"', "a,a"]
)
@pytest.mark.parametrize("path", ["/ledger/entry", "/content/c/access"])
def test_malformed_or_repeated_idempotency_key_is_refused(
    api: LambdaApi, path: str, key: str
) -> None:
    """Half quotes, a bad escape, an empty key and several keys are 422; nothing is written."""
    body = {"owner_id": "ada"}
    if path == "/ledger/entry":
        body["operation"] = "SIGNUP_CREDIT"
    refusal = api("POST", path, body, headers={"Idempotency-Key": key})
    assert is_problem(refusal, 422, "invalid", "Validating")
    assert api("GET", "/ledger/ada/balance").body["entry_count"] == 0


def test_endpoint_of_an_app_takes_its_nonce_in_both_ways(api: LambdaApi) -> None:
    """An access needs a nonce in its body or its header; two nonces must be equal."""

    def access(content_id: str, nonce: str | None, key: str | None) -> Answer:
        body = {"owner_id": "ada"}
        if nonce:
            body["nonce"] = nonce
        headers = {"Idempotency-Key": key} if key else {}
        return api("POST", f"/content/{content_id}/access", body, headers=headers)

    first = access("c", None, "k")
    assert (first.status, first.body["nonce"]) == (200, "k")
    assert "idempotency-replayed" not in first.headers
    again = access("c", "k", "k")
    assert (again.status, again.body) == (200, first.body)
    assert again.headers["idempotency-replayed"] == "true"
    assert is_problem(access("d", None, "k"), 422, "duplicate_nonce", "CheckingNonce")
    assert is_problem(access("c", "k", None), 409, "duplicate_nonce", "CheckingNonce")
    assert is_problem(access("c", None, None), 422, "invalid", "Validating")
    assert is_problem(access("c", "k", "other"), 422, "invalid", "Validating")


def test_nonces_of_body_and_header_are_equal(api: LambdaApi) -> None:
    """Two different nonces are refused, and so is a request without a nonce."""
    assert post(api, headers={"Idempotency-Key": "signup"}).status == 200
    contradiction = post(api, headers={"Idempotency-Key": "other"})
    assert is_problem(contradiction, 422, "invalid", "Validating")
    missing = post(api, {"owner_id": "ada", "operation": "SIGNUP_CREDIT"})
    assert is_problem(missing, 422, "invalid", "Validating")
    assert "nonce" in missing.body["detail"]


def test_insufficient_balance_has_the_balance_and_the_required_amount(api: LambdaApi) -> None:
    """A spend of more than the balance is 402, and nothing is written."""
    post(api)
    refusal = post(api, {**SPEND, "amount": 4})
    assert is_problem(refusal, 402, "insufficient_balance", "CheckingBalance")
    assert (refusal.body["balance"], refusal.body["required"]) == (3, 4)
    assert api("GET", "/ledger/ada/balance").body["entry_count"] == 1


BAD_BODIES: list[tuple[str, Any, str]] = [
    ("unknown operation", {**SIGNUP, "operation": "LEVEL_UP"}, "unknown_operation"),
    ("misspelt case", {**SIGNUP, "operation": "signup_credit"}, "unknown_operation"),
    ("empty operation", {**SIGNUP, "operation": ""}, "unknown_operation"),
    ("operation not text", {**SIGNUP, "operation": 5}, "invalid"),
    ("no owner", {"operation": "SIGNUP_CREDIT", "nonce": "n"}, "invalid"),
    ("empty owner", {**SIGNUP, "owner_id": ""}, "invalid"),
    ("long owner", {**SIGNUP, "owner_id": "a" * (OWNER_ID_LENGTH_MAX + 1)}, "invalid"),
    ("owner with #", {**SIGNUP, "owner_id": "a#b"}, "invalid"),
    ("owner with control character", {**SIGNUP, "owner_id": "a\u0007"}, "invalid"),
    ("owner with lone surrogate", json.dumps({**SIGNUP, "owner_id": "\ud800"}), "invalid"),
    ("empty nonce", {**SIGNUP, "nonce": ""}, "invalid"),
    ("long nonce", {**SIGNUP, "nonce": "n" * (NONCE_LENGTH_MAX + 1)}, "invalid"),
    ("reserved nonce", {**SIGNUP, "nonce": "ledger:reverse:1"}, "invalid"),
    ("an owner's nonce", {**SIGNUP, "nonce": "@self:n"}, "invalid"),
    ("float", {**SPEND, "amount": 1.0}, "invalid"),
    ("bool", {**SPEND, "amount": True}, "invalid"),
    ("string", {**SPEND, "amount": "1"}, "invalid"),
    ("zero", {**SPEND, "amount": 0}, "invalid"),
    ("negative", {**SPEND, "amount": -1}, "invalid"),
    ("10^38", {**SPEND, "amount": 10**38}, "invalid"),
    ("1e38", json.dumps(SPEND)[:-1] + ', "amount": 1e38}', "invalid"),
    ("NaN", json.dumps(SPEND)[:-1] + ', "amount": NaN}', "invalid"),
    ("5,000 digits", json.dumps(SPEND)[:-1] + f', "amount": {"9" * 5000}}}', "invalid"),
    ("out of bounds", {**SPEND, "amount": 1_000_001}, "invalid"),
    ("fixed amount", {**SIGNUP, "amount": 3}, "invalid"),
    ("metadata too large", {**SIGNUP, "metadata": {"k": "v" * 1024}}, "invalid"),
    ("metadata deep", {**SIGNUP, "metadata": {"k": {"k": "v"}}}, "invalid"),
    ("metadata not text", {**SIGNUP, "metadata": {"k": 1}}, "invalid"),
    ("metadata a list", {**SIGNUP, "metadata": ["k"]}, "invalid"),
    ("unknown field", {**SIGNUP, "balance": 5}, "invalid"),
    ("broken JSON", '{"owner_id": "ada"', "invalid"),
    ("very deep JSON", "[" * (BODY_BYTES_MAX - 1), "invalid"),
    ("not an object", "[]", "invalid"),
    ("no body", "", "invalid"),
    ("null", "null", "invalid"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "code"), [pytest.param(body, code, id=name) for name, body, code in BAD_BODIES]
)
def test_bad_body_is_refused_and_nothing_written(
    api: LambdaApi, client: "DynamoDBClient", body: Any, code: str
) -> None:
    """Each invalid body is a 422, and no request goes to DynamoDB."""
    sent = wire(client)
    refusal = post(api, body)
    assert is_problem(refusal, 422, code, "Validating")
    assert sent == []


def of_type(content_type: str) -> dict[str, Any]:
    return {"headers": {"Content-Type": content_type}}


def under(key: str) -> dict[str, Any]:
    return {"headers": {"Idempotency-Key": key}}


def in_base64(body: str) -> dict[str, Any]:
    return {"isBase64Encoded": True, "body": body}


@pytest.mark.parametrize(
    ("options", "status", "code"),
    [
        (of_type("text/plain"), 415, "unsupported_media_type"),
        (of_type("application/x-www-form-urlencoded"), 415, "unsupported_media_type"),
        (of_type("application/merge-patch+json") | {"body": "[]"}, 422, "invalid"),
        (under(""), 422, "invalid"),
        (under("one, two"), 422, "invalid"),
        (under("n" * (NONCE_LENGTH_MAX + 1)), 422, "invalid"),
        (under("ledger:mine"), 422, "invalid"),
        (under("@self:n"), 422, "invalid"),
        (under('"@self:n"'), 422, "invalid"),
        (under("ü"), 422, "invalid"),
        ({"body": "\ud800"}, 422, "invalid"),
        (in_base64("no Base64!"), 422, "invalid"),
        (in_base64("abc"), 422, "invalid"),
        (in_base64(json.dumps(SIGNUP)), 422, "invalid"),
        (in_base64(base64.b64encode(b"\xff\xfe\xfd").decode()), 422, "invalid"),
        ({"body": " " * (BODY_BYTES_MAX + 1)}, 413, "too_large"),
    ],
)
def test_bad_request_is_refused_and_nothing_written(
    api: LambdaApi, client: "DynamoDBClient", options: dict[str, Any], status: int, code: str
) -> None:
    """An invalid header, encoding or size is a 4xx, and no request goes to DynamoDB."""
    sent = wire(client)
    refusal = post(api, **options)
    assert is_problem(refusal, status, code, refusal.body["state"])
    assert sent == []


def test_body_may_be_base64_and_of_the_largest_size(api: LambdaApi) -> None:
    """A Base64 body of BODY_BYTES_MAX without a content type is read."""
    body = json.dumps(SIGNUP).encode().ljust(BODY_BYTES_MAX)
    encoded = base64.b64encode(body).decode()
    headers = {"host": "example.com"}
    options = in_base64(encoded) | {"headers": headers, "multiValueHeaders": None}
    assert post(api, **options).status == 200


def test_unknown_operation_is_named_beside_other_errors(api: LambdaApi) -> None:
    """The code is `unknown_operation` only if the rest of the body is valid."""
    refusal = post(api, {**SIGNUP, "operation": "LEVEL_UP", "owner_id": ""})
    assert is_problem(refusal, 422, "invalid", "Validating")
    fields = [error["field"] for error in refusal.body["errors"]]
    assert fields == ["body.owner_id", "body.operation"]
    alone = post(api, {**SIGNUP, "operation": "LEVEL_UP"})
    assert alone.body["detail"].startswith("operation: must be one of DAILY_REWARD, ")


@pytest.mark.parametrize("key", ["", "header"])
def test_body_is_the_request_that_the_processor_takes(
    monkeypatch: pytest.MonkeyPatch, client: "DynamoDBClient", key: str
) -> None:
    """The validated body has the member of the operation, and the nonce of the header."""
    taken: list[OperationRequest] = []
    accept = OperationProcessor.accept

    def recording(self: OperationProcessor, request: OperationRequest, **options: Any) -> Any:
        taken.append(request)
        return accept(self, request, **options)

    monkeypatch.setattr(OperationProcessor, "accept", recording)
    api = LambdaApi(create_handler(create_app(client)))
    body = {"owner_id": "ada", "operation": "SIGNUP_CREDIT"}
    headers = {}
    if key:
        headers["Idempotency-Key"] = key
    else:
        body["nonce"] = "body"
    assert post(api, body, headers=headers).status == 200
    (request,) = taken
    assert request.operation is LedgerOperationType.SIGNUP_CREDIT
    assert (type(request).__name__, request.nonce) == ("EntryRequest", key or "body")
    assert isinstance(request, OperationRequest)


@pytest.mark.parametrize("is_in_lambda", [True, False], ids=["lambda", "server"])
def test_config_of_an_operation_is_looked_up_once(
    monkeypatch: pytest.MonkeyPatch,
    processor: OperationProcessor,
    is_in_lambda: bool,
) -> None:
    """The router looks the config up for the caller's permission and hands it to the processor."""
    config_of = Mock(wraps=processor.config_of)
    monkeypatch.setattr(processor, "config_of", config_of)
    monkeypatch.setattr(router_module, "is_in_lambda", lambda _: is_in_lambda)
    app = create_api("Ledger", LedgerRouter(processor), auth=AuthMode.NONE)
    assert post(LambdaApi(create_handler(app))).status == 200
    config_of.assert_called_once_with("SIGNUP_CREDIT")


def test_refusals_do_not_repeat_the_request(api: LambdaApi) -> None:
    """A refusal repeats no value of the request."""
    refusal = post(api, {**SIGNUP, "metadata": {"k": ["secret"]}, "secret": "secret"})
    assert "secret" not in json.dumps(refusal.body).replace("body.secret", "")


def test_balance_now(api: LambdaApi) -> None:
    """An owner has the balance of the account, or 0 without an account."""
    entry = post(api).body
    assert api("GET", "/ledger/ada/balance").body == {
        "owner_id": "ada",
        "unit": "CREDIT",
        "balance": 3,
        "entry_count": 1,
        "updated_at": entry["created_at"],
    }
    assert api("GET", "/ledger/nobody/balance").body == {
        "owner_id": "nobody",
        "unit": "CREDIT",
        "balance": 0,
        "entry_count": 0,
        "updated_at": None,
    }


def test_balance_at_an_instant(api: LambdaApi) -> None:
    """A past balance is that after the last entry at or before the instant."""
    first = post(api).body
    second = post(api, SPEND).body
    for at, balance in (
        ("2020-01-01T00:00:00Z", 0),
        (first["created_at"], 3),
        (second["created_at"], 2),
        ("2999-01-01T00:00:00+01:00", 2),
    ):
        assert api("GET", "/ledger/ada/balance", query={"at": at}).body["balance"] == balance


def test_history_pages_and_filters(api: LambdaApi, processor: OperationProcessor) -> None:
    """Pages have the newest entry first; an operation and an interval filter them."""
    for step in range(7):
        operation = "SIGNUP_CREDIT" if step % 2 else "CREDIT_ADD"
        post(api, {"owner_id": "ada", "operation": operation, "nonce": f"n{step}"})
    seen: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        query = {"limit": "3"}
        if cursor:
            query["cursor"] = cursor
        page = api("GET", "/ledger/ada/entries", query=query).body
        seen += page["entries"]
        cursor = page["next_cursor"]
    assert [entry["id"] for entry in seen] == [7, 6, 5, 4, 3, 2, 1]
    filtered = api("GET", "/ledger/ada/entries", query={"operation": "SIGNUP_CREDIT"}).body
    assert [entry["id"] for entry in filtered["entries"]] == [6, 4, 2]
    interval = {"from": seen[5]["created_at"], "to": seen[2]["created_at"]}
    page = api("GET", "/ledger/ada/entries", query={**interval, "limit": "2"}).body
    assert [entry["id"] for entry in page["entries"]] == [4, 3]
    rest = {**interval, "limit": "2", "cursor": page["next_cursor"]}
    page = api("GET", "/ledger/ada/entries", query=rest).body
    assert ([entry["id"] for entry in page["entries"]], page["next_cursor"]) == ([2], None)
    assert api("GET", "/ledger/nobody/entries").body == {"entries": [], "next_cursor": None}


def test_verify(api: LambdaApi) -> None:
    """An audit is answered with its report."""
    entry = post(api).body
    assert api("GET", "/ledger/ada/verify").body == {
        "owner_id": "ada",
        "unit": "CREDIT",
        "valid": True,
        "entries_checked": 1,
        "head": {
            "owner_id": "ada",
            "unit": "CREDIT",
            "balance": 3,
            "entry_count": 1,
            "head_hash": entry["hash"],
            "updated_at": entry["created_at"],
        },
        "findings": [],
        "discrepancies": [],
        "truncated": False,
    }


def test_limits_of_history(api: LambdaApi) -> None:
    """The largest page is at least as large as the default page."""
    assert HISTORY_LIMIT_DEFAULT <= HISTORY_LIMIT_MAX
    assert api("GET", "/ledger/ada/entries", query={"limit": str(HISTORY_LIMIT_MAX)}).status == 200


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/ledger/ada/entries", {"limit": "0"}),
        ("/ledger/ada/entries", {"limit": str(HISTORY_LIMIT_MAX + 1)}),
        ("/ledger/ada/entries", {"limit": "many"}),
        ("/ledger/ada/entries", {"limit": "9" * 5000}),
        ("/ledger/ada/entries", {"cursor": "nonsense"}),
        ("/ledger/ada/entries", {"cursor": "ü"}),
        ("/ledger/ada/entries", {"cursor": cursor_at("ada", datetime(1, 1, 1, tzinfo=UTC))}),
        ("/ledger/ada/entries", {"cursor": ""}),
        ("/ledger/ada/entries", {"cursor": "A" * 10_000}),
        ("/ledger/ada/entries", {"from": "2026-11-22T10:00:00Z", "to": "2026-11-22T09:00:00Z"}),
        ("/ledger/ada/entries", {"from": "yesterday"}),
        ("/ledger/ada/entries", {"from": "5"}),
        ("/ledger/ada/entries", {"from": "2026-11-22T10:00:00 01:00"}),
        ("/ledger/ada/entries", {"to": "2026-11-22T10:00:00"}),
        ("/ledger/ada/entries", {"to": "0001-01-01T00:00:00+14:00"}),
        ("/ledger/ada/entries", {"operation": "LEVEL_UP"}),
        ("/ledger/ada/balance", {"at": "9999-12-31T23:59:59-14:00"}),
        ("/ledger/ada/balance", {"at": "2026-13-01T00:00:00Z"}),
        (f"/ledger/{'a' * (OWNER_ID_LENGTH_MAX + 1)}/balance", {}),
        ("/ledger/a%23b/balance", {}),
        ("/ledger/a%0Ab/verify", {}),
        ("/ledger/a%20b/entries", {}),
        ("/ledger/%ff/entries", {}),
    ],
)
def test_bad_query_is_refused(
    api: LambdaApi, client: "DynamoDBClient", path: str, query: dict[str, str]
) -> None:
    """An invalid path or query is a 422 with the state Validating."""
    sent = wire(client)
    refusal = api("GET", path, query=query)
    code = "unknown_operation" if "operation" in query else "invalid"
    assert is_problem(refusal, 422, code, "Validating")
    assert sent == []


def test_cursor_opens_only_the_history_of_its_owner(api: LambdaApi) -> None:
    """A cursor is refused for another owner."""
    for nonce in ("first", "second"):
        post(api, {**SIGNUP, "nonce": nonce})
        post(api, {**SIGNUP, "nonce": nonce, "owner_id": "bob"})
    cursor = api("GET", "/ledger/ada/entries", query={"limit": "1"}).body["next_cursor"]
    assert api("GET", "/ledger/ada/entries", query={"cursor": cursor}).status == 200
    refusal = api("GET", "/ledger/bob/entries", query={"cursor": cursor})
    assert is_problem(refusal, 422, "invalid", "Validating")


def test_cursor_never_widens_the_interval(api: LambdaApi) -> None:
    """A cursor outside the interval opens no entry outside of it."""
    times = {
        number: post(api, {**SIGNUP, "nonce": f"n{number}"}).body["created_at"]
        for number in range(1, 6)
    }
    late = cursor_at("ada", datetime.fromisoformat(times[5]))
    early = cursor_at("ada", datetime.fromisoformat(times[2]))
    for query, found in (
        ({"cursor": late}, [4, 3, 2, 1]),
        ({"cursor": late, "to": times[3]}, [2, 1]),
        ({"cursor": early, "to": times[3]}, [1]),
        ({"cursor": late, "from": times[2], "to": times[4]}, [3, 2]),
        ({"cursor": early, "from": times[2]}, []),
    ):
        page = api("GET", "/ledger/ada/entries", query=query).body
        assert ([entry["id"] for entry in page["entries"]], page["next_cursor"]) == (found, None)


def test_strange_owners_can_be_read(api: LambdaApi) -> None:
    """An unusual owner id can be read as it can be posted to."""
    for owner_id in ("auth0|ü-1", "a@b.example", "a:b;c=d&e+f,g", "operations", "~"):
        assert post(api, {**SIGNUP, "owner_id": owner_id}).status == 200
        assert api("GET", f"/ledger/{owner_id}/balance").body["balance"] == 3


def test_operations_are_listed(api: LambdaApi) -> None:
    """The app lists its operations, and its OpenAPI document lists the names as an enum."""
    operations = {
        entry["operation"]: entry for entry in api("GET", "/ledger/operations").body["operations"]
    }
    assert operations["CREDIT_SPEND"] == {
        "operation": "CREDIT_SPEND",
        "amount": -1,
        "magnitude_min": 1,
        "magnitude_max": 1_000_000,
        "self_service": True,
        "unit": "CREDIT",
    }
    schemas = api("GET", "/openapi.json").body["components"]["schemas"]
    assert schemas["EntryRequest"]["properties"]["operation"]["enum"] == list(operations)


def test_health_sends_no_request_to_dynamodb(api: LambdaApi, client: "DynamoDBClient") -> None:
    """The health of the process needs no token."""
    api.claims = None
    sent = wire(client)
    assert (api("GET", "/health").body, sent) == ({"status": "ok"}, [])


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/ledger/a/b/balance", 404, "not_found"),
        ("GET", "/ledger/ada/balance/", 404, "not_found"),
        ("GET", "/ledger/entry", 405, "method_not_allowed"),
        ("DELETE", "/ledger/ada/entries", 405, "method_not_allowed"),
    ],
)
def test_unknown_route_is_a_problem(
    api: LambdaApi, method: str, path: str, status: int, code: str
) -> None:
    """An unknown path or method is answered with a problem."""
    assert is_problem(api(method, path), status, code, "Received")


def test_endpoints_of_an_app_post_through_the_ledger(api: LambdaApi) -> None:
    """The creation of content costs 5 once, each access costs 0, and both are entries."""
    assert api("PUT", "/content/c1", {"owner_id": "ada"}).body["code"] == "insufficient_balance"
    post(api, {"owner_id": "ada", "operation": "CREDIT_ADD", "nonce": "add"})
    created = api("PUT", "/content/c1", {"owner_id": "ada"})
    assert (created.body["operation"], created.body["balance_after"]) == ("CONTENT_CREATION", 5)
    assert api("PUT", "/content/c1", {"owner_id": "ada"}).body["code"] == "duplicate_nonce"
    stray = {"Idempotency-Key": "ignored"}
    assert api("PUT", "/content/c1", {"owner_id": "ada"}, headers=stray).status == 409
    repeated = {"Idempotency-Key": "one,two"}
    refusal = api("PUT", "/content/c1", {"owner_id": "ada"}, headers=repeated)
    assert is_problem(refusal, 422, "invalid", "Validating")
    for nonce in ("first", "second"):
        accessed = api("POST", "/content/c1/access", {"owner_id": "ada", "nonce": nonce})
        assert (accessed.body["amount"], accessed.body["metadata"]) == (0, {"content_id": "c1"})
    assert api("PUT", "/content/c%231", {"owner_id": "ada"}).status == 422


def test_lost_answer_of_dynamodb_is_503_with_retry_after(
    monkeypatch: pytest.MonkeyPatch, client: "DynamoDBClient"
) -> None:
    """The 503 has Retry-After and the state in which the request failed."""

    def fail(**_: Any) -> None:
        raise ReadTimeoutError(endpoint_url="http://secret")

    api = LambdaApi(create_handler(create_app(client)))
    api.context = Context(remaining_seconds=3.2)
    monkeypatch.setattr(client, "get_item", fail, raising=False)
    answer = post(api)
    assert is_problem(answer, 503, "unavailable", "CheckingBalance")
    assert answer.headers["retry-after"] == "1"
    assert "secret" not in json.dumps(answer.body)


class Context:
    """The context that Lambda passes to a handler."""

    def __init__(self, *, remaining_seconds: float) -> None:
        self._remaining_seconds = remaining_seconds

    def get_remaining_time_in_millis(self) -> int:
        return int(self._remaining_seconds * 1000)


@pytest.mark.parametrize(
    ("context", "timeout_seconds"),
    [
        (None, TIMEOUT_SECONDS),
        (Context(remaining_seconds=900), TIMEOUT_SECONDS),
        (Context(remaining_seconds=8), 5),
        (Context(remaining_seconds=1), -2),
    ],
)
def test_deadline_is_that_of_the_function(
    monkeypatch: pytest.MonkeyPatch, client: "DynamoDBClient", context: Any, timeout_seconds: float
) -> None:
    """In Lambda, a request retries while a call can end before the function does."""
    asked: list[float] = []
    budget = OperationProcessor.budget

    def recording(self: OperationProcessor, timeout_seconds: float) -> Any:
        asked.append(timeout_seconds)
        return budget(self, timeout_seconds)

    monkeypatch.setattr(OperationProcessor, "budget", recording)
    api = LambdaApi(create_handler(create_app(client)))
    api.context = context
    assert post(api).status == (200 if timeout_seconds > 0 else 503)
    assert asked == [timeout_seconds]


def test_filtered_page_ends_when_its_time_is_up(
    monkeypatch: pytest.MonkeyPatch, client: "DynamoDBClient"
) -> None:
    """A page of several requests sends no request after its time is up."""
    api = LambdaApi(create_handler(create_app(client)))
    for nonce in ("n1", "n2", "n3", "n4", "n5"):
        post(api, {**SIGNUP, "nonce": nonce})
    monkeypatch.setattr("ledger_core.dynamodb.store.HISTORY_EVALUATED_MAX", 1)
    sent = wire(client)
    query = {"operation": "DAILY_REWARD"}
    assert api("GET", "/ledger/ada/entries", query=query).body["entries"] == []
    assert len(sent) == 4
    sent.clear()
    api.context = Context(remaining_seconds=1)
    assert api("GET", "/ledger/ada/entries", query=query).status == 503
    assert sent == ["Query"]


def denied(**_: Any) -> None:
    """A call of a function whose role lacks a permission."""
    error: Any = {"Error": {"Code": "AccessDeniedException", "Message": "secret: not authorized"}}
    raise ClientError(error, "TransactWriteItems")


def test_missing_permission_is_a_500_and_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, client: "DynamoDBClient"
) -> None:
    """The log names the error; the answer has only the state of the failure."""
    api = LambdaApi(create_handler(create_app(client)))
    monkeypatch.setattr(client, "transact_write_items", denied, raising=False)
    answer = post(api)
    assert is_problem(answer, 500, "internal", "Processing")
    assert "AccessDenied" not in json.dumps(answer.body)
    assert "AccessDeniedException" in caplog.text
    assert "secret" not in json.dumps(answer.body)


@pytest.mark.parametrize("failure", [RuntimeError("secret"), None])
def test_unexpected_error_is_a_500_and_is_logged(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    client: "DynamoDBClient",
    failure: Exception | None,
) -> None:
    """After a bug or with a missing table, the log has the cause and the answer has not."""
    api = LambdaApi(create_handler(create_app(client)))
    if failure is None:
        client.delete_table(TableName=os.environ["LEDGER_ACCOUNTS_TABLE"])
    else:
        monkeypatch.setattr(OperationProcessor, "settle", Mock(side_effect=failure))
    answer = post(api)
    assert answer.status == 500
    assert answer.body["code"] == "internal"
    assert "secret" not in json.dumps(answer.body)
    assert ("secret" if failure else "ResourceNotFoundException") in caplog.text
    assert f"request_id={answer.body['request_id']}" in caplog.text


def test_lambda_uses_no_other_thread(
    monkeypatch: pytest.MonkeyPatch, client: "DynamoDBClient"
) -> None:
    """The thread that calls the handler makes each call to DynamoDB."""
    api = LambdaApi(create_handler(create_app(client)))
    threads: set[int] = set()
    client.meta.events.register(
        "before-send.dynamodb", lambda **_: threads.add(threading.get_ident())
    )
    post(api)
    api("GET", "/ledger/ada/balance")
    api("GET", "/ledger/ada/verify")
    assert threads == {threading.get_ident()}


def test_requests_of_the_reading_routes(
    client: "DynamoDBClient", api: LambdaApi, store: LedgerStore
) -> None:
    """Each reading route sends 1 request to DynamoDB, and an audit sends 3."""
    post(api)
    sent = wire(client)
    for path, query, requests in (
        ("/ledger/ada/balance", {}, ["GetItem"]),
        ("/ledger/ada/balance", {"at": format_time(NOON + timedelta(days=9999))}, ["Query"]),
        ("/ledger/ada/entries", {}, ["Query"]),
        ("/ledger/ada/verify", {}, ["Query", "GetItem", "Query"]),
    ):
        sent.clear()
        assert api("GET", path, query=query).status == 200
        assert sent == requests


def test_handler_works_in_any_thread(client: "DynamoDBClient") -> None:
    """The handler makes an event loop in a thread that has no event loop."""
    api = LambdaApi(create_handler(create_app(client)))
    answers: list[Answer] = []

    def call() -> None:
        answers.append(post(api))
        asyncio.get_event_loop().close()

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert answers[0].status == 200


def test_byte_order_mark_before_the_body_is_ignored(api: LambdaApi) -> None:
    """A body may begin with a byte order mark, as some tools write it."""
    assert post(api, "\ufeff" + json.dumps(SIGNUP)).status == 200


def test_client_that_disconnects_within_its_body_is_no_fault(
    client: "DynamoDBClient",
) -> None:
    """The answer is a 422 and no 500, because the server is not at fault."""
    messages = [
        {"type": "http.request", "body": b"{", "more_body": True},
        {"type": "http.disconnect"},
    ]
    answers: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        answers.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/ledger/entry",
        "headers": [],
        "query_string": b"",
    }
    asyncio.run(create_app(client)(scope, receive, send))
    assert answers[0]["status"] == 422


def test_dependencies_of_the_posting_route_are_refused(processor: OperationProcessor) -> None:
    """The posting route would not run its dependencies, so it refuses them."""

    class Guarded(LedgerRouter):
        def add_api_route(self, *arguments: Any, **options: Any) -> None:
            super().add_api_route(*arguments, **options, dependencies=[Depends(lambda: None)])

    with pytest.raises(ConfigurationError, match=r"^/ledger/entry: dependencies are not run here"):
        Guarded(processor)
