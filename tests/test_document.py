"""The OpenAPI document: every answer is in it, as it is given."""

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from functions.example_app.app import create_app
from ledger_core.api import OPEN_PATHS
from ledger_core.problems import CODE, STATUS

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


def document_of(client: "DynamoDBClient") -> Any:
    """The document, as it is served."""
    return json.loads(json.dumps(create_app(client).openapi()))


@pytest.fixture
def document(client: "DynamoDBClient", monkeypatch: pytest.MonkeyPatch) -> Any:
    """The Example App's where tokens are asked for."""
    monkeypatch.setenv("LEDGER_AUTH", "jwt")
    return document_of(client)


def test_every_code_is_documented_under_its_status(document: Any) -> None:
    """Each code of a refusal is among the codes of the response that has its status."""
    responses = document["components"]["responses"]
    for status, codes in (
        (status, {code for code, of in STATUS.items() if of == status}) for status in STATUS.values()
    ):
        content = responses[f"Problem{status}"]["content"]["application/problem+json"]
        assert codes <= set(content["schema"]["properties"]["code"]["enum"])
    for status, code in CODE.items():
        content = responses[f"Problem{status}"]["content"]["application/problem+json"]
        assert content["schema"]["properties"]["code"]["enum"] == [code]


@pytest.mark.parametrize(
    ("path", "method", "statuses"),
    [
        ("/ledger/entry", "post", "200 401 402 403 409 413 415 422 500 503"),
        ("/ledger/{owner_id}/balance", "get", "200 401 403 404 405 422 500 503"),
        ("/ledger/operations", "get", "200 401 500"),
        ("/health", "get", "200 500"),
        ("/content/{content_id}", "put", "200 401 402 403 404 405 409 413 415 422 500 503"),
    ],
)
def test_statuses_of_an_operation(document: Any, path: str, method: str, statuses: str) -> None:
    """An operation lists every status that it may answer, an app's own operations too, and no other."""
    assert sorted(document["paths"][path][method]["responses"]) == statuses.split()


def test_what_is_referred_to_is_there(document: Any) -> None:
    """No reference of the document leads nowhere, and what FastAPI says of errors, which is never answered, is gone."""
    components = document["components"]
    for kind, name in re.findall(r'"#/components/(\w+)/(\w+)"', json.dumps(document)):
        assert name in components[kind]
    assert "HTTPValidationError" not in components["schemas"]


def test_tokens_are_documented_where_they_are_needed(document: Any, client: "DynamoDBClient") -> None:
    """Every operation but the open ones asks for a bearer token; where nobody is asked who they are, none does."""
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    for path, operations in document["paths"].items():
        assert all(("security" in operation) == (path not in OPEN_PATHS) for operation in operations.values())


def test_without_tokens_there_are_none_in_the_document(client: "DynamoDBClient") -> None:
    """With LEDGER_AUTH=none the document speaks of no token, and of no 401."""
    document = document_of(client)
    assert "securitySchemes" not in document["components"]
    assert "401" not in document["paths"]["/ledger/entry"]["post"]["responses"]


def test_metadata_and_times_are_documented_as_they_are(document: Any) -> None:
    """Other keys than those of the pattern are refused, and times are RFC 3339's."""
    schemas = document["components"]["schemas"]
    assert schemas["EntryRequest"]["properties"]["metadata"]["additionalProperties"] is False
    assert schemas["LedgerEntry"]["properties"]["created_at"]["format"] == "date-time"


@pytest.mark.parametrize("path", ["/ledger/entry", "/content/{content_id}/access"])
def test_idempotency_key_is_documented(document: Any, path: str) -> None:
    """The header that a nonce may come in is there, and what is told of an answer that was given before."""
    operation = document["paths"][path]["post"]
    (header,) = [parameter for parameter in operation["parameters"] if parameter["in"] == "header"]
    assert (header["name"], header["required"]) == ("Idempotency-Key", False)
    assert "Idempotency-Replayed" in operation["responses"]["200"]["headers"]


def test_what_only_readers_see_is_documented_and_not_required(document: Any) -> None:
    """A balance and an original entry may be missing from a problem; what it takes and `replay` are always there."""
    for status, required, more in ((402, "required", "balance"), (409, "replay", "entry")):
        response = document["components"]["responses"][f"Problem{status}"]
        schema = response["content"]["application/problem+json"]["schema"]
        assert schema["required"] == [required]
        assert {required, more} <= set(schema["properties"])
