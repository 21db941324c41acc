"""DynamoDB's expressions, as far as a ledger may use them: conditions joined by AND; SET and ADD.

Any other expression is refused, so that no mistake passes unseen. tests/simulator/test_model.py
compares the results with those of DynamoDB Local.
"""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

__all__ = ["Item", "holds", "updated"]

Item = Mapping[str, Mapping[str, Any]]
"""Attributes, each as DynamoDB types it: `{"N": "5"}`."""

TOKEN = re.compile(r"\s*([:#]?\w+|<>|<=|>=|[=<>(),+-])")
OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def holds(condition: str | None, item: Item, values: Item, names: Mapping[str, str]) -> bool:
    """Whether a condition holds of an item; of one that is not there, `item` is empty."""
    if condition is None:
        return True
    reader, met = _Reader(condition, item, values, names), True
    while True:
        met = reader.condition() and met
        if not reader.take("AND"):
            reader.end()
            return met


def updated(expression: str, item: Item, values: Item, names: Mapping[str, str]) -> dict[str, Any]:
    """The item after an update; every operand is what it was before."""
    reader, after = _Reader(expression, item, values, names), dict(item)
    while not reader.at_end():
        add = not reader.take("SET")
        if add:
            reader.expect("ADD")
        while True:
            name = reader.name()
            if add:
                after[name] = _number(_of(item.get(name, {"N": "0"})) + _of(reader.value()))
            else:
                reader.expect("=")
                after[name] = reader.operand()
            if not reader.take(","):
                break
    return after


@lru_cache
def _tokens(expression: str) -> Sequence[str]:
    tokens = TOKEN.findall(expression)
    if "".join(tokens) != re.sub(r"\s", "", expression):
        raise ValueError(f"expression: {expression}")
    return tokens


class _Reader:
    """Goes through an expression from left to right."""

    def __init__(self, expression: str, item: Item, values: Item, names: Mapping[str, str]) -> None:
        self._expression, self._tokens, self._next = expression, _tokens(expression), 0
        self._item, self._values, self._names = item, values, names

    def condition(self) -> bool:
        if (function := self._peek()) in {"attribute_not_exists", "attribute_exists"}:
            self._next += 1
            self.expect("(")
            exists = self.name() in self._item
            self.expect(")")
            return exists == (function == "attribute_exists")
        left = self._item.get(self.name())
        if self.take("BETWEEN"):
            low = self.value()
            self.expect("AND")
            return _compared(">=", left, low) & _compared("<=", left, self.value())
        symbol = self._peek()
        if symbol not in OPERATORS:
            raise self._unknown()
        self._next += 1
        return _compared(symbol, left, self.value())

    def operand(self) -> Mapping[str, Any]:
        left = self._term()
        if self.take("+"):
            return _number(_of(left) + _of(self._term()))
        if self.take("-"):
            return _number(_of(left) - _of(self._term()))
        return left

    def _term(self) -> Mapping[str, Any]:
        if self.take("if_not_exists"):
            self.expect("(")
            known = self._item.get(self.name())
            self.expect(",")
            otherwise = self.value()
            self.expect(")")
            return otherwise if known is None else known
        return self.value() if self._peek().startswith(":") else self._item[self.name()]

    def name(self) -> str:
        token = self._peek()
        if not re.match(r"#|[a-z]", token):
            raise self._unknown()
        self._next += 1
        return self._names[token] if token.startswith("#") else token

    def value(self) -> Mapping[str, Any]:
        token = self._peek()
        if not token.startswith(":"):
            raise self._unknown()
        self._next += 1
        return self._values[token]

    def take(self, token: str) -> bool:
        taken = self._peek() == token
        self._next += taken
        return taken

    def expect(self, token: str) -> None:
        if not self.take(token):
            raise self._unknown()

    def at_end(self) -> bool:
        return self._next == len(self._tokens)

    def end(self) -> None:
        if not self.at_end():
            raise self._unknown()

    def _peek(self) -> str:
        return "" if self.at_end() else self._tokens[self._next]

    def _unknown(self) -> ValueError:
        return ValueError(f"expression: {self._expression}, at {self._peek()!r}")


def _compared(symbol: str, left: Item | None, right: Mapping[str, Any]) -> bool:
    """Compare two values. Values of different types, and missing values, are only unequal."""
    if left is None or left.keys() != right.keys():
        return symbol == "<>"
    return OPERATORS[symbol](_of(left), _of(right))


def _of(value: Mapping[str, Any]) -> Any:
    ((kind, plain),) = value.items()
    return int(plain) if kind == "N" else plain


def _number(value: int) -> dict[str, str]:
    return {"N": str(value)}
