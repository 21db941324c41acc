"""Makes an OpenAPI document one that generators of clients read as it is meant. It means what it meant before.

- A pattern of keys is under `propertyNames`: elsewhere they take it for no key at all, and what a map holds is lost.
- Integers are `int64`, for theirs may have 32 bits, and so are their bounds.
- Every `const` and `enum` has a type.
- What a request may leave out is not null or a default besides: it is left out.
- What an answer always has is required, be it null.
"""

from collections.abc import Iterator
from typing import Any

__all__ = ["for_clients"]

NULL = {"type": "null"}
TYPES = {bool: "boolean", int: "integer", str: "string"}
"""Of the values of a `const` or an `enum`, a bool being an int too."""
BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


def for_clients(document: dict[str, Any]) -> None:
    """Change a document in place; a second time changes nothing."""
    asked_for = {id(one) for one in _asked_for(document)}
    for one in list(_objects(document)):
        if isinstance(one.get("in"), str) and not one.get("required"):
            one["schema"] = _without_null(one["schema"])
        elif one.get("type") == "object" and id(one) in asked_for:
            _may_be_left_out(one)
        elif one.get("type") == "object":
            _is_always_there(one)
    for one in list(_objects(document)):
        _say_what_a_map_holds(one)
        _say_the_type(one)


def _objects(part: Any) -> Iterator[dict[str, Any]]:
    """Every object in a part of the document, be it a schema or not."""
    if isinstance(part, dict):
        yield part
    if isinstance(part, dict | list):
        for one in part.values() if isinstance(part, dict) else part:
            yield from _objects(one)


def _asked_for(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every object that a body of a request refers to."""
    schemas, seen = document["components"]["schemas"], set[str]()
    parts = [one["requestBody"] for operations in document["paths"].values() for one in _with_body(operations)]
    while parts:
        for one in _objects(parts.pop()):
            yield one
            name = str(one.get("$ref", "")).rpartition("/")[2]
            if name in schemas and name not in seen:
                seen.add(name)
                parts.append(schemas[name])


def _with_body(operations: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for operation in operations.values() if "requestBody" in operation]


def _may_be_left_out(schema: dict[str, Any]) -> None:
    properties = schema.get("properties", {})
    for name in properties.keys() - set(schema.get("required", [])):
        properties[name] = _without_null(properties[name])
        properties[name].pop("default", None)


def _is_always_there(schema: dict[str, Any]) -> None:
    required = schema.get("required", [])
    there = [name for name, one in schema.get("properties", {}).items() if "default" in one or NULL in _kinds(one)]
    if left := [name for name in there if name not in required]:
        schema["required"] = [*required, *left]
    for name in there:
        schema["properties"][name].pop("default", None)


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    others = [kind for kind in _kinds(schema) if kind != NULL]
    if others == _kinds(schema):
        return schema
    kept = {name: value for name, value in schema.items() if name != "anyOf"}
    return {**others[0], **kept} if len(others) == 1 else {"anyOf": others, **kept}


def _kinds(schema: dict[str, Any]) -> list[Any]:
    return list(schema.get("anyOf", []))


def _say_what_a_map_holds(schema: dict[str, Any]) -> None:
    if schema.get("type") == "object" and len(schema.get("patternProperties", {})) == 1:
        ((pattern, values),) = schema.pop("patternProperties").items()
        schema |= {"propertyNames": {"pattern": pattern}, "additionalProperties": values}


def _say_the_type(schema: dict[str, Any]) -> None:
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(values, list):
        types = {next((name for kind, name in TYPES.items() if isinstance(value, kind)), None) for value in values}
        if len(types) == 1 and None not in types:
            schema.setdefault("type", types.pop())
    if schema.get("type") == "integer":
        schema.setdefault("format", "int64")
        schema |= {name: int(schema[name]) for name in BOUNDS if name in schema}
