"""The OpenAPI document: every answer is in it, as it is given."""

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
    """The document, as it is served."""
    return json.loads(json.dumps(create_app(client).openapi()))


@pytest.fixture
def document(client: "DynamoDBClient", monkeypatch: pytest.MonkeyPatch) -> Any:
    """The Example App's where tokens are asked for."""
    monkeypatch.setenv("LEDGER_AUTH", "jwt")
    return document_of(client)


def test_document_is_committed(client: "DynamoDBClient", monkeypatch: pytest.MonkeyPatch) -> None:
    """The file beside the Example App is its document; `make openapi` writes it anew."""
    monkeypatch.setenv("LEDGER_AUTH", "jwt")
    assert openapi.document_text(create_app(client)) == openapi.PATH.read_text()


def test_document_says_what_the_app_says_of_itself(document: Any) -> None:
    """The app's description, its contact and the meaning of its tags are in its document."""
    assert document["info"] == {"title": "Example App", **INFO}
    assert [tag["name"] for tag in document["tags"]] == ["content", "ledger"]


def test_operations_have_plain_names(document: Any) -> None:
    """A generated client names its functions as we name ours."""
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
    """Every operation of a document."""
    return [operation for path in document["paths"].values() for operation in path.values()]


def described(document: Any) -> list[Any]:
    """Every part of a document that has to say what it is: operations, parameters, headers, schemas, fields."""
    schemas = document["components"]["schemas"].values()
    fields = [field for schema in schemas for field in schema.get("properties", {}).values()]
    parameters = [
        one for operation in operations(document) for one in operation.get("parameters", [])
    ]
    answers = list(document["components"]["responses"].values())
    for operation in operations(document):
        answers += operation["responses"].values()
    headers = [header for answer in answers for header in answer.get("headers", {}).values()]
    return [*operations(document), *parameters, *headers, *schemas, *fields]


def test_everything_is_described(document: Any) -> None:
    """Each operation, parameter, header, schema and field has a description."""
    parts = described(document)
    assert len(parts) > 200
    assert not [part for part in parts if not part.get("description")]


def test_descriptions_are_of_fields_that_exist(document: Any) -> None:
    """The tables describe no field and no parameter that the document lacks."""
    schemas = document["components"]["schemas"]
    fields = {name: set(schema.get("properties", {})) for name, schema in schemas.items()}
    problems = [names for schema, names in fields.items() if re.fullmatch(r"Problem\d+", schema)]
    fields["Problem"] = set.union(*problems)
    for name, descriptions in FIELDS.items():
        assert descriptions.keys() <= fields[name]
    parameters = {
        operation["operationId"]: {one["name"] for one in operation.get("parameters", [])}
        for operation in operations(document)
    }
    for name, descriptions in PARAMETERS.items():
        assert descriptions.keys() <= parameters[name]


def problem(document: Any, status: int) -> Any:
    """The schema of a status's problem, which is what its content is."""
    content = document["components"]["responses"][f"Problem{status}"]["content"]
    assert content["application/problem+json"]["schema"] == {
        "$ref": f"#/components/schemas/Problem{status}"
    }
    return document["components"]["schemas"][f"Problem{status}"]


def test_every_code_is_documented_under_its_status(document: Any) -> None:
    """Each code of a refusal is among the codes of the response that has its status."""
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
    """An operation lists every status that it or API Gateway may answer, an app's own too, and no other."""
    assert sorted(document["paths"][path][method]["responses"]) == statuses.split()


def test_what_is_referred_to_is_there(document: Any) -> None:
    """No reference of the document leads nowhere, and what FastAPI says of errors, which is never answered, is gone."""
    components = document["components"]
    for kind, name in re.findall(r'"#/components/(\w+)/(\w+)"', json.dumps(document)):
        assert name in components[kind]
    assert "HTTPValidationError" not in components["schemas"]


def test_tokens_are_documented_where_they_are_needed(
    document: Any, client: "DynamoDBClient"
) -> None:
    """Every operation but the open ones asks for a bearer token; where nobody is asked who they are, none does."""
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    for path, operations in document["paths"].items():
        assert all(
            ("security" in operation) == (path not in OPEN_PATHS)
            for operation in operations.values()
        )


def test_without_tokens_there_are_none_in_the_document(client: "DynamoDBClient") -> None:
    """With LEDGER_AUTH=none the document speaks of no token, and of no 401."""
    document = document_of(client)
    assert "securitySchemes" not in document["components"]
    assert "401" not in document["paths"]["/ledger/entry"]["post"]["responses"]


def test_metadata_and_times_are_documented_as_they_are(document: Any) -> None:
    """Metadata is strings under keys of a pattern, as a map that clients keep, and times are RFC 3339's."""
    schemas = document["components"]["schemas"]
    metadata = schemas["EntryRequest"]["properties"]["metadata"]
    assert metadata["additionalProperties"] == {"type": "string"}
    assert (metadata["propertyNames"], metadata["maxProperties"]) == (
        {"pattern": r"^[A-Za-z0-9_.:-]{1,64}$"},
        16,
    )
    assert schemas["LedgerEntry"]["properties"]["metadata"]["additionalProperties"] == {
        "type": "string"
    }
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
        schema = problem(document, status)
        assert (required in schema["required"], more in schema["required"]) == (True, False)
        assert {required, more} <= set(schema["properties"])


def test_gateway_s_own_answers_are_documented(document: Any) -> None:
    """What API Gateway says by itself is a message under `application/json`, and no header of ours goes with it."""
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
    """A number that has names."""

    FIRST = 1
    SECOND = 2


class Part(BaseModel):
    """What a body refers to."""

    rank: Rank = Rank.FIRST
    note: str | None = None
    size: int | str | None = None
    more: "list[Part] | None" = None


class Whole(BaseModel):
    """A body whose schema has all that generators of clients stumble over."""

    kind: Literal["whole"]
    part: Part | None = None
    near: int = Field(default=1, gt=0, lt=100)
    mixed: Literal["a", 1] | None = None
    flags: dict[Annotated[str, Field(pattern="^x")], int] = {}
    rest: str | None


class Told(BaseModel):
    """An answer, which has every field always."""

    kind: Literal["told"] = "told"
    at: datetime | None = None
    parts: list[int] = []


@pytest.fixture
def odd(client: "DynamoDBClient") -> Any:
    """The document of an app that has such a body, such an answer and such parameters."""
    router = APIRouter()

    @router.post("/odd")
    def odd(body: Whole, since: int | None = None, size: Annotated[int, Query(ge=1)] = 5) -> Told:
        return Told()

    app = create_api("Odd", router, auth=AuthMode.NONE)
    first = json.dumps(app.openapi())
    assert json.dumps(app.openapi()) == first
    return json.loads(first)


def objects(part: Any) -> list[dict[str, Any]]:
    """Every object in a document."""
    parts = (
        list(part.values()) if isinstance(part, dict) else part if isinstance(part, list) else []
    )
    return ([part] if isinstance(part, dict) else []) + [
        one for deeper in parts for one in objects(deeper)
    ]


def optional(one: dict[str, Any]) -> list[Any]:
    """The schemas of what may be left out of an object, or as a parameter."""
    if "in" in one:
        return [] if one["required"] else [one["schema"]]
    properties = one.get("properties", {})
    return [properties[name] for name in properties if name not in one.get("required", [])]


@pytest.mark.parametrize("name", ["document", "odd"])
def test_generators_of_clients_stumble_over_nothing(
    name: str, request: pytest.FixtureRequest
) -> None:
    """In the whole document: integers are int64, a const and an enum have a type, no key has a pattern of its own, and
    nothing that may be left out is null or a default besides."""
    document = request.getfixturevalue(name)
    integers = 0
    for one in objects(document):
        assert "patternProperties" not in one
        if one.get("type") == "integer":
            integers += 1
            assert one["format"] == "int64"
            bounds = [one[name] for name in one if name in BOUNDS]
            assert all(isinstance(bound, int) for bound in bounds)
        if "const" in one or isinstance(one.get("enum"), list):
            assert "type" in one or one["enum"] == ["a", 1]
        left_out = optional(one)
        assert not [schema for schema in left_out if {"type": "null"} in schema.get("anyOf", [])]
        assert not [schema for schema in left_out if "default" in schema and "in" not in one]
    assert integers > 4


def test_what_was_meant_is_still_said(odd: Any) -> None:
    """Null is taken from what may be left out and from nothing else; what an answer has is required."""
    schemas = odd["components"]["schemas"]
    assert schemas["Whole"]["required"] == ["kind", "rest"]
    assert {"type": "null"} in schemas["Whole"]["properties"]["rest"]["anyOf"]
    assert schemas["Whole"]["properties"]["part"] == {"$ref": "#/components/schemas/Part"}
    assert [kind["type"] for kind in schemas["Part"]["properties"]["size"]["anyOf"]] == [
        "integer",
        "string",
    ]
    assert schemas["Part"]["properties"]["note"]["type"] == "string"
    assert schemas["Rank"] == {
        **schemas["Rank"],
        "type": "integer",
        "format": "int64",
        "enum": [1, 2],
    }
    assert schemas["Told"]["required"] == ["kind", "at", "parts"]
    assert {"type": "null"} in schemas["Told"]["properties"]["at"]["anyOf"]
    since, size = odd["paths"]["/odd"]["post"]["parameters"]
    assert since["schema"] == {"type": "integer", "format": "int64", "title": "Since"}
    assert size["schema"]["default"] == 5
