"""The OpenAPI document describes every answer as it is given."""

import json
import re
from datetime import datetime
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from functions.example_app.app import INFO, create_app
from infra import openapi
from ledger_core.http import create_api
from ledger_core.http.app import OPEN_PATHS
from ledger_core.http.field_descriptions import FIELDS, PARAMETERS
from ledger_core.http.openapi import ERRORS
from ledger_core.http.openapi_clients import BOUNDS
from ledger_core.http.problems import CODE, INTERNAL
from ledger_core.settings import AuthMode

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


def document_of(client: "DynamoDBClient") -> Any:
    """The document of the Example App, as it is served."""
    return json.loads(json.dumps(create_app(client).openapi()))


@pytest.fixture
def document(client: "DynamoDBClient", monkeypatch: pytest.MonkeyPatch) -> Any:
    """The document of the Example App with tokens."""
    monkeypatch.setenv("LEDGER_AUTH", "jwt")
    return document_of(client)


def test_document_is_committed(client: "DynamoDBClient", monkeypatch: pytest.MonkeyPatch) -> None:
    """The committed file is the document of the Example App; `make openapi` writes it."""
    monkeypatch.setenv("LEDGER_AUTH", "jwt")
    assert openapi.document_text(create_app(client)) == openapi.PATH.read_text()


def test_document_has_the_description_of_the_app(document: Any) -> None:
    """The document has the description, the contact and the tags of the app."""
    assert document["info"] == {"title": "Example App", **INFO}
    assert [tag["name"] for tag in document["tags"]] == ["content", "ledger"]


def test_operations_have_plain_names(document: Any) -> None:
    """The operation ids become the names of functions in a generated client."""
    assert {operation["operationId"] for operation in operations(document)} == {
        "accessContent",
        "createContent",
        "getBalance",
        "getEntries",
        "getHealth",
        "getOperations",
        "getReceipt",
        "postEntry",
        "verifyLedger",
    }


def operations(document: Any) -> list[Any]:
    """The operations of a document."""
    return [operation for path in document["paths"].values() for operation in path.values()]


def described(document: Any) -> list[Any]:
    """The parts of a document that need a description."""
    schemas = document["components"]["schemas"].values()
    fields = [field for schema in schemas for field in schema.get("properties", {}).values()]
    parameters: list[Any] = []
    answers = list(document["components"]["responses"].values())
    for operation in operations(document):
        parameters += operation.get("parameters", [])
        answers += operation["responses"].values()
    headers = [header for answer in answers for header in answer.get("headers", {}).values()]
    return [*operations(document), *parameters, *headers, *schemas, *fields]


def test_everything_is_described(document: Any) -> None:
    """Each operation, parameter, header, schema and field has a description."""
    parts = described(document)
    assert len(parts) > 200
    assert not [part for part in parts if not part.get("description")]


def test_described_fields_exist(document: Any) -> None:
    """The document has each field and parameter that the tables describe."""
    schemas = document["components"]["schemas"]
    fields = {name: set(schema.get("properties", {})) for name, schema in schemas.items()}
    problems = [names for schema, names in fields.items() if re.fullmatch(r"Problem\d+", schema)]
    fields["Problem"] = set.union(*problems)
    for name, descriptions in FIELDS.items():
        assert descriptions.keys() <= fields[name]
    parameters = {
        operation["operationId"]: operation.get("parameters", [])
        for operation in operations(document)
    }
    for name, descriptions in PARAMETERS.items():
        assert descriptions.keys() <= {parameter["name"] for parameter in parameters[name]}


def problem(document: Any, status: int) -> Any:
    """The schema of the problem with a status, to which its response refers."""
    name = f"Problem{status}"
    content = document["components"]["responses"][name]["content"]
    assert content["application/problem+json"]["schema"] == {"$ref": f"#/components/schemas/{name}"}
    return document["components"]["schemas"][name]


def test_every_code_is_documented_under_its_status(document: Any) -> None:
    """The response of a status lists each code that has the status."""
    codes = {(error.status, error.code) for error in ERRORS if error.status != 500}
    for status, code in {*codes, *CODE.items(), (422, "duplicate_nonce")}:
        assert code in problem(document, status)["properties"]["code"]["enum"]
    for status in (404, 405, 413, 415):
        assert problem(document, status)["properties"]["code"]["enum"] == [CODE[status]]
    assert problem(document, 500)["properties"]["code"]["enum"] == [INTERNAL]


@pytest.mark.parametrize(
    ("path", "method", "statuses"),
    [
        ("/ledger/entry", "post", "200 401 402 403 409 413 415 422 429 500 501 503"),
        ("/ledger/{owner_id}/balance", "get", "200 401 403 404 405 422 429 500 501 503"),
        ("/ledger/operations", "get", "200 401 403 422 429 500 503"),
        ("/health", "get", "200 422 429 500 503"),
        ("/content/{content_id}", "put", "200 401 402 403 404 405 409 413 415 422 429 500 501 503"),
    ],
)
def test_statuses_of_an_operation(document: Any, path: str, method: str, statuses: str) -> None:
    """An operation lists exactly the statuses that it or API Gateway may answer."""
    assert sorted(document["paths"][path][method]["responses"]) == statuses.split()


def test_references_have_a_target(document: Any) -> None:
    """Each reference has a target; FastAPI's unused error schema is removed."""
    components = document["components"]
    for kind, name in re.findall(r'"#/components/(\w+)/(\w+)"', json.dumps(document)):
        assert name in components[kind]
    assert "HTTPValidationError" not in components["schemas"]


def test_tokens_are_documented_where_they_are_needed(
    document: Any, client: "DynamoDBClient"
) -> None:
    """Each operation needs a bearer token unless its path is open."""
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert ("security" in operation) == (path not in OPEN_PATHS)


def test_document_without_tokens_has_no_401(client: "DynamoDBClient") -> None:
    """With `LEDGER_AUTH=none`, the document has no security scheme and no 401."""
    document = document_of(client)
    assert "securitySchemes" not in document["components"]
    assert "401" not in document["paths"]["/ledger/entry"]["post"]["responses"]


def test_types_of_metadata_and_times_are_documented(document: Any) -> None:
    """Metadata is a map of strings whose keys have a pattern; a time is a `date-time`."""
    schemas = document["components"]["schemas"]
    metadata = schemas["EntryRequest"]["properties"]["metadata"]
    assert metadata["additionalProperties"] == {"type": "string"}
    assert metadata["propertyNames"] == {"pattern": r"^[A-Za-z0-9_.:-]{1,64}$"}
    assert metadata["maxProperties"] == 16
    fields = schemas["LedgerEntry"]["properties"]
    assert fields["metadata"]["additionalProperties"] == {"type": "string"}
    assert fields["created_at"]["format"] == "date-time"


@pytest.mark.parametrize("path", ["/ledger/entry", "/content/{content_id}/access"])
def test_idempotency_key_is_documented(document: Any, path: str) -> None:
    """The document has the header of a nonce, and the header of a replayed answer."""
    operation = document["paths"][path]["post"]
    (header,) = [parameter for parameter in operation["parameters"] if parameter["in"] == "header"]
    assert (header["name"], header["required"]) == ("Idempotency-Key", False)
    assert "Idempotency-Replayed" in operation["responses"]["200"]["headers"]


def test_fields_that_only_readers_get_are_optional(document: Any) -> None:
    """A problem may lack the balance or the original entry, and has its other fields."""
    for status, always, optional in ((402, "required", "balance"), (409, "replay", "entry")):
        schema = problem(document, status)
        assert always in schema["required"]
        assert optional not in schema["required"]
        assert {always, optional} <= set(schema["properties"])


def test_answers_of_api_gateway_are_documented(document: Any) -> None:
    """An answer of API Gateway is a JSON message without the headers of the ledger."""
    components = document["components"]
    message = {"$ref": "#/components/schemas/GatewayMessage"}
    assert components["schemas"]["GatewayMessage"]["required"] == ["message"]
    for status in (401, 403, 413, 429, 500, 503):
        response = components["responses"][f"Problem{status}"]
        schema = response["content"]["application/json"]["schema"]
        assert message in schema.get("anyOf", [schema])
        assert not [header for header in response["headers"].values() if header["required"]]
    assert list(components["responses"]["Problem429"]["content"]) == ["application/json"]
    assert list(components["responses"]["Problem422"]["content"]) == ["application/problem+json"]
    assert components["responses"]["Problem405"]["headers"]["Allow"]["required"]


class Rank(IntEnum):
    """An enum of numbers."""

    FIRST = 1
    SECOND = 2


class Part(BaseModel):
    """A model to which a body refers."""

    rank: Rank = Rank.FIRST
    note: str | None = None
    size: int | str | None = None
    parts: "list[Part] | None" = None


class Whole(BaseModel):
    """A body whose schema has everything that generators of clients cannot read."""

    kind: Literal["whole"]
    part: Part | None = None
    near: int = Field(default=1, gt=0, lt=100)
    mixed: Literal["a", 1] | None = None
    flags: dict[Annotated[str, Field(pattern="^x")], int] = {}
    rest: str | None


class Created(BaseModel):
    """An answer, which always has each field."""

    kind: Literal["created"] = "created"
    at: datetime | None = None
    parts: list[int] = []


@pytest.fixture
def odd(client: "DynamoDBClient") -> Any:
    """The document of an app with this body, this answer and optional parameters."""
    router = APIRouter()

    @router.post("/odd")
    def odd(
        body: Whole, since: int | None = None, size: Annotated[int, Query(ge=1)] = 5
    ) -> Created:
        return Created()

    app = create_api("Odd", router, auth=AuthMode.NONE)
    first = json.dumps(app.openapi())
    assert json.dumps(app.openapi()) == first
    return json.loads(first)


def objects(part: Any) -> list[dict[str, Any]]:
    """The objects in a document, at any depth."""
    if isinstance(part, list):
        return [found for deeper in part for found in objects(deeper)]
    if isinstance(part, dict):
        return [part, *objects(list(part.values()))]
    return []


def optional_schemas(part: dict[str, Any]) -> list[Any]:
    """The schemas of the optional fields of a schema, or of an optional parameter."""
    if "in" in part:
        return [] if part["required"] else [part["schema"]]
    properties = part.get("properties", {})
    return [properties[name] for name in properties if name not in part.get("required", [])]


@pytest.mark.parametrize("name", ["document", "odd"])
def test_generators_of_clients_can_read_the_document(
    name: str, request: pytest.FixtureRequest
) -> None:
    """Integers are int64, a const and an enum have a type, and keys have no pattern.

    An optional field is not nullable and has no default.
    """
    document = request.getfixturevalue(name)
    integers = 0
    for part in objects(document):
        assert "patternProperties" not in part
        if part.get("type") == "integer":
            integers += 1
            assert part["format"] == "int64"
            bounds = [part[name] for name in part if name in BOUNDS]
            assert all(isinstance(bound, int) for bound in bounds)
        if "const" in part or isinstance(part.get("enum"), list):
            assert "type" in part or part["enum"] == ["a", 1]
        schemas = optional_schemas(part)
        assert not [schema for schema in schemas if {"type": "null"} in schema.get("anyOf", [])]
        assert not [schema for schema in schemas if "default" in schema and "in" not in part]
    assert integers > 4


def test_required_and_nullable_fields_keep_their_meaning(odd: Any) -> None:
    """Only an optional field loses its null; each field of an answer is required."""
    schemas = odd["components"]["schemas"]
    assert schemas["Whole"]["required"] == ["kind", "rest"]
    assert {"type": "null"} in schemas["Whole"]["properties"]["rest"]["anyOf"]
    assert schemas["Whole"]["properties"]["part"] == {"$ref": "#/components/schemas/Part"}
    sizes = schemas["Part"]["properties"]["size"]["anyOf"]
    assert [size["type"] for size in sizes] == ["integer", "string"]
    assert schemas["Part"]["properties"]["note"]["type"] == "string"
    rank = schemas["Rank"]
    assert (rank["type"], rank["format"], rank["enum"]) == ("integer", "int64", [1, 2])
    assert schemas["Created"]["required"] == ["kind", "at", "parts"]
    assert {"type": "null"} in schemas["Created"]["properties"]["at"]["anyOf"]
    since, size = odd["paths"]["/odd"]["post"]["parameters"]
    assert since["schema"] == {"type": "integer", "format": "int64", "title": "Since"}
    assert size["schema"]["default"] == 5
