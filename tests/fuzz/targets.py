"""What is fuzzed: the Lambda handler, given API Gateway's events, and the server of `make run`."""

import base64
import io
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import requests
import schemathesis
import urllib3
from requests.adapters import HTTPAdapter
from schemathesis.schemas import APIOperation

from ledger_core.dynamodb import SweepStore
from ledger_core.rewards.sweep import PAGE_OWNERS_MAX
from tests.invariants import Book, check
from tests.support import ROOT

__all__ = ["TOKEN", "Gateway", "Operation", "Sent", "Target"]

Sent = schemathesis.Case[Any]
Operation = APIOperation[Any, Any, Any, Any]

TOKEN = "token"
PLAIN_OWNER = "0"
"""Whom schemathesis takes where an owner's id is not what it tries."""
EVENT = json.loads((ROOT / "infra/events/http_api.json").read_text())
CLAIMS = {"jwt": {"claims": {"sub": "shop", "scope": "ledger/read ledger/write"}, "scopes": None}}
TEXT = ("application/json", "text/", "application/xml", "application/javascript")

CONFIG = """
[dictionaries]
owners = { values = ["ada", "bob", "auth0|ü-1", "operations", "~"] }
operations = { values = ["CREDIT_ADD", "CREDIT_SPEND", "CONTENT_ACCESS", "LEVEL_UP"] }

[parameters]
"path.owner_id" = { dictionary = "owners", probability = 0.7 }
"body.owner_id" = { dictionary = "owners", probability = 0.7 }
"query.operation" = { dictionary = "operations", probability = 0.7 }

[output.sanitization]
enabled = false

[generation]
with-security-parameters = false

[checks]
ignored_auth.enabled = false # it would send requests of its own, past the session
negative_data_rejection.expected-statuses = ["4XX"]
# 422: rules beyond the schema; 402, 409: refusals of the ledger; `.` in a path: another route.
positive_data_acceptance.expected-statuses = ["2XX", 402, 404, 409, 422]
"""
"""The settings of schemathesis: a few owners with growing ledgers, and the expected statuses."""


class Gateway(HTTPAdapter):
    """Sends requests to a Lambda handler as an HTTP API does whose authorizer knows one token."""

    def __init__(self, handler: Callable[[dict[str, Any], Any], dict[str, Any]]) -> None:
        super().__init__()
        self._handler = handler

    def send(
        self, request: requests.PreparedRequest, *_args: Any, **_options: Any
    ) -> requests.Response:
        answer = self._handler(self._event(request), None)
        raw = urllib3.HTTPResponse(
            io.BytesIO(answer["body"].encode()),
            answer["headers"],
            answer["statusCode"],
            preload_content=False,
        )
        return self.build_response(request, raw)

    def _event(self, request: requests.PreparedRequest) -> dict[str, Any]:
        headers = {name.lower(): _text(value) for name, value in request.headers.items()}
        body = _bytes(request.body or b"")
        is_text = headers.get("content-type", "").startswith(TEXT) and _is_utf_8(body)
        url = urlsplit(str(request.url))
        authorizer = CLAIMS if headers.get("authorization") == f"Bearer {TOKEN}" else None
        http = {**EVENT["requestContext"]["http"], "path": url.path, "method": request.method}
        return {
            **EVENT,
            "headers": headers,
            "rawPath": url.path,
            "rawQueryString": url.query,
            "requestContext": {**EVENT["requestContext"], "http": http, "authorizer": authorizer},
            "body": (body if is_text else base64.b64encode(body)).decode() or None,
            "isBase64Encoded": bool(body) and not is_text,
        }


@dataclass
class Target:
    """Where requests go, the tables behind it, and what was answered."""

    url: str
    session: requests.Session
    store: SweepStore
    answers: Counter[int] = field(default_factory=Counter)
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.session.hooks["response"].append(self._count)
        document = self.session.get(f"{self.url}/openapi.json", headers=self.headers).json()
        config = schemathesis.Config.from_str(CONFIG)
        self.schema = schemathesis.openapi.from_dict(_with_null(document), config=config)

    def operations(self) -> list[Operation]:
        """All that the document has."""
        return [self.schema[path][method] for path in self.schema for method in self.schema[path]]

    def give_credits(self) -> None:
        """Give each owner credits, so that a repeated request is a duplicate and not refused."""
        body: dict[str, Any] = {
            "owner_id": PLAIN_OWNER,
            "operation": "CREDIT_ADD",
            "nonce": "credits",
            "amount": 1000,
        }
        assert (
            self.session.post(
                f"{self.url}/ledger/entry", json=body, headers=self.headers
            ).status_code
            == 200
        )

    def send(self, case: Sent) -> None:
        """Send it, and what is accepted once more; compare the answers with the document."""
        for _ in range(2):
            answer = case.call_and_validate(
                base_url=self.url, session=self.session, headers=dict(self.headers)
            )
            if answer.status_code != 200 or case.method == "GET":
                break

    def check(self) -> int:
        """Every ledger is right; how many there are."""
        owners, start, is_first = list[str](), None, True
        while is_first or start:
            page = self.store.accounts(segment=0, segments=1, start=start, limit=PAGE_OWNERS_MAX)
            assert not page.malformed
            owners += [account.owner_id for account in page.accounts]
            start, is_first = page.start, False
        for owner_id in owners:
            check(Book.of(self.store, owner_id))
        return len(owners)

    def _count(self, response: requests.Response, **_: Any) -> None:
        self.answers[response.status_code] += 1


def _with_null(document: Any) -> Any:
    """The OpenAPI document, with null allowed where generated clients send it for no value."""
    for name in ("EntryRequest", "ContentAccess"):
        schema = document["components"]["schemas"][name]
        for field_name in schema["properties"].keys() - set(schema["required"]):
            field_schema = schema["properties"][field_name]
            schema["properties"][field_name] = {"anyOf": [field_schema, {"type": "null"}]}
    return document


def _bytes(sent: Any) -> bytes:
    return sent if isinstance(sent, bytes) else str(sent).encode()


def _text(sent: Any) -> str:
    return sent.decode("latin-1") if isinstance(sent, bytes) else str(sent)


def _is_utf_8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True
