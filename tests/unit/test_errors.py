"""The error tree: its drawing, its codes and its states."""

import re

import pytest

from ledger_core import errors
from ledger_core.errors import (
    InsufficientBalanceError,
    InvalidRequestError,
    LedgerError,
    RequestState,
    StoreError,
    UnavailableError,
)


def error_classes() -> dict[str, type[LedgerError]]:
    """The errors of the ledger itself; other tests derive their own."""
    found = list(LedgerError.__subclasses__())
    for cls in found:
        found += cls.__subclasses__()
    return {cls.__name__: cls for cls in found if cls.__module__ == errors.__name__}


def test_tree_in_the_docstring_is_the_tree() -> None:
    """The drawing has exactly the classes of the tree, with their codes and statuses."""
    lines = re.findall(r"[├└]── (\w+) +(\w+|\(at start only\)) +(\d+) ", errors.__doc__ or "")
    drawn = {name: (code, int(status)) for name, code, status in lines}
    assert drawn.pop("ConfigurationError") == ("(at start only)", 500)
    known = {name: (cls.code, cls.status) for name, cls in error_classes().items()}
    del known["ConfigurationError"]
    assert drawn == known


def test_each_error_class_has_its_own_code() -> None:
    """A code stands for exactly one class of error."""
    codes = [cls.code for cls in error_classes().values()]
    assert len(codes) == len(set(codes))


def test_all_errors_are_public() -> None:
    """An app imports all errors from one place."""
    assert {*error_classes(), "LedgerError", "RequestState"} == set(errors.__all__)


def test_state_is_given_when_an_error_is_raised() -> None:
    """An error without a state has the state of its class."""
    assert InvalidRequestError("amount: too large").state is RequestState.VALIDATING
    moved = InvalidRequestError("amount: too large", state=RequestState.CHECKING_BALANCE)
    assert (moved.state, str(moved)) == (RequestState.CHECKING_BALANCE, "amount: too large")
    refused = StoreError("no table", dynamodb_code="X", state=RequestState.CHECKING_NONCE)
    assert (refused.state, refused.dynamodb_code) == (RequestState.CHECKING_NONCE, "X")
    assert InvalidRequestError("amount: too large").state is RequestState.VALIDATING


def test_error_in_another_state_is_a_copy() -> None:
    """The copy has the message, fields, cause and traceback of the error."""
    with pytest.raises(UnavailableError) as raised:
        raise UnavailableError("no answer") from OSError("reset")
    found = raised.value.in_state(RequestState.CHECKING_NONCE)
    assert (str(found), found.state) == ("no answer", RequestState.CHECKING_NONCE)
    assert isinstance(found.__cause__, OSError)
    assert found.__traceback__ is raised.value.__traceback__
    assert raised.value.state is RequestState.PROCESSING
    poor = InsufficientBalanceError(balance=3, required=5).in_state(RequestState.PROCESSING)
    assert (poor.balance, poor.required) == (3, 5)
