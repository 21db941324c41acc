"""Validates the arguments of a call against AWS's description of the API, which botocore holds."""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import botocore.session
from botocore.model import ListShape, MapShape, Shape, StructureShape

NUMBERS: dict[str, Any] = {
    "integer": int,
    "long": int,
    "float": (int, float),
    "double": (int, float),
}


def objections(service: str, operation: str, arguments: dict[str, Any]) -> list[str]:
    """The problems of the arguments: a wrong type, length, range, form or choice."""
    shape = _service(service).operation_model(operation).input_shape
    return list(_against(shape, arguments, operation))


@cache
def _service(name: str) -> Any:
    return botocore.session.get_session().get_service_model(name)


def _against(shape: Shape, value: Any, place: str) -> Iterator[str]:
    if isinstance(shape, StructureShape):
        if not isinstance(value, dict):
            yield f"{place} is not a structure"
            return
        yield from (f"{place} lacks {name}" for name in shape.required_members if name not in value)
        yield from (f"{place} does not know {name}" for name in value if name not in shape.members)
        for name, part in value.items():
            if name in shape.members:
                yield from _against(shape.members[name], part, f"{place}.{name}")
    elif isinstance(shape, ListShape):
        yield from _sized(shape, len(value), place)
        for number, part in enumerate(value):
            yield from _against(shape.member, part, f"{place}[{number}]")
    elif isinstance(shape, MapShape):
        yield from _sized(shape, len(value), place)
        for name, part in value.items():
            yield from _against(shape.key, name, f"{place} key")
            yield from _against(shape.value, part, f"{place}.{name}")
    elif shape.type_name in NUMBERS:
        if isinstance(value, bool) or not isinstance(value, NUMBERS[shape.type_name]):
            yield f"{place} is not a number"
            return
        yield from _sized(shape, value, place)
    elif shape.type_name == "boolean":
        if not isinstance(value, bool):
            yield f"{place} is neither true nor false"
    else:
        yield from _text(shape, value, place)


def _sized(shape: Shape, size: float, place: str) -> Iterator[str]:
    minimum = float(shape.metadata.get("min", size))
    maximum = float(shape.metadata.get("max", size))
    if not minimum <= size <= maximum:
        yield f"{place} is {size}, not {minimum:g} to {maximum:g}"


def _text(shape: Shape, value: Any, place: str) -> Iterator[str]:
    if not isinstance(value, str):
        yield f"{place} is not text"
        return
    yield from _sized(shape, len(value), place)
    if "enum" in shape.metadata and value not in shape.metadata["enum"]:
        yield f"{place} is {value}, not one of {shape.metadata['enum']}"
    pattern = _python(shape.metadata.get("pattern", ".*"))
    if not re.fullmatch(pattern, value, re.DOTALL):
        yield f"{place} is {value}, which does not match {pattern}"


def _python(pattern: str) -> str:
    """A pattern of Java in Python's syntax."""
    classes = {
        r"\p{IsLetter}": "^\\W\\d_",
        r"\p{ASCII}": r"\x00-\x7f",
        r"\p{L}": r"\w",
        r"\p{Z}": r"\s",
        r"\p{N}": r"\d",
    }
    for java, python in classes.items():
        pattern = pattern.replace(java, python)
    return pattern
