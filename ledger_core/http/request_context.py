"""What the ledger knows of a request: a single typed object in the ASGI scope's state.

Only this module touches that state. An app asks `caller_of` who is calling.
"""

from dataclasses import dataclass
from uuid import uuid4

from fastapi import Request
from starlette.types import Scope

from ledger_core.errors import RequestState, UnauthorizedError
from ledger_core.http.authorization import Caller

__all__ = ["RequestContext", "caller_of", "context_of"]

KEY = "ledger"
"""The key of the context in the scope's state; every other key there is an app's own."""


@dataclass(kw_only=True, slots=True)
class RequestContext:
    """A request, from its arrival to its log line."""

    request_id: str
    """API Gateway's id of the request, or else a new UUID."""
    caller: Caller | None = None
    """None on an open path that is called without a token."""
    owner_id: str | None = None
    """The owner whose ledger the request is about, once it is known."""
    operation: str | None = None
    """The operation that the request posts, once it is known."""
    nonce_in_header: bool = False
    """True if the nonce of a duplicate came in the `Idempotency-Key` header."""
    code: str = "answered"
    """How the request ended: `answered`, `accepted`, or the code of its problem."""
    failed_in: RequestState | None = None
    """The state in which the request failed, None as long as it did not."""
    deadline: float | None = None
    """The end of the request's time, by the event loop's clock; None until its first call."""

    def fail(self, code: str, state: RequestState) -> None:
        """Record that the request failed, for the log line and its metrics."""
        self.code = code
        self.failed_in = state


def context_of(scope: Scope) -> RequestContext:
    """The context of a request, made when it is first asked for."""
    state = scope.setdefault("state", {})
    context: RequestContext | None = state.get(KEY)
    if context is None:
        context = RequestContext(request_id=_request_id(scope))
        state[KEY] = context
    return context


def caller_of(request: Request) -> Caller:
    """The caller of a request: an owner by `subject`, an application by `scopes`.

    An endpoint of an app takes it as a dependency: `caller: Annotated[Caller, Depends(caller_of)]`.

    Raises:
        UnauthorizedError: the path is open and the request has no valid token.
    """
    caller = context_of(request.scope).caller
    if caller is None:
        raise UnauthorizedError("token: is missing or not valid; send a bearer token")
    return caller


def _request_id(scope: Scope) -> str:
    event = scope.get("aws.event") or {}
    known = (event.get("requestContext") or {}).get("requestId")
    return str(known or uuid4())
