"""Complete the OpenAPI description that FastAPI makes: refusals, tokens, meanings of fields.

The description is made at the first request for it, never when the app is imported.
"""

from collections.abc import Container, Iterator, Mapping
from copy import deepcopy
from typing import Any

from fastapi.routing import APIRoute

from ledger_core.errors import DuplicateNonceError, LedgerError, RequestState
from ledger_core.http.field_descriptions import FIELDS, PARAMETERS, Described
from ledger_core.http.field_descriptions import HEADERS as HEADER_DESCRIPTIONS
from ledger_core.http.openapi_clients import for_clients
from ledger_core.http.problems import CODE, HEADERS, INTERNAL, PROBLEM_MEDIA_TYPE

__all__ = ["ERRORS", "complete", "operation_id"]


def _derived(kind: type[LedgerError]) -> Iterator[type[LedgerError]]:
    for cls in kind.__subclasses__():
        yield cls
        yield from _derived(cls)


ERRORS = [cls for cls in _derived(LedgerError) if cls.__module__ == LedgerError.__module__]
"""The ledger's errors, whose codes are described. An app describes its own errors at its routes."""

DESCRIPTIONS = {
    401: "There is no valid token.",
    402: "The balance would fall below zero. Nothing is written, and the nonce is not spent.",
    403: "The token does not allow this.",
    404: "There is no such route, or no key to sign receipts with.",
    405: "The route does not take this method.",
    409: "The nonce was used. `entry` is the original, `replay` is true for the same request.",
    413: "The body is too large.",
    415: "The body is declared to be something other than JSON, or is compressed.",
    422: "A field, a limit or a rule is broken, the `Idempotency-Key` was used by a different "
    "request, or the ledger is too long to be verified over HTTP.",
    429: "Too many requests for API Gateway. Send the same request later, under the same nonce.",
    500: "A bug, a missing table or permission. Give the operator the `request_id`.",
    501: "A newer version of the ledger wrote this entry or account. Nothing is written.",
    503: "Not done in time, or perhaps done. Send the same request again, under the same nonce.",
}
ENDS = {RequestState.COMPLETED, RequestState.FAILED}
"""States in which no request fails."""
PROBLEM = {
    "title": {"type": "string"},
    "status": {"type": "integer"},
    "code": {"type": "string"},
    "state": {"$ref": "#/components/schemas/ProblemState"},
    "detail": {"type": "string"},
    "request_id": {"type": "string"},
}
STATE = {
    "title": "ProblemState",
    "description": "In which state a request failed.",
    "type": "string",
    "enum": [state for state in RequestState if state not in ENDS],
}
MESSAGE = {
    "title": "GatewayMessage",
    "description": "An answer of API Gateway itself: it did not ask the app, or got no answer.",
    "type": "object",
    "required": ["message"],
    "properties": {"message": {"type": "string"}},
}
GATEWAY = frozenset({401, 403, 413, 429, 500, 503})
"""Statuses that API Gateway answers with itself too, without a problem and without our headers."""
GATEWAY_ALONE = frozenset({429})
ORIGINAL = {"entry": {"$ref": "#/components/schemas/LedgerEntry"}, "replay": {"type": "boolean"}}
FIELD_ERROR = {
    "title": "FieldError",
    "description": "A field of the request that is wrong.",
    "type": "object",
    "required": ["field", "message"],
    "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
}
EXTENSIONS: dict[int, dict[str, Any]] = {
    402: {
        "required": ["required"],
        "properties": {"balance": {"type": "integer"}, "required": {"type": "integer"}},
    },
    409: {"required": ["replay"], "properties": ORIGINAL},
    422: {
        "properties": {
            "errors": {"type": "array", "items": {"$ref": "#/components/schemas/FieldError"}},
            **ORIGINAL,
        }
    },
}
"""Members of the problems of a status. Only callers who may read the account get `balance` and
`entry`."""
TOKEN = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "JWT",
    "description": "A token of the issuer that the stack trusts. Its `sub` is the owner. Its "
    "scopes are `ledger/read` (any owner's ledger) and `ledger/write` (any operation).",
}
TAGS = {"ledger": "Post operations for owners; read and verify their ledgers."}
"""The tags of the ledger's own routes."""


def operation_id(route: APIRoute) -> str:
    """The operationId of a route: the name of its function in camel case, as `postEntry`."""
    first, *others = route.name.split("_")
    return first + "".join(map(str.capitalize, others))


def complete(
    api: dict[str, Any],
    *,
    tokens: bool,
    open_paths: Container[str],
    info: Mapping[str, Any],
    tags: Mapping[str, str],
) -> dict[str, Any]:
    """The description with refusals and tokens of all operations, and with meanings of fields.

    Args:
        api: the description that FastAPI made of the routes; it is changed in place.
        tokens: whether every path needs a token, except `open_paths`.
        open_paths: paths that need no token.
        info: fields of the description's `info`, besides the title.
        tags: the meanings of the app's own tags, by name.
    """
    api["info"] |= info
    described = sorted({**TAGS, **tags}.items())
    api["tags"] = [{"name": name, "description": meaning} for name, meaning in described]
    components = api.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for validation_error in ("HTTPValidationError", "ValidationError"):
        schemas.pop(validation_error, None)
    for status in DESCRIPTIONS:
        if status not in GATEWAY_ALONE:
            schemas[f"Problem{status}"] = deepcopy(_problem(status))
    for schema in (STATE, MESSAGE, FIELD_ERROR):
        schemas[schema["title"]] = deepcopy(schema)
    components["responses"] = {f"Problem{status}": _response(status) for status in DESCRIPTIONS}
    if tokens:
        components["securitySchemes"] = {"token": TOKEN}
    for path, operations in api["paths"].items():
        needs_token = tokens and path not in open_paths
        for operation in operations.values():
            if needs_token:
                operation["security"] = [{"token": []}]
            responses = operation["responses"]
            responses.pop("422", None)  # FastAPI's own description, which is not our answer
            for status in _statuses(path, operation, needs_token=needs_token):
                reference = {"$ref": f"#/components/responses/Problem{status}"}
                responses.setdefault(str(status), reference)
            for response in responses.values():
                if "$ref" not in response:
                    headers = response.setdefault("headers", {})
                    headers["X-Request-Id"] = _header("x-request-id", required=True)
            operation["responses"] = dict(sorted(responses.items()))
            for parameter in operation.get("parameters", []):
                meanings = PARAMETERS.get(operation["operationId"], {})
                _describe(parameter, parameter["schema"], meanings.get(parameter["name"]))
    _describe_fields(schemas)
    components["schemas"] = dict(sorted(schemas.items()))
    for_clients(api)
    return api


def _statuses(path: str, operation: dict[str, Any], *, needs_token: bool) -> Iterator[int]:
    if needs_token:
        yield from (401, 403)
    if "{" in path:  # an odd value of a parameter makes it another path
        yield from (404, 405)
    if "requestBody" in operation:
        yield from (402, 409, 413, 415)
    if "requestBody" in operation or "parameters" in operation:
        yield 403
    if "requestBody" in operation or "{" in path:  # such an operation reads the tables
        yield 501
    yield from (422, 429, 500, 503)  # 422 for a parameter that the route does not have


def _problem(status: int) -> dict[str, Any]:
    extension = EXTENSIONS.get(status, {})
    only: dict[str, Any] = {"status": {"const": status}, "code": {"enum": _codes(status)}}
    return {
        "title": f"Problem{status}",
        "description": DESCRIPTIONS[status],
        "type": "object",
        "required": [*PROBLEM, *extension.get("required", [])],
        "properties": {**PROBLEM, **only, **extension.get("properties", {})},
    }


def _codes(status: int) -> list[str]:
    """The codes of the problems that have a status."""
    if status == 500:
        return [INTERNAL]
    also = {DuplicateNonceError} if status == 422 else set()
    codes = [error.code for error in ERRORS if error.status == status or error in also]
    if status in CODE and CODE[status] not in codes:
        codes.append(CODE[status])
    return codes


def _response(status: int) -> dict[str, Any]:
    """The answer with a status. Some clients read the first content only: it allows both bodies."""
    problem = {"$ref": f"#/components/schemas/Problem{status}"}
    message = {"$ref": "#/components/schemas/GatewayMessage"}
    content: dict[str, Any] = {PROBLEM_MEDIA_TYPE: {"schema": problem}}
    if status in GATEWAY_ALONE:
        content = {"application/json": {"schema": message}}
    elif status in GATEWAY:
        content = {"application/json": {"schema": {"anyOf": [problem, message]}}, **content}
    headers = [*HEADERS.get(status, {}), "x-request-id"]
    if status == 405:
        headers.insert(0, "allow")
    required = status not in GATEWAY
    return {
        "description": DESCRIPTIONS[status],
        "headers": {name.title(): _header(name, required=required) for name in headers},
        "content": content,
    }


def _header(name: str, *, required: bool) -> dict[str, Any]:
    return {
        "description": HEADER_DESCRIPTIONS[name],
        "required": required,
        "schema": {"type": "string"},
    }


def _describe_fields(schemas: Mapping[str, dict[str, Any]]) -> None:
    problems = {f"Problem{status}": "Problem" for status in DESCRIPTIONS}
    for name, schema in schemas.items():
        meanings = FIELDS.get(problems.get(name, name), {})
        for field, content in schema.get("properties", {}).items():
            _describe(content, content, meanings.get(field))


def _describe(place: dict[str, Any], schema: dict[str, Any], meaning: Described | None) -> None:
    """Add the meaning of a field or parameter, and an example to its schema."""
    if meaning:
        place["description"] = meaning.description
        if meaning.example is not None:
            schema["examples"] = [meaning.example]
