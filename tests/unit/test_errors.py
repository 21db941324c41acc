"""The error tree: drawn completely, answered completely."""

import re

from ledger_core import errors
from ledger_core.http.problems import STATUS


def error_classes() -> dict[str, type[errors.LedgerError]]:
    return {cls.__name__: cls for cls in errors.LedgerError.__subclasses__()}


def test_tree_in_the_docstring_is_the_tree() -> None:
    """The drawing names every class with its code, and no other."""
    drawn = dict(re.findall(r"[├└]── (\w+) +(\w+|\(at start only\))", errors.__doc__ or ""))
    assert drawn.pop("ConfigurationError") == "(at start only)"
    assert drawn == {name: cls.code for name, cls in error_classes().items() if name != "ConfigurationError"}


def test_every_code_has_a_status() -> None:
    """No error of a request is without its HTTP status, and each code is one class's."""
    codes = [cls.code for cls in error_classes().values() if cls is not errors.ConfigurationError]
    assert sorted(codes) == sorted(STATUS)


def test_all_errors_are_public() -> None:
    """An app imports all errors from one place."""
    assert {*error_classes(), "LedgerError", "RequestState"} == set(errors.__all__)
