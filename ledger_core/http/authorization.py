"""Who may do what, by the claims of a token that the authorizer has checked. Deny by default."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ledger_core.errors import ForbiddenError, UnauthorizedError
from ledger_core.fields import NONCE_PREFIX_SELF
from ledger_core.models import OperationRequest
from ledger_core.operations import OperationConfig

__all__ = ["SCOPE_READ", "SCOPE_WRITE", "Caller"]

SCOPE_READ = "ledger/read"
"""The scope that reads any owner's account."""
SCOPE_WRITE = "ledger/write"
"""The scope that posts any operation for any owner."""
CLIENT_CLAIMS = ("client_id", "azp", "cid", "appid")
"""Claims that name the client of a token: RFC 9068 and Cognito, OpenID Connect, Okta, Entra ID."""
CLIENT_ID_LENGTH_MAX = 128
FORBIDDEN = "token: does not allow this; ask for the scope, or act for yourself"


@dataclass(frozen=True)
class Caller:
    """A known caller: an owner by `subject` (None: not an owner), an application by `scopes`.

    `client_id` allows nothing: it names the application in logs.
    """

    subject: str | None
    scopes: frozenset[str]
    client_id: str | None = None

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> Self:
        """The caller of an event, by an HTTP API's JWT or a REST API's Cognito authorizer.

        Raises:
            UnauthorizedError: the event has no claims that name an owner or a scope.
        """
        authorizer = _mapping(_mapping(event.get("requestContext")).get("authorizer"))
        claims = _mapping((_mapping(authorizer.get("jwt")) or authorizer).get("claims"))
        if claims.get("token_use") == "id":  # Cognito's mark; an ID token grants no access
            raise UnauthorizedError("token: is an ID token; send an access token")
        subject = claims.get("sub")
        subject = subject if isinstance(subject, str) and subject else None
        # Okta and Entra ID name the claim `scp`.
        scopes = _scopes(claims.get("scope")) | _scopes(claims.get("scp"))
        if subject is None and not scopes:
            raise UnauthorizedError("token: is missing or not valid; send a bearer token")
        values = [claims.get(name) for name in CLIENT_CLAIMS]
        clients = [value for value in values if isinstance(value, str) and value]
        return cls(subject, scopes, clients[0][:CLIENT_ID_LENGTH_MAX] if clients else None)

    @classmethod
    def unrestricted(cls) -> Self:
        """The caller of every request under LEDGER_AUTH=none."""
        return cls(subject=None, scopes=frozenset({SCOPE_READ, SCOPE_WRITE}))

    def may_read(self, owner_id: str) -> bool:
        """True if the caller is the owner, or may read any account."""
        return self.subject == owner_id or SCOPE_READ in self.scopes

    def check_may_read(self, owner_id: str) -> None:
        """Raise ForbiddenError unless the caller may read the owner's account."""
        if not self.may_read(owner_id):
            raise ForbiddenError(FORBIDDEN)

    def may_act_for(self, owner_id: str) -> bool:
        """True if the caller is the owner, or an app that acts for it and does not only read."""
        return self.subject == owner_id or SCOPE_WRITE in self.scopes

    def check_may_post(self, owner_id: str, config: OperationConfig) -> None:
        """Raise ForbiddenError unless the caller may post the operation for the owner."""
        is_own = config.self_service and self.subject == owner_id
        if SCOPE_WRITE not in self.scopes and not is_own:
            raise ForbiddenError(FORBIDDEN)

    def posted(self, operation: OperationRequest) -> OperationRequest:
        """The operation as this caller posts it. An owner's own nonce gets a prefix of its own."""
        if SCOPE_WRITE in self.scopes:
            return operation
        return operation.model_copy(update={"nonce": f"{NONCE_PREFIX_SELF}{operation.nonce}"})


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _scopes(claim: Any) -> frozenset[str]:
    """The scopes in a claim, which is a text or a list of texts; anything else grants nothing."""
    if isinstance(claim, str):
        # An HTTP API hands a list on as "[a b]". A comma is part of a name (RFC 6749, 3.3).
        is_list = claim.startswith("[") and claim.endswith("]")
        names = claim[1:-1] if is_list else claim
        return frozenset(names.split(" ")) - {""}
    if isinstance(claim, list) and all(isinstance(text, str) for text in claim):
        return frozenset(scope for text in claim for scope in text.split(" ")) - {""}
    return frozenset()
