"""Requests, times, API Gateway events and other parts that several tests use."""

import json
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from random import SystemRandom
from typing import Any, NamedTuple
from urllib.parse import urlencode

from ledger_core import Account, LedgerEntry, LedgerOperationType, OperationRequest
from ledger_core.account import AccountChange, Mark

ROOT = Path(__file__).parent.parent
DEEP = bool(os.environ.get("PROVE"))
"""Whether to try as much as `make prove` does, which takes longer than `make test`."""
DYNAMODB_LOCAL = "DYNAMODB_LOCAL_ENDPOINT"
"""The variable that names a DynamoDB Local that runs already."""
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
CONFIRMED = {"ResponseMetadata": {"RequestId": "request"}, "ConsumedCapacity": []}
"""The part that every answer of DynamoDB has."""


def operation(
    name: StrEnum = LedgerOperationType.SIGNUP_CREDIT,
    nonce: str = "n",
    *,
    owner_id: str = "ada",
    amount: int | None = None,
    metadata: dict[str, str] | None = None,
) -> OperationRequest:
    return OperationRequest(
        owner_id=owner_id, operation=name, nonce=nonce, amount=amount, metadata=metadata or {}
    )


def add(amount: int, nonce: str, *, owner_id: str = "ada") -> OperationRequest:
    return operation(LedgerOperationType.CREDIT_ADD, nonce, owner_id=owner_id, amount=amount)


def spend(amount: int, nonce: str, *, owner_id: str = "ada") -> OperationRequest:
    return operation(LedgerOperationType.CREDIT_SPEND, nonce, owner_id=owner_id, amount=amount)


def account_after(entry: LedgerEntry) -> Account:
    """The account after an entry, as far as the entry alone shows it."""
    return Account(
        owner_id=entry.owner_id,
        balance=entry.balance_after,
        entry_count=entry.id,
        head_hash=entry.hash,
        updated_at=entry.created_at,
    )


def change_of(
    before: Account, entry: LedgerEntry, *, mark: Mark | None = None, is_active: bool = True
) -> AccountChange:
    """The change that appends one entry."""
    return AccountChange((entry,), before, before.after(entry, mark=mark, is_active=is_active))


def item_from(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Plain strings, integers and maps as DynamoDB's typed values."""
    return {name: _typed(value) for name, value in fields.items()}


def _typed(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        return {"S": value}
    if isinstance(value, dict):
        return {"M": item_from(value)}
    return {"N": str(value)}


def wire(client: Any) -> list[str]:
    """A list that grows by the name of every request that `client` sends."""
    sent: list[str] = []
    client.meta.events.register(
        "before-send.dynamodb", lambda request, **_: sent.append(_target(request))
    )
    return sent


def _target(request: Any) -> str:
    target = request.headers["X-Amz-Target"]
    return str(target.decode() if isinstance(target, bytes) else target).rpartition(".")[2]


class Answer(NamedTuple):
    """An HTTP answer, of a server or of a Lambda handler."""

    status: int
    headers: Mapping[str, str]
    body: Any


class LambdaApi:
    """Sends requests to a Lambda handler as API Gateway does."""

    def __init__(
        self, handler: Callable[[dict[str, Any], Any], dict[str, Any]], *, rest_api: bool = False
    ) -> None:
        self.handler = handler
        self.rest_api = rest_api
        self.claims: dict[str, Any] | None = {"sub": "shop", "scope": "ledger/read ledger/write"}
        self.context: Any = None

    def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        **overrides: Any,
    ) -> Answer:
        create_event = self._rest_event if self.rest_api else self._http_event
        event = create_event(method, path, query)
        event["headers"] |= headers or {}
        event["body"] = body if body is None or isinstance(body, str) else json.dumps(body)
        answer = self.handler({**event, **overrides}, self.context)
        content = answer["body"]
        if content and answer["headers"]["content-type"].endswith("json"):
            content = json.loads(content)
        return Answer(answer["statusCode"], answer["headers"], content)

    def _rest_event(
        self, method: str, path: str, query: Mapping[str, str] | None
    ) -> dict[str, Any]:
        event = _event("rest_api")
        event |= {
            "path": path,
            "httpMethod": method,
            "queryStringParameters": query,
            "multiValueHeaders": None,
        }
        authorizer = None if self.claims is None else {"claims": self.claims}
        event["requestContext"]["authorizer"] = authorizer
        return event

    def _http_event(
        self, method: str, path: str, query: Mapping[str, str] | None
    ) -> dict[str, Any]:
        event = _event("http_api")
        event |= {"rawPath": path, "rawQueryString": urlencode(query or {})}
        context = event["requestContext"]
        context["http"] |= {"path": path, "method": method}
        jwt = {"claims": self.claims, "scopes": None}
        context["authorizer"] = None if self.claims is None else {"jwt": jwt}
        return event


def _event(name: str) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((ROOT / f"infra/events/{name}.json").read_text())
    return event


def new_seed() -> int:
    """A random seed, printed so that a failure can be repeated; or SEED of the environment."""
    seed = int(os.environ.get("SEED") or SystemRandom().randrange(2**32))
    print(f"SEED={seed}")
    return seed
