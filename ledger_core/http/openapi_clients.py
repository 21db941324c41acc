"""Rewrite an OpenAPI description so that client generators understand it. Its meaning stays.

- A pattern of keys stands under `propertyNames`, because generators ignore `patternProperties`.
- Integers and their bounds are `int64`, because a generator's own integers may have 32 bits.
- Every `const` and `enum` has a type.
- An optional field of a request is neither null nor has it a default: the client leaves it out.
- A field that an answer always has is required, even if it may be null.
"""

from collections.abc import Iterator
from typing import Any

__all__ = ["for_clients"]

NULL = {"type": "null"}
TYPES = {bool: "boolean", int: "integer", str: "string"}
"""The type of the values of a `const` or an `enum`. A bool is an int too, so it comes first."""
BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


def for_clients(api: dict[str, Any]) -> None:
    """Rewrite a description in place. To rewrite it again changes nothing."""
    in_requests = {id(schema) for schema in _schemas_of_requests(api)}
    for schema in list(_objects(api)):
        if isinstance(schema.get("in"), str) and not schema.get("required"):
            schema["schema"] = _without_null(schema["schema"])
        elif schema.get("type") == "object" and id(schema) in in_requests:
            _leave_out_optional_fields(schema)
        elif schema.get("type") == "object":
            _require_present_fields(schema)
    for schema in list(_objects(api)):
        _describe_keys(schema)
        _add_type(schema)


def _objects(part: Any) -> Iterator[dict[str, Any]]:
    """Every object in a part of the description, whether it is a schema or not."""
    if isinstance(part, dict):
        yield part
        for value in part.values():
            yield from _objects(value)
    elif isinstance(part, list):
        for value in part:
            yield from _objects(value)


def _schemas_of_requests(api: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every object that the body of a request refers to."""
    schemas = api["components"]["schemas"]
    seen = set[str]()
    parts = list(_request_bodies(api))
    while parts:
        for found in _objects(parts.pop()):
            yield found
            name = str(found.get("$ref", "")).rpartition("/")[2]
            if name in schemas and name not in seen:
                seen.add(name)
                parts.append(schemas[name])


def _request_bodies(api: dict[str, Any]) -> Iterator[Any]:
    for operations in api["paths"].values():
        for operation in operations.values():
            if "requestBody" in operation:
                yield operation["requestBody"]


def _leave_out_optional_fields(schema: dict[str, Any]) -> None:
    properties = schema.get("properties", {})
    for name in properties.keys() - set(schema.get("required", [])):
        properties[name] = _without_null(properties[name])
        properties[name].pop("default", None)


def _require_present_fields(schema: dict[str, Any]) -> None:
    properties = schema.get("properties", {})
    required = schema.get("required", [])
    present = [name for name, field in properties.items() if _is_present(field)]
    missing = [name for name in present if name not in required]
    if missing:
        schema["required"] = [*required, *missing]
    for name in present:
        properties[name].pop("default", None)


def _is_present(field: dict[str, Any]) -> bool:
    return "default" in field or NULL in _kinds(field)


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    others = [kind for kind in _kinds(schema) if kind != NULL]
    if others == _kinds(schema):
        return schema
    kept = {name: value for name, value in schema.items() if name != "anyOf"}
    return {**others[0], **kept} if len(others) == 1 else {"anyOf": others, **kept}


def _kinds(schema: dict[str, Any]) -> list[Any]:
    return list(schema.get("anyOf", []))


def _describe_keys(schema: dict[str, Any]) -> None:
    if schema.get("type") == "object" and len(schema.get("patternProperties", {})) == 1:
        ((pattern, values),) = schema.pop("patternProperties").items()
        schema |= {"propertyNames": {"pattern": pattern}, "additionalProperties": values}


def _add_type(schema: dict[str, Any]) -> None:
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(values, list):
        types = {_type_of(value) for value in values}
        if len(types) == 1 and None not in types:
            schema.setdefault("type", types.pop())
    if schema.get("type") == "integer":
        schema.setdefault("format", "int64")
        schema |= {name: int(schema[name]) for name in BOUNDS if name in schema}


def _type_of(value: Any) -> str | None:
    return next((name for kind, name in TYPES.items() if isinstance(value, kind)), None)
