"""What each kind of caller may do on each route."""

import json
import os
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.routing import Route

from functions.example_app.app import create_app
from infra.issuer import kept_key
from ledger_core import BaseLedgerOperations, LedgerEntry, UnauthorizedError
from ledger_core.fields import NONCE_LENGTH_MAX, NONCE_PREFIX_SELF, OWNER_ID_LENGTH_MAX
from ledger_core.http import create_handler
from ledger_core.http.app import OPEN_PATHS
from ledger_core.http.authorization import Caller
from ledger_core.wiring import create_processor
from tests.support import Answer, LambdaApi, add

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

KEY_BYTES_MAX = 2048
"""The limit of DynamoDB for a partition key."""
CALLERS: dict[str, dict[str, Any] | None] = {
    # Unknown callers: no token, or a token without a subject and without a known scope.
    "no claims": None,
    "empty claims": {},
    "nameless": {
        "email": "ada@example.com",
        "username": "ada",
        "cognito:username": "ada",
        "scope": "",
    },
    # Owners: only `sub` identifies an owner.
    "ada": {"sub": "ada"},
    "eve": {
        "sub": "eve",
        "scope": "openid ledger/readers xledger/write",
        "cognito:username": "ada",
        "client_id": "ada",
    },
    # Applications.
    "reader": {"sub": "support", "scope": "openid ledger/read"},
    "writer": {"sub": "shop", "scope": "ledger/write"},
    "both": {"scope": "ledger/read ledger/write"},
    "list": {"sub": "support", "scope": ["ledger/read"]},
    "list as text": {"sub": "support", "scope": "[ledger/read openid]"},
}

OWN = {
    "ada": 200,
    "eve": 403,
    "reader": 403,
    "writer": 200,
    "both": 200,
    "list": 403,
    "list as text": 403,
}
READ = {
    "ada": 200,
    "eve": 403,
    "reader": 200,
    "writer": 403,
    "both": 200,
    "list": 200,
    "list as text": 200,
}
GRANT = {
    "ada": 403,
    "eve": 403,
    "reader": 403,
    "writer": 200,
    "both": 200,
    "list": 403,
    "list as text": 403,
}
KNOWN = dict.fromkeys(OWN, 200)
NOT_THERE = dict.fromkeys(OWN, 404)
OPEN = dict.fromkeys(CALLERS, 200)
REDIRECTED = dict.fromkeys(CALLERS, 307)


def posted(operation: str) -> dict[str, Any]:
    return {"owner_id": "ada", "operation": operation, "nonce": "NEW"}


REQUESTS: list[tuple[str, str, dict[str, Any] | None, dict[str, int]]] = [
    # The method, the path, the body, and the status per caller; a caller without a status gets 401.
    ("POST", "/ledger/entry", posted("CREDIT_SPEND"), OWN),
    ("POST", "/ledger/entry", posted("CONTENT_ACCESS"), OWN),
    ("POST", "/ledger/entry", posted("CREDIT_ADD"), GRANT),
    ("POST", "/ledger/entry", posted("SIGNUP_CREDIT"), GRANT),
    ("POST", "/ledger/entry", posted("DAILY_REWARD"), GRANT),
    ("POST", "/ledger/entry", {"nonsense": True}, dict.fromkeys(OWN, 422)),
    ("GET", "/ledger/operations", None, KNOWN),
    ("GET", "/ledger/ada/balance", None, READ),
    ("GET", "/ledger/ada/balance?at=2026-11-22T09:30:00Z", None, READ),
    ("GET", "/ledger/ada/entries", None, READ),
    ("GET", "/ledger/ada/verify", None, READ),
    ("GET", "/ledger/ada/receipt", None, READ),
    ("PUT", "/content/NEW", {"owner_id": "ada"}, OWN),
    ("POST", "/content/c/access", {"owner_id": "ada", "nonce": "NEW"}, OWN),
    ("GET", "/health", None, OPEN),
    ("GET", "/", None, REDIRECTED),
    ("GET", "/docs", None, OPEN),
    ("GET", "/docs/start.js", None, OPEN),
    ("GET", "/docs/swagger-ui.css", None, OPEN),
    ("GET", "/docs/swagger-ui-bundle.js", None, OPEN),
    ("GET", "/docs/nowhere.js", None, NOT_THERE),
    ("GET", "/redoc", None, NOT_THERE),
    ("GET", "/openapi.json", None, OPEN),
    ("GET", "/nowhere", None, NOT_THERE),
    ("GET", "/health/", None, NOT_THERE),
]


@pytest.fixture(params=["http_api", "rest_api"])
def api(
    request: pytest.FixtureRequest,
    client: "DynamoDBClient",
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> LambdaApi:
    """The Example App with LEDGER_AUTH=jwt and a key for receipts, and an owner with credits."""
    monkeypatch.setenv("LEDGER_AUTH", "jwt")
    kept_key(tmp_path / "receipts.pem", lambda: ec.generate_private_key(ec.SECP256R1()))
    monkeypatch.setenv("LEDGER_RECEIPT_KEY", str(tmp_path / "receipts.pem"))
    create_processor(BaseLedgerOperations, client).process(add(1000, "before"))
    return LambdaApi(create_handler(create_app(client)), rest_api=request.param == "rest_api")


def send(api: LambdaApi, method: str, path: str, body: Any, *, new: str) -> Answer:
    """Send a request of the table with a new nonce."""
    path, _, query = path.replace("NEW", new).partition("?")
    parameters = None
    if query:
        name, _, value = query.partition("=")
        parameters = {name: value}
    body = json.loads(json.dumps(body).replace("NEW", new))
    return api(method, path, body, query=parameters)


@pytest.mark.slow
def test_every_route_and_every_kind_of_caller(api: LambdaApi) -> None:
    """Each route answers each caller as the table says."""
    new = (f"n{number}" for number in count())
    got = {}
    expected = {}
    for method, path, body, statuses in REQUESTS:
        for name, claims in CALLERS.items():
            api.claims = claims
            case = (method, path, json.dumps(body), name)
            got[case] = send(api, method, path, body, new=next(new)).status
            expected[case] = statuses.get(name, 401)
    assert got == expected


def test_table_has_every_route(client: "DynamoDBClient") -> None:
    """A new route needs a line in the table."""
    routes: list[Any] = []
    for part in create_app(client).routes:
        routes += getattr(getattr(part, "original_router", part), "routes", [part])
    requests = {(method, path.partition("?")[0]) for method, path, *_ in REQUESTS}
    for route in routes:
        assert isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}:
            paths = [path for requested, path in requests if requested == method]
            assert any(map(route.path_regex.match, paths)), f"{method} {route.path}"
    opened = {path for _, path, _, statuses in REQUESTS if statuses in (OPEN, REDIRECTED)}
    assert opened == OPEN_PATHS


def test_refusals_reveal_nothing(api: LambdaApi) -> None:
    """Every refusal of a caller is the same answer, for any owner and any route."""
    for name, status in (("no claims", 401), ("eve", 403)):
        api.claims = CALLERS[name]
        answers = [
            send(api, method, path, body, new="n")
            for method, path, body, statuses in REQUESTS
            if statuses.get(name, 401) == status
        ]
        answers.append(api("GET", "/ledger/no-such-owner/balance"))
        assert len({json.dumps(answer.body, sort_keys=True) for answer in answers}) == 1
        assert answers[0].headers["content-type"] == "application/problem+json"
        assert answers[0].body["status"] == status
        assert ("www-authenticate" in answers[0].headers) == (status == 401)


@pytest.mark.parametrize(("name", "reads"), [("writer", False), ("both", True), ("ada", True)])
def test_refusal_shows_the_ledger_only_to_a_reader(api: LambdaApi, name: str, reads: bool) -> None:
    """Only the owner and readers get the balance of a 402 and the entry of a duplicate."""
    spend = {"owner_id": "ada", "operation": "CREDIT_SPEND", "amount": 900}
    api.claims = CALLERS[name]
    assert api("POST", "/ledger/entry", {**spend, "nonce": "n"}).body["id"] == 2
    poor = api("POST", "/ledger/entry", {**spend, "nonce": "m"})
    assert (poor.status, poor.body["required"]) == (402, 900)
    assert poor.body.get("balance") == (100 if reads else None)
    assert ("balance" in poor.body, "100" in poor.body["detail"]) == (reads, reads)
    other = {**spend, "amount": 1}
    key = {"Idempotency-Key": "n"}
    for status, replay, used in (
        (409, True, api("POST", "/ledger/entry", {**spend, "nonce": "n"})),
        (409, False, api("POST", "/ledger/entry", {**other, "nonce": "n"})),
        (422, False, api("POST", "/ledger/entry", other, headers=key)),
    ):
        assert (used.status, used.body["code"]) == (status, "duplicate_nonce")
        assert used.body["replay"] == replay
        assert ("entry" in used.body, "2" in used.body["detail"]) == (reads, reads)
        assert ("same" in used.body["detail"]) == replay
    assert api("POST", "/ledger/entry", spend, headers=key).body["id"] == 2


def test_owner_cannot_use_a_nonce_of_an_application(
    api: LambdaApi, client: "DynamoDBClient"
) -> None:
    """The nonce of an owner's own post gets a prefix that no application may send."""
    spend = {"owner_id": "ada", "operation": "CREDIT_SPEND", "nonce": "order-9"}
    posts: list[tuple[str, str, dict[str, Any], str]] = [
        ("POST", "/ledger/entry", spend, "order-9"),
        ("PUT", "/content/c", {"owner_id": "ada"}, "content-creation:c"),
        ("POST", "/content/c/access", {"owner_id": "ada", "nonce": "access"}, "access"),
    ]
    for method, path, body, nonce in posts:
        for name, stored in (("ada", f"@self:{nonce}"), ("both", nonce)):
            api.claims = CALLERS[name]
            entry = api(method, path, body)
            again = api(method, path, body)
            assert (entry.status, entry.body["nonce"]) == (200, stored)
            assert LedgerEntry.model_validate(entry.body).computed_hash() == entry.body["hash"]
            assert (again.status, again.body["replay"]) == (409, True)
            assert again.body["entry"] == entry.body
            key = {"entry_key": {"S": f"ada#{stored}"}}
            item = client.get_item(TableName=os.environ["LEDGER_ENTRIES_TABLE"], Key=key)["Item"]
            assert item["nonce"]["S"] == stored
    shown = [entry["nonce"] for entry in api("GET", "/ledger/ada/entries").body["entries"]]
    expected = ["before"]
    for *_, nonce in posts:
        expected += [f"@self:{nonce}", nonce]
    assert shown == expected[::-1]
    assert api("GET", "/ledger/ada/verify").body["valid"]


def test_nonce_of_an_owner_follows_both_conventions(api: LambdaApi) -> None:
    """A second use in the header is a replay or 422, and in the body 409."""
    api.claims = CALLERS["ada"]
    spend = {"owner_id": "ada", "operation": "CREDIT_SPEND"}
    key = {"Idempotency-Key": "order-9"}
    first = api("POST", "/ledger/entry", spend, headers=key)
    again = api("POST", "/ledger/entry", spend, headers=key)
    assert (again.status, again.body) == (200, first.body)
    assert again.headers["idempotency-replayed"] == "true"
    other = {**spend, "amount": 2}
    assert api("POST", "/ledger/entry", other, headers=key).status == 422
    used = api("POST", "/ledger/entry", {**other, "nonce": "order-9"})
    assert (used.status, used.body["replay"], used.body["entry"]) == (409, False, first.body)


def test_longest_nonce_of_an_owner_is_stored(api: LambdaApi) -> None:
    """The longest owner id, prefix and nonce fit into a key of DynamoDB."""
    api.claims = {"sub": "\U0001f41f" * OWNER_ID_LENGTH_MAX}
    body = {
        "owner_id": api.claims["sub"],
        "operation": "CONTENT_ACCESS",
        "nonce": "\U0001f41f" * NONCE_LENGTH_MAX,
    }
    entry = api("POST", "/ledger/entry", body)
    assert (entry.status, len(entry.body["nonce"])) == (
        200,
        len(NONCE_PREFIX_SELF) + NONCE_LENGTH_MAX,
    )
    assert len(f"{body['owner_id']}#{entry.body['nonce']}".encode()) < KEY_BYTES_MAX
    assert api("POST", "/ledger/entry", {**body, "nonce": body["nonce"] + "n"}).status == 422


ID_TOKEN = {"sub": "ada", "scope": "openid", "token_use": "id"}


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
        {"requestContext": {"authorizer": {"jwt": {"claims": {"sub": ["ada"], "scope": 5}}}}},
        {"requestContext": {"authorizer": {"jwt": {"claims": ID_TOKEN}}}},
        {"headers": {"authorization": "Bearer unchecked"}},
    ],
)
def test_caller_without_checked_claims_is_unknown(event: dict[str, Any]) -> None:
    """Only claims that an authorizer has put into the event count; a header does not."""
    with pytest.raises(UnauthorizedError):
        Caller.from_event(event)


SCOPES: list[tuple[dict[str, Any], set[str]]] = [
    ({"scope": "a b"}, {"a", "b"}),
    ({"scope": " a  b "}, {"a", "b"}),
    ({"scope": "[a b]"}, {"a", "b"}),
    ({"scope": "[[a] b]"}, {"[a]", "b"}),
    ({"scope": "[a b"}, {"[a", "b"}),
    ({"scope": "a b]"}, {"a", "b]"}),
    ({"scope": "["}, {"["}),
    ({"scope": "[]"}, set()),
    ({"scope": "x,ledger/write"}, {"x,ledger/write"}),
    ({"scope": "a\tb"}, {"a\tb"}),
    ({"scope": ["a b", "c"]}, {"a", "b", "c"}),
    ({"scope": ["[a b]", ""]}, {"[a", "b]"}),
    ({"scope": ["a", 1]}, set()),
    ({"scope": ["a", ["b"]]}, set()),
    ({"scope": {"ledger/write": True}}, set()),
    ({"scope": 5}, set()),
    ({"scope": True}, set()),
    ({"scope": None}, set()),
    ({"scp": "a b"}, {"a", "b"}),
    ({"scp": ["a", "b"]}, {"a", "b"}),
    ({"scope": "a", "scp": ["b"]}, {"a", "b"}),
    ({"scope": 5, "scp": "b"}, {"b"}),
]


@pytest.mark.parametrize(("claims", "scopes"), SCOPES)
def test_scopes_are_texts_split_at_spaces(claims: dict[str, Any], scopes: set[str]) -> None:
    """A comma, a single bracket and a value that is no text grant nothing."""
    event = {"requestContext": {"authorizer": {"jwt": {"claims": {"sub": "ada", **claims}}}}}
    assert Caller.from_event(event) == Caller("ada", frozenset(scopes))


@pytest.mark.parametrize("subject", ["", 5, True, ["ada"], {"ada": 1}, None])
def test_owner_id_of_a_caller_is_text(subject: Any) -> None:
    """A subject that is no text is ignored; the scopes count."""
    claims = {"sub": subject, "scope": "a", "token_use": "access"}
    event = {"requestContext": {"authorizer": {"claims": claims}}}
    assert Caller.from_event(event) == Caller(None, frozenset({"a"}))
