"""What the middleware does for every route: paths, methods, headers, queries and bodies."""

import asyncio
import base64
import gzip
import json
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import Message

from functions.example_app.app import create_app
from ledger_core.http import create_api, create_handler
from ledger_core.http.app import BODY_BYTES_MAX
from ledger_core.http.openapi import ERRORS
from ledger_core.http.problems import CODE, ERRORS_MAX, TITLES
from ledger_core.posting import OperationProcessor
from ledger_core.settings import AuthMode
from tests.fakes.server import serving
from tests.support import Answer, LambdaApi, wire

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

SIGNUP = {"owner_id": "ada", "operation": "SIGNUP_CREDIT", "nonce": "signup"}
GETS = (
    "/ledger/operations",
    "/ledger/ada/balance",
    "/ledger/ada/entries",
    "/ledger/ada/verify",
    "/health",
    "/docs",
)
ORIGIN = {"Origin": "https://app.example.com"}


@pytest.fixture(params=["http_api", "rest_api"])
def api(request: pytest.FixtureRequest, client: "DynamoDBClient") -> LambdaApi:
    """The Example App's handler, called by API Gateway's HTTP API and by its REST API."""
    return LambdaApi(create_handler(create_app(client)), rest_api=request.param == "rest_api")


@pytest.fixture
def server(client: "DynamoDBClient", monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    """A server of the Example App with a base path and an allowed origin."""
    monkeypatch.setenv("LEDGER_BASE_PATH", "/prod")
    monkeypatch.setenv("LEDGER_ALLOWED_ORIGINS", "https://app.example.com")
    with serving(client) as http:
        yield http


@pytest.mark.parametrize("base_path", ["/prod", "/ledger", "/a/b"])
def test_api_below_a_base_path(
    client: "DynamoDBClient", monkeypatch: pytest.MonkeyPatch, base_path: str
) -> None:
    """The base path is removed from a path and named in the OpenAPI document."""
    monkeypatch.setenv("LEDGER_BASE_PATH", base_path)
    monkeypatch.setenv("LEDGER_AUTH", "jwt")
    for rest_api in (False, True):
        api = LambdaApi(create_handler(create_app(client)), rest_api=rest_api)
        assert api("GET", f"{base_path}/ledger/ada/balance").body["balance"] == 0
        assert api("GET", f"{base_path}uction/ledger/ada/balance").status == 404
        assert api("GET", base_path).status == api("GET", f"{base_path}/").status
        assert api("GET", f"{base_path}/openapi.json").body["servers"] == [{"url": base_path}]
        assert api("GET", f"{base_path}/").headers["location"] == f"{base_path}/docs"
        assert api("GET", f"{base_path}/docs/start.js").status == 200
        api.claims = None
        assert api("GET", f"{base_path}/health").status == 200
        assert api("GET", f"{base_path}/ledger/ada/balance").status == 401


def test_gateway_may_remove_the_base_path(server: httpx.Client) -> None:
    """A path is served with and without the base path."""
    for path in ("/health", "/prod/health", "/ledger/ada/balance", "/prod/ledger/ada/balance"):
        assert server.get(path).status_code == 200
    assert server.get("/prod/prod/health").status_code == 404


def test_head_is_get_without_a_body(api: LambdaApi) -> None:
    """Each GET route answers HEAD with the same status and headers."""
    for path in (*GETS, "/openapi.json", "/nowhere", "/ledger/a%23b/balance"):
        got = api("GET", path)
        head = api("HEAD", path)
        assert (head.status, head.body) == (got.status, "")
        assert len(got.headers) == len(head.headers)
        assert {**head.headers, "content-length": ""} == {**got.headers, "content-length": ""}
    refused = api("DELETE", "/ledger/ada/balance")
    assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")
    assert api("HEAD", "/ledger/entry").status == 405


def test_head_of_a_server(server: httpx.Client, capfd: pytest.CaptureFixture[str]) -> None:
    """An answer to HEAD has the length of the body and no body, and its line says HEAD."""
    paths = ("/health", "/ledger/ada/balance", "/nowhere")
    for path in paths:
        head = server.head(path)
        got = server.get(path)
        assert (head.status_code, head.content) == (got.status_code, b"")
        assert int(head.headers["content-length"]) == len(got.content)
    printed = ""
    while printed.count("latency_ms") < 2 * len(paths):  # a line is printed after its answer
        printed += capfd.readouterr().out
    lines = [json.loads(line) for line in printed.splitlines()]
    statuses = [(line["method"], line["status"]) for line in lines[::2]]
    assert statuses == [("HEAD", 200), ("HEAD", 200), ("HEAD", 404)]


def answers_of_every_kind(api: LambdaApi, monkeypatch: pytest.MonkeyPatch) -> list[Answer]:
    """An entry, refusals, and an unexpected error."""
    answers = [
        api("POST", "/ledger/entry", SIGNUP),
        api("POST", "/ledger/entry", SIGNUP),
        api("GET", "/ledger/ada/balance"),
        api("HEAD", "/ledger/ada/balance"),
        api("POST", "/ledger/entry", "{"),
        api("POST", "/ledger/entry", " " * (BODY_BYTES_MAX + 1)),
        api("PUT", "/content/c", {"owner_id": "ada"}),
        api("GET", "/nowhere"),
        api("DELETE", "/ledger/entry"),
    ]
    monkeypatch.setattr(OperationProcessor, "settle", lambda *_, **__: 1 / 0)
    return [*answers, api("POST", "/ledger/entry", SIGNUP)]


def test_every_answer_has_its_id_and_is_not_cached(
    api: LambdaApi, client: "DynamoDBClient", monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer has the id of its line, and `no-store` unless its path is open."""
    answers = answers_of_every_kind(api, monkeypatch)
    statuses = [answer.status for answer in answers]
    assert statuses == [200, 409, 200, 200, 422, 413, 402, 404, 405, 500]
    monkeypatch.setenv("LEDGER_AUTH", "jwt")
    refusing = LambdaApi(create_handler(create_app(client)), rest_api=api.rest_api)
    refusing.claims = None
    answers.append(refusing("GET", "/ledger/ada/balance"))
    assert answers[-1].status == 401
    request_id = "rest-api-request" if api.rest_api else "http-api-request"
    for answer in answers:
        assert answer.headers["x-request-id"] == request_id
        assert answer.headers["cache-control"] == "no-store"
    health = refusing("GET", "/health")
    assert "x-request-id" in health.headers
    assert "cache-control" not in health.headers
    unreadable = api.handler({}, None)
    assert unreadable["headers"]["x-request-id"] == json.loads(unreadable["body"])["request_id"]


def test_app_may_set_cache_control() -> None:
    """A route that sets Cache-Control keeps its value."""
    router = APIRouter()

    @router.get("/logo")
    async def logo() -> Any:
        from starlette.responses import PlainTextResponse

        return PlainTextResponse("logo", headers={"Cache-Control": "max-age=60"})

    api = LambdaApi(create_handler(create_api("Logos", router, auth=AuthMode.NONE)))
    assert api("GET", "/logo").headers["cache-control"] == "max-age=60"


def test_server_makes_the_request_ids(server: httpx.Client) -> None:
    """Each answer has a new id; an id that the client sends is ignored."""
    answers = [
        server.get(path, headers={"X-Request-Id": "mine"})
        for path in ("/health", "/health", "/nowhere")
    ]
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert len({*ids, "mine"}) == len(ids) + 1
    assert ids[-1] == answers[-1].json()["request_id"]


def test_pages_of_an_allowed_origin_may_call(
    client: "DynamoDBClient", monkeypatch: pytest.MonkeyPatch, server: httpx.Client
) -> None:
    """The pages of an allowed origin may read every answer; a preflight needs no token."""
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,idempotency-key",
    }
    for path in ("/prod/ledger/entry", "/content/c", "/health"):
        preflight = server.options(path, headers=ORIGIN | asked)
        assert (preflight.status_code, "x-request-id" in preflight.headers) == (200, True)
        assert preflight.headers["access-control-allow-origin"] == ORIGIN["Origin"]
        assert "POST" in preflight.headers["access-control-allow-methods"]
    evil = {"Origin": "https://evil.example"}
    assert server.options("/health", headers=evil | asked).status_code == 400
    other = server.get("/health", headers=evil)
    assert "access-control-allow-origin" not in other.headers
    monkeypatch.setattr(OperationProcessor, "accept", lambda *_, **__: 1 / 0)
    answers = [
        server.get("/ledger/ada/balance", headers=ORIGIN),
        server.get("/nowhere", headers=ORIGIN),
        server.post("/ledger/entry", headers=ORIGIN, content="{"),
        server.post("/ledger/entry", headers=ORIGIN, json=SIGNUP),
    ]
    assert [answer.status_code for answer in answers] == [200, 404, 422, 500]
    for answer in answers:
        assert answer.headers["access-control-allow-origin"] == ORIGIN["Origin"]
        assert "x-request-id" in answer.headers["access-control-expose-headers"]


def test_preflight_needs_no_token(
    client: "DynamoDBClient", monkeypatch: pytest.MonkeyPatch
) -> None:
    """The preflight is answered, and the page may read the 401 of the request that follows."""
    monkeypatch.setenv("LEDGER_AUTH", "jwt")
    monkeypatch.setenv("LEDGER_ALLOWED_ORIGINS", "*")
    with serving(client) as http:
        asked = {
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "authorization",
        }
        assert http.options("/ledger/ada/balance", headers=ORIGIN | asked).status_code == 200
        refused = http.get("/ledger/ada/balance", headers=ORIGIN)
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "*")


def test_app_without_allowed_origins_sends_no_cors_headers(api: LambdaApi) -> None:
    """Without `LEDGER_ALLOWED_ORIGINS`, a preflight is a 405 like any other OPTIONS."""
    asked = {"Access-Control-Request-Method": "POST"}
    assert api("OPTIONS", "/ledger/entry", headers=ORIGIN | asked).status == 405
    headers = api("GET", "/health", headers=ORIGIN).headers
    assert not [name for name in headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/ledger/ada/balance", None),
        ("GET", "/ledger/ada/entries", None),
        ("GET", "/ledger/ada/verify", None),
        ("GET", "/ledger/operations", None),
        ("GET", "/health", None),
        ("HEAD", "/health", None),
        ("POST", "/ledger/entry", SIGNUP),
        ("PUT", "/content/c", {"owner_id": "ada"}),
        ("POST", "/content/c/access", {"owner_id": "ada", "nonce": "n"}),
    ],
)
def test_unknown_parameter_is_refused(
    api: LambdaApi, client: "DynamoDBClient", method: str, path: str, body: Any
) -> None:
    """A misspelt parameter is a 422, and no request goes to DynamoDB."""
    sent = wire(client)
    refusal = api(method, path, body, query={"limt": "5"})
    assert (refusal.status, sent) == (422, [])
    if method != "HEAD":
        assert (refusal.body["code"], refusal.body["state"]) == ("invalid", "Validating")
        assert refusal.body["errors"] == [
            {"field": "query.limt", "message": "There is no such parameter"}
        ]


def test_parameters_of_models_and_dependencies_are_known() -> None:
    """A route of an app may take its parameters from a model or a dependency."""
    router = APIRouter()

    class Filter(BaseModel):
        colour: str = ""

    def page(number: Annotated[int, Query(alias="page")] = 1) -> int:
        return number

    @router.get("/things")
    async def things(
        kind: Annotated[Filter, Query()], number: Annotated[int, Depends(page)]
    ) -> dict[str, Any]:
        return {"colour": kind.colour, "page": number}

    api = LambdaApi(create_handler(create_api("Things", router, auth=AuthMode.NONE)))
    answer = api("GET", "/things", query={"colour": "red", "page": "2"})
    assert answer.body == {"colour": "red", "page": 2}
    assert api("GET", "/things", query={"number": "2"}).status == 422


@pytest.mark.parametrize(
    "body",
    [
        '{"owner_id": "ada", "operation": "SIGNUP_CREDIT", "nonce": "a", "nonce": "b"}',
        '{"owner_id": "ada", "operation": "SIGNUP_CREDIT", "nonce": "a", "non\\u0063e": "a"}',
        '{"owner_id": "ada", "nonce": "a", "metadata": {"k": "v", "k": "v"}}',
        '\ufeff{"owner_id": "ada", "owner_id": "ada", "operation": "SIGNUP_CREDIT", "nonce": "a"}',
        '[[{"deep": [{"k": 1, "k": 1}]}]]',
    ],
)
@pytest.mark.parametrize(("method", "path"), [("POST", "/ledger/entry"), ("PUT", "/content/c")])
def test_repeated_key_is_refused(
    api: LambdaApi, client: "DynamoDBClient", method: str, path: str, body: str
) -> None:
    """An object with two values under a key is a 422, at any depth and in any spelling."""
    sent = wire(client)
    for text, encoded in ((body, False), (base64.b64encode(body.encode()).decode(), True)):
        refusal = api(method, path, text, isBase64Encoded=encoded)
        assert refusal.status == 422
        assert (refusal.body["code"], refusal.body["state"]) == ("invalid", "Validating")
        assert refusal.body["detail"] == "body: an object has a key twice; send each key once"
    assert sent == []


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "br", "identity, gzip", "deflate"])
@pytest.mark.parametrize(("method", "path"), [("POST", "/ledger/entry"), ("PUT", "/content/c")])
def test_compressed_body_is_refused(
    api: LambdaApi, client: "DynamoDBClient", method: str, path: str, coding: str
) -> None:
    """A compressed body is a 415 that says which encoding is accepted."""
    sent = wire(client)
    body = base64.b64encode(gzip.compress(json.dumps(SIGNUP).encode())).decode()
    refusal = api(method, path, body, isBase64Encoded=True, headers={"Content-Encoding": coding})
    assert (refusal.status, refusal.body["code"], sent) == (415, "unsupported_media_type", [])
    assert refusal.headers["accept-encoding"] == "identity"
    assert api("GET", "/ledger/ada/balance", headers={"Content-Encoding": coding}).status == 200


def test_identity_is_an_accepted_encoding(api: LambdaApi) -> None:
    """A body with `Content-Encoding: identity` is read."""
    headers = {"Content-Encoding": "Identity"}
    assert api("POST", "/ledger/entry", SIGNUP, headers=headers).status == 200


def in_chunks(client: "DynamoDBClient", path: str, chunks: list[bytes]) -> int:
    """The status of a POST whose body arrives in chunks."""
    messages: list[Message] = [
        {"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks
    ]
    messages.append({"type": "http.request"})
    answers: list[Message] = []

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        answers.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b""}
    with closing(asyncio.new_event_loop()) as loop:
        loop.run_until_complete(create_app(client)(scope, receive, send))
    return int(answers[0]["status"])


@pytest.mark.parametrize("path", ["/ledger/entry", "/content/c/access"])
def test_all_chunks_of_a_body_count(client: "DynamoDBClient", path: str) -> None:
    """The size limit and the check for repeated keys are those of the whole body."""
    fields = SIGNUP if path == "/ledger/entry" else {"owner_id": "ada", "nonce": "n"}
    body = json.dumps(fields).encode()
    half = body.ljust(BODY_BYTES_MAX)[: BODY_BYTES_MAX // 2]
    rest = b" " * (BODY_BYTES_MAX // 2)
    assert in_chunks(client, path, [half, rest]) == 200
    assert in_chunks(client, path, [half, rest, b" "]) == 413
    assert in_chunks(client, path, [body[:-1], b', "owner_id": "ada"}']) == 422


def test_metadata_may_be_null(api: LambdaApi) -> None:
    """Null metadata means no metadata, also when a replay is compared."""
    first = api("POST", "/ledger/entry", {**SIGNUP, "metadata": None})
    assert first.status == 200
    assert "metadata" not in first.body
    for body in (SIGNUP, {**SIGNUP, "metadata": None}, {**SIGNUP, "metadata": {}}):
        assert api("POST", "/ledger/entry", body).body["replay"]


def test_errors_of_a_body_are_limited(api: LambdaApi) -> None:
    """A refusal names at most `ERRORS_MAX` errors and the number of the others."""
    for number in (ERRORS_MAX, ERRORS_MAX + 7):
        unknown = {f"field-{field}": 1 for field in range(number)}
        refusal = api("POST", "/ledger/entry", SIGNUP | unknown)
        assert (refusal.status, len(refusal.body["errors"])) == (422, ERRORS_MAX)
        assert refusal.body["detail"].count("; ") == ERRORS_MAX - (number == ERRORS_MAX)
        assert refusal.body["detail"].endswith("; and 7 more") == (number > ERRORS_MAX)


def test_titles_do_not_depend_on_python(api: LambdaApi) -> None:
    """The ledger names the statuses itself; an unknown status has the title Error."""
    assert {*(error.status for error in ERRORS), *CODE} <= set(TITLES)
    assert (TITLES[413], TITLES[422]) == ("Content Too Large", "Unprocessable Content")
    assert api("POST", "/ledger/entry", "{").body["title"] == "Unprocessable Content"
    router = APIRouter()

    @router.get("/teapot")
    async def teapot() -> None:
        raise HTTPException(499, "gone")

    app = create_api("Teapot", router, auth=AuthMode.NONE)
    answer = LambdaApi(create_handler(app))("GET", "/teapot")
    assert (answer.status, answer.body["title"], answer.body["code"]) == (499, "Error", "error")
