"""Who may do what, by the claims of a token that the API's authorizer has checked. Deny by default."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ledger_core.errors import ForbiddenError, UnauthorizedError
from ledger_core.fields import NONCE_PREFIX_SELF
from ledger_core.models import OperationRequest
from ledger_core.operations import OperationConfig

__all__ = ["SCOPE_READ", "SCOPE_WRITE", "Caller"]

SCOPE_READ = "ledger/read"
"""Reads any owner."""
SCOPE_WRITE = "ledger/write"
"""Posts any operation for any owner."""


CLIENT_CLAIMS = ("client_id", "azp", "cid", "appid")
"""Where issuers say which client a token was given to: RFC 9068 and Cognito, OpenID Connect, Okta, Entra ID."""
CLIENT_ID_LENGTH_MAX = 128


@dataclass(frozen=True)
class Caller:
    """Somebody known: an owner by `subject` (None: not an owner), an application by `scopes`.

    `client_id` allows nothing; it is what logs know an application by.
    """

    subject: str | None
    scopes: frozenset[str]
    client_id: str | None = None

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> Self:
        """The caller of an API Gateway event (HTTP API's JWT authorizer, or REST API's Cognito authorizer).

        Raises:
            UnauthorizedError: no authorizer has vouched for anybody.
        """
        authorizer = _mapping(_mapping(event.get("requestContext")).get("authorizer"))
        claims = _mapping((_mapping(authorizer.get("jwt")) or authorizer).get("claims"))
        if claims.get("token_use") == "id":  # Cognito's mark of what tells an app who logged in, and allows nothing
            raise UnauthorizedError("An access token is needed, not an ID token.")
        subject = claims.get("sub")
        subject = subject if isinstance(subject, str) and subject else None
        scopes = _scopes(claims.get("scope")) | _scopes(claims.get("scp"))  # `scp` is Okta's and Entra ID's
        if subject is None and not scopes:
            raise UnauthorizedError("A valid bearer token is needed.")
        clients = [claims[name] for name in CLIENT_CLAIMS if isinstance(claims.get(name), str) and claims[name]]
        return cls(subject, scopes, clients[0][:CLIENT_ID_LENGTH_MAX] if clients else None)

    @classmethod
    def anybody(cls) -> Self:
        """The caller of every request under LEDGER_AUTH=none, where callers are not known."""
        return cls(subject=None, scopes=frozenset({SCOPE_READ, SCOPE_WRITE}))

    def may_read(self, owner_id: str) -> bool:
        """Whether the caller is the owner or may read any."""
        return self.subject == owner_id or SCOPE_READ in self.scopes

    def check_may_read(self, owner_id: str) -> None:
        """Raise ForbiddenError unless the caller is the owner or may read any."""
        if not self.may_read(owner_id):
            raise ForbiddenError("The token does not allow this.")

    def may_act_for(self, owner_id: str) -> bool:
        """Whether a call is the owner's, or one that an app makes for it; a look at it by others is neither."""
        return self.subject == owner_id or SCOPE_WRITE in self.scopes

    def check_may_post(self, owner_id: str, config: OperationConfig) -> None:
        """Raise ForbiddenError unless the caller may post anything, or is the owner and this is self-service."""
        if SCOPE_WRITE not in self.scopes and not (config.self_service and self.subject == owner_id):
            raise ForbiddenError("The token does not allow this.")

    def posted(self, operation: OperationRequest) -> OperationRequest:
        """The operation as this caller posts it: an owner's own under a nonce that no application's can be."""
        if SCOPE_WRITE in self.scopes:
            return operation
        return operation.model_copy(update={"nonce": f"{NONCE_PREFIX_SELF}{operation.nonce}"})


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _scopes(claim: Any) -> frozenset[str]:
    """The scopes in a claim, as text or as a list of texts; none in anything else, which no issuer means as scopes."""
    if isinstance(claim, str):
        # HTTP APIs hand a list on as the text "[a b]". A comma is part of a scope's name (RFC 6749, 3.3).
        whole_list = claim.startswith("[") and claim.endswith("]")
        return frozenset((claim[1:-1] if whole_list else claim).split(" ")) - {""}
    if isinstance(claim, list) and all(isinstance(text, str) for text in claim):
        return frozenset(scope for text in claim for scope in text.split(" ")) - {""}
    return frozenset()
