"""The page at /docs, over a real server, which serves all of its parts."""

import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

import httpx
import pytest

from functions.example_app.app import create_app
from functions.example_app.operations import ExampleAppOperations
from ledger_core.http import LedgerRouter, create_api, create_handler
from ledger_core.http.docs_page import DOCS_PATHS, FILES, PACKAGE
from ledger_core.settings import AuthMode
from ledger_core.wiring import create_processor
from tests.fakes.server import serving
from tests.support import LambdaApi

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

TYPES = {".css": "text/css", ".js": "text/javascript"}


@pytest.fixture(params=["none", "jwt"])
def http(
    request: pytest.FixtureRequest, client: "DynamoDBClient", monkeypatch: pytest.MonkeyPatch
) -> Iterator[httpx.Client]:
    """A client without a token, and a server of the Example App that needs tokens or does not."""
    monkeypatch.setenv("LEDGER_AUTH", request.param)
    with serving(client) as http:
        yield http


def named_in(html: str) -> list[str]:
    """The URLs that a browser loads for a page."""
    urls = re.findall(r'(?:src|href)="([^"]*)"', html)
    return [url for url in urls if not url.startswith("data:")]


def test_server_serves_the_page_and_all_its_parts(http: httpx.Client) -> None:
    """A client without a token gets the page, its files and the document that it shows."""
    page = http.get("/", follow_redirects=True)
    assert ([answer.status_code for answer in page.history], page.url.path) == ([307], "/docs")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    paths = {urljoin("/docs", url) for url in named_in(page.text)}
    assert paths == DOCS_PATHS - {"/", "/docs"}
    for path in paths:
        part = http.get(path)
        media_type = part.headers["content-type"].partition(";")[0]
        assert (part.status_code, media_type) == (200, TYPES[path[path.rindex(".") :]])
        assert len(part.content) > (100_000 if path.rpartition("/")[2] in FILES else 100)
    (shown,) = re.findall(r'url: "([^"]+)"', http.get("/docs/start.js").text)
    assert http.get(urljoin("/docs", shown)).json()["info"]["title"] in page.text


def test_page_loads_nothing_from_another_host(http: httpx.Client) -> None:
    """No part is on another host, and the content security policy forbids other hosts."""
    page = http.get("/docs")
    assert not [url for url in named_in(page.text) if urlsplit(url).netloc or urlsplit(url).scheme]
    css = http.get("/docs/swagger-ui.css").text
    assert not re.findall(r"@import|url\((?!\"?'?data:)", css)
    assert "validatorUrl: null" in http.get("/docs/start.js").text
    parts = page.headers["content-security-policy"].split("; ")
    policy = dict(part.split(" ", 1) for part in parts)
    assert policy.pop("default-src") == "'none'"
    assert not [text for text in policy.values() if re.search(r"[*]|https?:|'unsafe-eval'", text)]
    assert policy["script-src"] == "'self'"


def test_page_works_under_a_base_path(http: httpx.Client) -> None:
    """The URLs of the page are relative, so they have its base path."""
    paths = {f"/prod{path}" for path in (*DOCS_PATHS, "/openapi.json")}
    for url in (*named_in(http.get("/docs").text), "openapi.json"):
        assert urljoin("/prod/docs", url) in paths


def test_page_behind_a_proxy_has_the_base_path(
    client: "DynamoDBClient", monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a proxy removes the base path, the redirect and the document still have it."""
    monkeypatch.setenv("LEDGER_AUTH", "jwt")
    with serving(client, root_path="/prod") as http:
        assert http.get("/").headers["location"] == "/prod/docs"
        assert http.get("/docs").status_code == 200
        assert http.get("/openapi.json").json()["servers"] == [{"url": "/prod"}]


def test_stage_of_api_gateway_is_a_base_path(
    client: "DynamoDBClient", monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `LEDGER_BASE_PATH`, the page is served with and without the stage in the path."""
    monkeypatch.setenv("LEDGER_BASE_PATH", "/prod")
    monkeypatch.setenv("LEDGER_AUTH", "jwt")
    api = LambdaApi(create_handler(create_app(client)))
    api.claims = None
    for stage in ("", "/prod"):
        assert api("GET", f"{stage}/").headers["location"] == "/prod/docs"
        assert api("GET", f"{stage}/docs").status == 200
        assert api("GET", f"{stage}/openapi.json").body["servers"] == [{"url": "/prod"}]


@pytest.mark.parametrize("path", sorted(DOCS_PATHS))
def test_app_without_swagger_ui_has_no_page(
    client: "DynamoDBClient", monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """If the package is not installed, as in Lambda, the page is a 404; the document is served."""
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    api = LambdaApi(create_handler(create_app(client)))
    answer = api("GET", path)
    assert (answer.status, answer.body["code"]) == (404, "not_found")
    assert "/openapi.json" in answer.body["detail"]
    assert api("GET", "/openapi.json").status == 200


def test_title_is_text(client: "DynamoDBClient") -> None:
    """The name of an app is escaped in the page."""
    ledger = LedgerRouter(create_processor(ExampleAppOperations, client))
    app = create_api("<script>", ledger, auth=AuthMode.NONE)
    assert "<title>&lt;script&gt;</title>" in LambdaApi(create_handler(app))("GET", "/docs").body
