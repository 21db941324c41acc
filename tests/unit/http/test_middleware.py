"""What is around every request and every answer, whatever the route: paths, methods, headers, queries, bodies."""

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
    """A server of the Example App below a path, which the pages of one origin may call."""
    monkeypatch.setenv("LEDGER_BASE_PATH", "/prod")
    monkeypatch.setenv("LEDGER_ALLOWED_ORIGINS", "https://app.example.com")
    with serving(client) as http:
        yield http


@pytest.mark.parametrize("base_path", ["/prod", "/ledger", "/a/b"])
def test_api_below_a_base_path(
    client: "DynamoDBClient", monkeypatch: pytest.MonkeyPatch, base_path: str
) -> None:
    """A stage or a mapping before the path is taken off, and the documents name it; no other path is cut."""
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


def test_base_path_may_be_taken_off_by_a_gateway(server: httpx.Client) -> None:
    """A proxy that hands a path on without it, and one that leaves it on, are both understood."""
    for path in ("/health", "/prod/health", "/ledger/ada/balance", "/prod/ledger/ada/balance"):
        assert server.get(path).status_code == 200
    assert server.get("/prod/prod/health").status_code == 404


def test_head_is_get_without_a_body(api: LambdaApi) -> None:
    """Every GET route answers HEAD with the same status and headers, to every caller."""
    for path in (*GETS, "/openapi.json", "/nowhere", "/ledger/a%23b/balance"):
        got, head = api("GET", path), api("HEAD", path)
        assert (head.status, head.body) == (got.status, "")
        assert len(got.headers) == len(head.headers)
        assert {**head.headers, "content-length": ""} == {**got.headers, "content-length": ""}
    refused = api("DELETE", "/ledger/ada/balance")
    assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")
    assert api("HEAD", "/ledger/entry").status == 405


def test_head_of_a_server(server: httpx.Client, capfd: pytest.CaptureFixture[str]) -> None:
    """It tells how long the body would be, sends none, and is logged as what it was."""
    paths = ("/health", "/ledger/ada/balance", "/nowhere")
    for path in paths:
        head, got = server.head(path), server.get(path)
        assert (head.status_code, head.content) == (got.status_code, b"")
        assert int(head.headers["content-length"]) == len(got.content)
    told = ""
    while told.count("latency_ms") < 2 * len(paths):  # which is told after it is answered
        told += capfd.readouterr().out
    lines = [json.loads(line) for line in told.splitlines()]
    assert [(line["method"], line["status"]) for line in lines[::2]] == [
        ("HEAD", 200),
        ("HEAD", 200),
        ("HEAD", 404),
    ]


def of_every_kind(api: LambdaApi, monkeypatch: pytest.MonkeyPatch) -> list[Answer]:
    """An answer of every kind, a failure that nobody foresaw among them."""
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


def test_every_answer_has_its_id_and_is_kept_by_nobody(
    api: LambdaApi, client: "DynamoDBClient", monkeypatch: pytest.MonkeyPatch
) -> None:
    """The id that the log has; and `no-store` on all but what needs no token."""
    answers = of_every_kind(api, monkeypatch)
    assert [answer.status for answer in answers] == [
        200,
        409,
        200,
        200,
        422,
        413,
        402,
        404,
        405,
        500,
    ]
    monkeypatch.setenv("LEDGER_AUTH", "jwt")
    refusing = LambdaApi(create_handler(create_app(client)), rest_api=api.rest_api)
    refusing.claims = None
    answers.append(refusing("GET", "/ledger/ada/balance"))
    assert answers[-1].status == 401
    for answer in answers:
        assert answer.headers["x-request-id"] == (
            "rest-api-request" if api.rest_api else "http-api-request"
        )
        assert answer.headers["cache-control"] == "no-store"
    health = refusing("GET", "/health")
    assert ("x-request-id" in health.headers, "cache-control" in health.headers) == (True, False)
    unreadable = api.handler({}, None)
    assert unreadable["headers"]["x-request-id"] == json.loads(unreadable["body"])["request_id"]


def test_an_app_may_say_what_is_kept() -> None:
    """A route that names its own Cache-Control has it, once."""
    router = APIRouter()

    @router.get("/logo")
    async def logo() -> Any:
        from starlette.responses import PlainTextResponse

        return PlainTextResponse("logo", headers={"Cache-Control": "max-age=60"})

    api = LambdaApi(create_handler(create_api("Logos", router, auth=AuthMode.NONE)))
    assert api("GET", "/logo").headers["cache-control"] == "max-age=60"


def test_ids_of_a_server_are_its_own(server: httpx.Client) -> None:
    """Each answer has another, a problem the one that it names, whatever the client sends."""
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
    """Preflights need no token, and every answer may be read by the pages of that origin, refusals and faults too."""
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,idempotency-key",
    }
    for path in ("/prod/ledger/entry", "/content/c", "/health"):
        preflight = server.options(path, headers=ORIGIN | asked)
        assert (preflight.status_code, "x-request-id" in preflight.headers) == (200, True)
        assert preflight.headers["access-control-allow-origin"] == ORIGIN["Origin"]
        assert "POST" in preflight.headers["access-control-allow-methods"]
    assert (
        server.options("/health", headers={"Origin": "https://evil.example", **asked}).status_code
        == 400
    )
    other = server.get("/health", headers={"Origin": "https://evil.example"})
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


def test_preflight_where_tokens_are_needed(
    client: "DynamoDBClient", monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is answered, and what it asks leave for is refused, readably."""
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


def test_without_origins_there_are_no_such_headers(api: LambdaApi) -> None:
    """Unless it is asked for, and behind a gateway that answers that itself."""
    preflight = api(
        "OPTIONS", "/ledger/entry", headers=ORIGIN | {"Access-Control-Request-Method": "POST"}
    )
    assert preflight.status == 405
    assert not [
        name
        for name in api("GET", "/health", headers=ORIGIN).headers
        if name.startswith("access-control")
    ]


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
    """One that is misspelt is no reason to answer something else, or to post."""
    sent = wire(client)
    refusal = api(method, path, body, query={"limt": "5"})
    assert (refusal.status, sent) == (422, [])
    if method != "HEAD":
        assert (refusal.body["code"], refusal.body["state"]) == ("invalid", "Validating")
        assert refusal.body["errors"] == [
            {"field": "query.limt", "message": "There is no such parameter"}
        ]


def test_parameters_of_models_and_dependencies_are_known() -> None:
    """However a route of an app takes its parameters."""
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
    assert api("GET", "/things", query={"colour": "red", "page": "2"}).body == {
        "colour": "red",
        "page": 2,
    }
    assert api("GET", "/things", query={"number": "2"}).status == 422


@pytest.mark.parametrize(
    "body",
    [
        '{"owner_id": "ada", "operation": "SIGNUP_CREDIT", "nonce": "a", "nonce": "b"}',
        '{"owner_id": "ada", "operation": "SIGNUP_CREDIT", "nonce": "a", "non\\u0063e": "a"}',
        '{"owner_id": "ada", "operation": "SIGNUP_CREDIT", "nonce": "a", "metadata": {"k": "v", "k": "v"}}',
        '\ufeff{"owner_id": "ada", "owner_id": "ada", "operation": "SIGNUP_CREDIT", "nonce": "a"}',
        '[[{"deep": [{"k": 1, "k": 1}]}]]',
    ],
)
@pytest.mark.parametrize(("method", "path"), [("POST", "/ledger/entry"), ("PUT", "/content/c")])
def test_key_that_is_repeated_is_refused(
    api: LambdaApi, client: "DynamoDBClient", method: str, path: str, body: str
) -> None:
    """Of two values one would have to be chosen, at any depth and however the key is spelt."""
    sent = wire(client)
    for text, encoded in ((body, False), (base64.b64encode(body.encode()).decode(), True)):
        refusal = api(method, path, text, isBase64Encoded=encoded)
        assert (refusal.status, refusal.body["code"], refusal.body["state"]) == (
            422,
            "invalid",
            "Validating",
        )
        assert refusal.body["detail"] == "body: an object has a key twice; send each key once"
    assert sent == []


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "br", "identity, gzip", "deflate"])
@pytest.mark.parametrize(("method", "path"), [("POST", "/ledger/entry"), ("PUT", "/content/c")])
def test_compressed_body_is_refused(
    api: LambdaApi, client: "DynamoDBClient", method: str, path: str, coding: str
) -> None:
    """It is told apart from one that is no JSON, and how to send it."""
    sent = wire(client)
    body = base64.b64encode(gzip.compress(json.dumps(SIGNUP).encode())).decode()
    refusal = api(method, path, body, isBase64Encoded=True, headers={"Content-Encoding": coding})
    assert (refusal.status, refusal.body["code"], sent) == (415, "unsupported_media_type", [])
    assert refusal.headers["accept-encoding"] == "identity"
    assert api("GET", "/ledger/ada/balance", headers={"Content-Encoding": coding}).status == 200


def test_body_that_is_said_to_be_as_it_is(api: LambdaApi) -> None:
    """`identity` is no coding."""
    assert (
        api("POST", "/ledger/entry", SIGNUP, headers={"Content-Encoding": "Identity"}).status == 200
    )


def in_chunks(client: "DynamoDBClient", path: str, chunks: list[bytes]) -> int:
    """The status of a POST whose body comes so."""
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
def test_limit_of_a_body_is_of_all_its_chunks(client: "DynamoDBClient", path: str) -> None:
    """None of which is too large; it is read no further than to where it is, and a key may be repeated in another."""
    body = json.dumps(
        SIGNUP if path == "/ledger/entry" else {"owner_id": "ada", "nonce": "n"}
    ).encode()
    half = body.ljust(BODY_BYTES_MAX)[: BODY_BYTES_MAX // 2]
    rest = b" " * (BODY_BYTES_MAX // 2)
    assert in_chunks(client, path, [half, rest]) == 200
    assert in_chunks(client, path, [half, rest, b" "]) == 413
    assert in_chunks(client, path, [body[:-1], b', "owner_id": "ada"}']) == 422


def test_metadata_may_be_null(api: LambdaApi) -> None:
    """As if it was left out, when it is compared as well."""
    first = api("POST", "/ledger/entry", {**SIGNUP, "metadata": None})
    assert first.status == 200
    assert "metadata" not in first.body
    for body in (SIGNUP, {**SIGNUP, "metadata": None}, {**SIGNUP, "metadata": {}}):
        assert api("POST", "/ledger/entry", body).body["replay"]


def test_few_errors_of_many_are_named(api: LambdaApi) -> None:
    """As many as may be of use; how many more there are is told."""
    for number in (ERRORS_MAX, ERRORS_MAX + 7):
        refusal = api(
            "POST", "/ledger/entry", SIGNUP | {f"field-{field}": 1 for field in range(number)}
        )
        assert (refusal.status, len(refusal.body["errors"])) == (422, ERRORS_MAX)
        assert refusal.body["detail"].count("; ") == ERRORS_MAX - (number == ERRORS_MAX)
        assert refusal.body["detail"].endswith("; and 7 more") == (number > ERRORS_MAX)


def test_titles_are_ours(api: LambdaApi) -> None:
    """Whatever the version of Python calls a status; one that has no title there is no failure."""
    assert {*(error.status for error in ERRORS), *CODE} <= set(TITLES)
    assert (TITLES[413], TITLES[422]) == ("Content Too Large", "Unprocessable Content")
    assert api("POST", "/ledger/entry", "{").body["title"] == "Unprocessable Content"
    router = APIRouter()

    @router.get("/teapot")
    async def teapot() -> None:
        raise HTTPException(499, "gone")

    odd = LambdaApi(create_handler(create_api("Teapot", router, auth=AuthMode.NONE)))(
        "GET", "/teapot"
    )
    assert (odd.status, odd.body["title"], odd.body["code"]) == (499, "Error", "error")
