"""Who may do what: a table of callers and deeds."""

from typing import Any

import pytest

from ledger_core import ForbiddenError, OperationConfig, UnauthorizedError
from ledger_core.access import Caller

SPENDING = OperationConfig(amount=-1, self_service=True)
GRANTING = OperationConfig(amount=1)

OWNER = {"sub": "ada"}
READER = {"sub": "support", "scope": "openid ledger/read"}
WRITER = {"sub": "shop", "scope": "ledger/write"}


@pytest.mark.parametrize(
    ("claims", "read_ada", "read_bob", "spend_ada", "grant_ada", "spend_bob"),
    [
        (OWNER,                                 True,  False, True,  False, False),
        (READER,                                True,  True,  False, False, False),
        (WRITER,                                False, False, True,  True,  True),
        ({"scope": "ledger/read ledger/write"}, True,  True,  True,  True,  True),
        ({"scope": ["ledger/read"]},            True,  True,  False, False, False),
        ({"scope": "[ledger/read openid]"},     True,  True,  False, False, False),
        ({"scope": "ledger/readers"},           False, False, False, False, False),
        ({"sub": "eve", "username": "ada", "cognito:username": "ada"}, False, False, False, False, False),
    ],
)  # fmt: skip
def test_deeds(
    claims: dict[str, Any], read_ada: bool, read_bob: bool, spend_ada: bool, grant_ada: bool, spend_bob: bool
) -> None:
    """An owner reads and spends its own; a scope opens all ledgers for reading or for posting; all else is denied."""
    caller = Caller.from_event({"requestContext": {"authorizer": {"jwt": {"claims": claims}}}})

    def may(check: Any, *arguments: Any) -> bool:
        try:
            check(*arguments)
        except ForbiddenError:
            return False
        return True

    assert may(caller.check_may_read, "ada") == read_ada
    assert may(caller.check_may_read, "bob") == read_bob
    assert may(caller.check_may_post, "ada", SPENDING) == spend_ada
    assert may(caller.check_may_post, "ada", GRANTING) == grant_ada
    assert may(caller.check_may_post, "bob", SPENDING) == spend_bob


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"requestContext": None},
        {"requestContext": {"authorizer": None}},
        {"requestContext": {"authorizer": "text"}},
        {"requestContext": {"authorizer": {"claims": "text"}}},
        {"requestContext": {"authorizer": {"jwt": {"claims": {}}}}},
        {"requestContext": {"authorizer": {"jwt": {"claims": {"email": "ada@example.com"}}}}},
        {"headers": {"authorization": "Bearer unchecked"}},
    ],
)
def test_nobody_is_known_without_checked_claims(event: dict[str, Any]) -> None:
    """Only what an authorizer has put into the event counts; a header of the caller's is nothing."""
    with pytest.raises(UnauthorizedError):
        Caller.from_event(event)
