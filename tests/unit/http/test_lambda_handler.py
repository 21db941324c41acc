"""The Lambda handler with unusual events, in unusual threads, and with failing apps."""

import asyncio
import json
import logging
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import APIRouter, Request, Response
from starlette.types import Receive, Scope, Send

from functions.example_app.app import create_app
from functions.example_app.operations import ExampleAppOperations
from ledger_core.http import LedgerRouter, create_api, create_handler
from ledger_core.http.lambda_handler import Gateway
from ledger_core.models import OperationRequest
from ledger_core.operations import LedgerOperationType
from ledger_core.settings import AuthMode
from ledger_core.wiring import create_processor
from tests.support import Answer, LambdaApi

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

SIGNUP = {"owner_id": "ada", "operation": "SIGNUP_CREDIT", "nonce": "signup"}


@pytest.fixture(params=["http_api", "rest_api"])
def api(request: pytest.FixtureRequest, client: "DynamoDBClient") -> LambdaApi:
    """The Example App's handler, called by API Gateway's HTTP API and by its REST API."""
    return LambdaApi(create_handler(create_app(client)), rest_api=request.param == "rest_api")


def post(api: LambdaApi, **options: Any) -> Answer:
    return api("POST", "/ledger/entry", SIGNUP, **options)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The lines since the last call."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_handler_works_where_an_event_loop_runs(
    api: LambdaApi, capsys: pytest.CaptureFixture[str]
) -> None:
    """Called from async code, as in a notebook, the handler answers each request once."""

    async def call() -> list[int]:
        return [
            post(api).status,
            post(api).status,
            api("GET", "/ledger/ada/balance").body["entry_count"],
        ]

    with closing(asyncio.new_event_loop()) as loop:
        assert loop.run_until_complete(call()) == [200, 409, 1]
    assert [line["status"] for line in lines(capsys)] == [200, 409, 200]
    assert post(api).status == 409


def test_handler_works_after_its_event_loop_was_closed(api: LambdaApi) -> None:
    """A closed event loop of the thread is replaced."""
    before = asyncio.get_event_loop()
    closed = asyncio.new_event_loop()
    closed.close()
    asyncio.set_event_loop(closed)
    try:
        assert post(api).status == 200
    finally:
        asyncio.get_event_loop().close()
        asyncio.set_event_loop(before)


@pytest.mark.slow
@pytest.mark.parametrize(
    "headers",
    [
        {"x-forwarded-port": "443,80"},
        {"X-Forwarded-Port": "443, 80"},
        {"x-forwarded-port": ""},
        {"x-forwarded-port": "https"},
        {"x-forwarded-port": "9" * 5000},
        {"x-forwarded-port": None},
        {"x-forwarded-proto": "https,http"},
        {"x-forwarded-proto": "javascript"},
        {"x-forwarded-proto": ""},
        {"host": "a:b"},
        {"Host": "a:b:c"},
        {"host": "[::1]:443"},
        {"host": ""},
        {"host": None},
        {"host": "ü", "x-forwarded-for": "nobody", "forwarded": ";;,"},
    ],
)
@pytest.mark.parametrize("repeatable", [False, True])
def test_headers_of_proxies_do_no_harm(
    api: LambdaApi, headers: dict[str, Any], repeatable: bool
) -> None:
    """A request with a malformed or unusual header of a proxy is answered."""
    options: dict[str, Any] = {}
    if api.rest_api:
        options["multiValueHeaders"] = None
        if repeatable and None not in headers.values():
            options["multiValueHeaders"] = {name: [headers[name]] for name in headers}
    assert post(api, headers=headers, **options).status == 200


def test_scheme_is_http_or_https(client: "DynamoDBClient") -> None:
    """An unknown scheme of a proxy is taken as https."""
    schemes: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        schemes.append(scope["scheme"])
        await Response(media_type="text/plain")(scope, receive, send)

    for scheme in ("http", "https", "https,http", "file"):
        LambdaApi(Gateway(app))("GET", "/", headers={"x-forwarded-proto": scheme})
    assert schemes == ["http", "https", "https", "https"]


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"headers": None}, ()),
        ({"multiValueHeaders": None}, ()),
        ({"headers": "text"}, ()),
        ({"rawQueryString": None}, ()),
        ({"queryStringParameters": None, "multiValueQueryStringParameters": None}, ()),
        ({"isBase64Encoded": None}, ()),
        ({"identity": None}, ("requestContext",)),
        ({"sourceIp": None}, ("requestContext", "http")),
    ],
)
def test_optional_fields_of_an_event_may_be_empty_or_absent(
    api: LambdaApi, change: dict[str, Any], path: tuple[str, ...]
) -> None:
    """An event with an empty or absent optional field is answered."""
    for remove in (False, True):
        event = http_event(api, "GET", "/ledger/ada/balance")
        part = event
        for step in path:
            part = part.get(step, {})
        part.update(change)
        if remove:
            for name in change:
                del part[name]
        assert json.loads(api.handler(event, None)["body"])["balance"] == 0


def http_event(api: LambdaApi, method: str, path: str) -> dict[str, Any]:
    """The event of a request."""
    events: list[dict[str, Any]] = []

    def keep(event: dict[str, Any], _context: Any) -> dict[str, Any]:
        events.append(event)
        return {"statusCode": 200, "headers": {"content-type": "text/plain"}, "body": ""}

    LambdaApi(keep, rest_api=api.rest_api)(method, path)
    return events[0]


@pytest.mark.parametrize(
    "change",
    [
        {"requestContext": None, "httpMethod": None},
        {"requestContext": "text", "httpMethod": None},
        {"requestContext": {"requestId": 7}, "httpMethod": None},
        {"headers": {"x": "\ud800"}, "multiValueHeaders": {}},
        {"headers": {"x": 5}, "multiValueHeaders": {"x": [5]}},
        {"body": {"not": "text"}},
        {"body": "\ud800"},
        None,
        [],
        "text",
        {"version": None, "resource": None},
    ],
)
def test_unreadable_event_is_refused(
    api: LambdaApi,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    change: Any,
) -> None:
    """An event that is no HTTP request is a 422, which is logged and counted."""
    event: Any = change
    if isinstance(change, dict):
        event = http_event(api, "GET", "/ledger/ada/balance") | change
        for name in ("version", "resource", "httpMethod"):  # they tell the kind of an event
            if name in change:
                event.pop(name, None)
    answer = api.handler(event, None)
    problem = json.loads(answer["body"])
    assert (answer["statusCode"], problem["code"], problem["state"]) == (422, "invalid", "Received")
    assert answer["headers"]["content-type"] == "application/problem+json"
    (line,) = lines(capsys)
    assert (line["status"], line["code"]) == (422, "invalid")
    assert line["request_id"] == problem["request_id"]
    assert line["FailedReceived"] == 1
    assert "cannot be read as an HTTP request" in caplog.text
    context = event.get("requestContext") if isinstance(event, dict) else None
    if isinstance(context, dict) and isinstance(context.get("requestId"), str):
        assert problem["request_id"] == context["requestId"]


def test_fault_after_the_entry_is_a_500(
    client: "DynamoDBClient", caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """If an answer cannot be encoded, the 500 does not claim that no entry was written."""
    ledger = LedgerRouter(create_processor(ExampleAppOperations, client))
    router = APIRouter()

    @router.post("/odd")
    async def odd(request: Request) -> Response:
        operation = OperationRequest(
            owner_id="ada", operation=LedgerOperationType.SIGNUP_CREDIT, nonce="n"
        )
        await ledger.post_operation(request, operation)
        return Response("", headers={"x-latin": "ü"})  # not the UTF-8 that the adapter needs

    api = LambdaApi(create_handler(create_api("Odd", ledger, router, auth=AuthMode.NONE)))
    answer = api("POST", "/odd")
    assert (answer.status, answer.body["code"]) == (500, "internal")
    assert answer.body["state"] == "Processing"
    assert answer.body["request_id"] == "http-api-request"
    (failed,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert failed.getMessage() == "request_id=http-api-request failed"
    assert failed.exc_info
    assert [line["status"] for line in lines(capsys)] == [200]
    assert api("GET", "/ledger/ada/balance").body["entry_count"] == 1


def test_app_that_answers_nothing_is_a_fault(caplog: pytest.LogCaptureFixture) -> None:
    """An app that sends no answer is answered with 500, because it may have written an entry."""

    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        pass

    answer = Gateway(silent)(http_event(LambdaApi(silent), "GET", "/"), None)  # type: ignore[arg-type]
    assert (answer["statusCode"], json.loads(answer["body"])["code"]) == (500, "internal")
    assert "request_id=http-api-request failed" in caplog.text
