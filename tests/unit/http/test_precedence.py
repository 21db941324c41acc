"""The code of a request that breaks several rules: the order of `functions/README.md`."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

from functions.example_app.app import create_app
from ledger_core.http import create_handler
from ledger_core.http.middleware import BODY_BYTES_MAX
from tests.fakes.pages import section
from tests.support import LambdaApi

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

STORED = {"owner_id": "ada", "operation": "CREDIT_SPEND", "nonce": "used", "amount": 1}
LARGE = "x" * (BODY_BYTES_MAX + 1)
APP = {"sub": "shop", "scope": "ledger/read ledger/write"}
OWNER = {"sub": "eve"}
TEXT = {"content-type": "text/plain"}
RULES: list[tuple[str, Mapping[str, Any], str]] = [
    # The request breaks this rule, and each later rule that it can break; it gets the code.
    ("no token", {"claims": None, "path": "/nowhere", "body": LARGE}, "unauthorized"),
    ("no route", {"path": "/nowhere", "body": LARGE, "query": {"x": "1"}}, "not_found"),
    (
        "wrong method",
        {"method": "DELETE", "body": LARGE, "query": {"x": "1"}},
        "method_not_allowed",
    ),
    ("query", {"body": LARGE, "query": {"x": "1"}}, "invalid"),
    ("size", {"body": LARGE}, "too_large"),
    ("media type", {"body": "{", "headers": TEXT}, "unsupported_media_type"),
    ("body", {"body": STORED | {"owner_id": "", "operation": "NO"}, "claims": OWNER}, "invalid"),
    ("operation", {"body": STORED | {"operation": "NO"}, "claims": OWNER}, "unknown_operation"),
    ("caller", {"body": STORED | {"amount": 9_999_999}, "claims": OWNER}, "forbidden"),
    ("amount", {"body": STORED | {"amount": 9_999_999}}, "invalid"),
    ("nonce", {"body": STORED | {"amount": 99}}, "duplicate_nonce"),
    ("balance", {"body": STORED | {"amount": 99, "nonce": "new"}}, "insufficient_balance"),
]


@pytest.mark.parametrize(("sent", "code"), [pytest.param(*rest, id=name) for name, *rest in RULES])
def test_first_broken_rule_answers(
    client: "DynamoDBClient",
    monkeypatch: pytest.MonkeyPatch,
    sent: Mapping[str, Any],
    code: str,
) -> None:
    """A request gets the code of the first rule that it breaks."""
    monkeypatch.setenv("LEDGER_AUTH", "jwt")
    api = LambdaApi(create_handler(create_app(client)))
    api.claims = APP
    grant = STORED | {"operation": "CREDIT_ADD", "nonce": "grant", "amount": 5}
    assert api("POST", "/ledger/entry", grant).status == 200
    assert api("POST", "/ledger/entry", STORED).status == 200
    api.claims = sent.get("claims", APP)
    answer = api(
        sent.get("method", "POST"),
        sent.get("path", "/ledger/entry"),
        sent["body"],
        headers=sent.get("headers"),
        query=sent.get("query"),
    )
    assert answer.body["code"] == code


def test_page_has_the_same_order() -> None:
    """The page lists these codes in this order, and then the codes of temporary failures."""
    listed = re.findall(r"^\d+\. .*$", section("functions", "Errors"), flags=re.MULTILINE)
    codes = [code for line in listed for code in re.findall(r"`(\w+)`", line)]
    assert codes == [*(code for _, _, code in RULES), "contention", "unavailable"]
