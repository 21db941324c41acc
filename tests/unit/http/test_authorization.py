"""Who may do what: every route, every kind of caller."""

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
from ledger_core.fields import NONCE_LENGTH_MAX, NONCE_STORED_LENGTH_MAX, OWNER_ID_LENGTH_MAX
from ledger_core.http import create_handler
from ledger_core.http.app import OPEN_PATHS
from ledger_core.http.authorization import Caller
from ledger_core.wiring import create_processor
from tests.support import Answer, LambdaApi, add

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

KEY_BYTES_MAX = 2048
"""The longest that DynamoDB takes for a partition key."""
CALLERS: dict[str, dict[str, Any] | None] = {
    # Nobody is known: the authorizer let the request through without a token, or with one that names nobody.
    "no claims": None,
    "empty claims": {},
    "nameless": {
        "email": "ada@example.com",
        "username": "ada",
        "cognito:username": "ada",
        "scope": "",
    },
    # Owners: `sub`, and nothing else, is who they are.
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
ANYBODY = dict.fromkeys(CALLERS, 200)
LED_ON = dict.fromkeys(CALLERS, 307)

DEEDS: list[tuple[str, str, dict[str, Any] | None, dict[str, int]]] = [
    # What a caller is not named for here is 401.
    (
        "POST",
        "/ledger/entry",
        {"owner_id": "ada", "operation": "CREDIT_SPEND", "nonce": "NEW"},
        OWN,
    ),
    (
        "POST",
        "/ledger/entry",
        {"owner_id": "ada", "operation": "CONTENT_ACCESS", "nonce": "NEW"},
        OWN,
    ),
    (
        "POST",
        "/ledger/entry",
        {"owner_id": "ada", "operation": "CREDIT_ADD", "nonce": "NEW"},
        GRANT,
    ),
    (
        "POST",
        "/ledger/entry",
        {"owner_id": "ada", "operation": "SIGNUP_CREDIT", "nonce": "NEW"},
        GRANT,
    ),
    (
        "POST",
        "/ledger/entry",
        {"owner_id": "ada", "operation": "DAILY_REWARD", "nonce": "NEW"},
        GRANT,
    ),
    ("POST", "/ledger/entry", {"nonsense": True}, dict.fromkeys(OWN, 422)),
    ("GET", "/ledger/operations", None, KNOWN),
    ("GET", "/ledger/ada/balance", None, READ),
    ("GET", "/ledger/ada/balance?at=2026-11-22T09:30:00Z", None, READ),
    ("GET", "/ledger/ada/entries", None, READ),
    ("GET", "/ledger/ada/verify", None, READ),
    ("GET", "/ledger/ada/receipt", None, READ),
    ("PUT", "/content/NEW", {"owner_id": "ada"}, OWN),
    ("POST", "/content/c/access", {"owner_id": "ada", "nonce": "NEW"}, OWN),
    ("GET", "/health", None, ANYBODY),
    ("GET", "/", None, LED_ON),
    ("GET", "/docs", None, ANYBODY),
    ("GET", "/docs/start.js", None, ANYBODY),
    ("GET", "/docs/swagger-ui.css", None, ANYBODY),
    ("GET", "/docs/swagger-ui-bundle.js", None, ANYBODY),
    ("GET", "/docs/nowhere.js", None, NOT_THERE),
    ("GET", "/redoc", None, NOT_THERE),
    ("GET", "/openapi.json", None, ANYBODY),
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


def do(api: LambdaApi, method: str, path: str, body: Any, *, new: str) -> Answer:
    path, _, query = path.replace("NEW", new).partition("?")
    sent = None if body is None else json.loads(json.dumps(body).replace("NEW", new))
    return api(method, path, sent, query=dict([query.split("=")]) if query else None)


def test_every_route_and_every_kind_of_caller(api: LambdaApi) -> None:
    """The table of deeds: who is not known is 401 whatever is asked, who may not is 403, and all else is as it is."""
    new = (f"n{number}" for number in count())
    got, expected = {}, {}
    for method, path, body, table in DEEDS:
        for name, claims in CALLERS.items():
            api.claims = claims
            deed = (method, path, json.dumps(body), name)
            got[deed] = do(api, method, path, body, new=next(new)).status
            expected[deed] = table.get(name, 401)
    assert got == expected


def test_no_route_is_left_out(client: "DynamoDBClient") -> None:
    """A route that is added without a line in the table fails here."""
    routes = create_app(client).routes
    flat = [
        route
        for part in routes
        for route in getattr(getattr(part, "original_router", part), "routes", [part])
    ]
    deeds = {(method, path.partition("?")[0]) for method, path, *_ in DEEDS}
    for route in flat:
        assert isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}:
            assert any(m == method and route.path_regex.match(path) for m, path in deeds), (
                f"{method} {route.path}"
            )
    assert {path for _, path, _, table in DEEDS if table in (ANYBODY, LED_ON)} == OPEN_PATHS


def test_refusals_reveal_nothing(api: LambdaApi) -> None:
    """All that is not allowed is answered with the same few words, to every caller and about every owner."""
    for name, status in (("no claims", 401), ("eve", 403)):
        api.claims = CALLERS[name]
        answers = [
            do(api, m, p, body, new="n")
            for m, p, body, table in DEEDS
            if table.get(name, 401) == status
        ]
        answers.append(api("GET", "/ledger/nobody-there/balance"))
        assert len({json.dumps(answer.body, sort_keys=True) for answer in answers}) == 1
        assert answers[0].headers["content-type"] == "application/problem+json"
        assert answers[0].body["status"] == status
        assert ("www-authenticate" in answers[0].headers) == (status == 401)


@pytest.mark.parametrize(("name", "reads"), [("writer", False), ("both", True), ("ada", True)])
def test_refusals_tell_of_the_ledger_only_to_who_may_read_it(
    api: LambdaApi, name: str, reads: bool
) -> None:
    """A 402 holds the balance, and a duplicate its entry, for the owner and for readers; to others neither is told."""
    spend = {"owner_id": "ada", "operation": "CREDIT_SPEND", "amount": 900}
    api.claims = CALLERS[name]
    assert api("POST", "/ledger/entry", {**spend, "nonce": "n"}).body["id"] == 2
    poor = api("POST", "/ledger/entry", {**spend, "nonce": "more"})
    assert (poor.status, poor.body["required"], poor.body.get("balance")) == (
        402,
        900,
        100 if reads else None,
    )
    assert ("balance" in poor.body, "100" in poor.body["detail"]) == (reads, reads)
    other, key = {**spend, "amount": 1}, {"Idempotency-Key": "n"}
    for status, replay, used in (
        (409, True, api("POST", "/ledger/entry", {**spend, "nonce": "n"})),
        (409, False, api("POST", "/ledger/entry", {**other, "nonce": "n"})),
        (422, False, api("POST", "/ledger/entry", other, headers=key)),
    ):
        assert (used.status, used.body["code"], used.body["replay"]) == (
            status,
            "duplicate_nonce",
            replay,
        )
        assert ("entry" in used.body, "2" in used.body["detail"]) == (reads, reads)
        assert ("same" in used.body["detail"]) == replay
    assert api("POST", "/ledger/entry", spend, headers=key).body["id"] == 2


def test_an_owner_takes_no_nonce_of_an_application(
    api: LambdaApi, client: "DynamoDBClient"
) -> None:
    """What an owner posts itself, by any route, is stored and shown under a nonce that no application can have."""
    posts: list[tuple[str, str, dict[str, Any], str]] = [
        (
            "POST",
            "/ledger/entry",
            {"owner_id": "ada", "operation": "CREDIT_SPEND", "nonce": "order-9"},
            "order-9",
        ),
        ("PUT", "/content/c", {"owner_id": "ada"}, "content-creation:c"),
        ("POST", "/content/c/access", {"owner_id": "ada", "nonce": "access"}, "access"),
    ]
    for method, path, body, nonce in posts:
        for name, stored in (("ada", f"@self:{nonce}"), ("both", nonce)):
            api.claims = CALLERS[name]
            entry, again = api(method, path, body), api(method, path, body)
            assert (entry.status, entry.body["nonce"]) == (200, stored)
            assert LedgerEntry.model_validate(entry.body).computed_hash() == entry.body["hash"]
            assert (again.status, again.body["replay"], again.body["entry"]) == (
                409,
                True,
                entry.body,
            )
            key = {"entry_key": {"S": f"ada#{stored}"}}
            assert (
                client.get_item(TableName=os.environ["LEDGER_ENTRIES_TABLE"], Key=key)["Item"][
                    "nonce"
                ]["S"]
                == stored
            )
    shown = [entry["nonce"] for entry in api("GET", "/ledger/ada/entries").body["entries"]]
    assert shown == [nonce for *_, last in reversed(posts) for nonce in (last, f"@self:{last}")] + [
        "before"
    ]
    assert api("GET", "/ledger/ada/verify").body["valid"]


def test_an_owner_s_nonce_follows_both_conventions(api: LambdaApi) -> None:
    """In the header, the same request gets the original answer and another one 422; in the body, another one 409."""
    api.claims = CALLERS["ada"]
    spend, key = {"owner_id": "ada", "operation": "CREDIT_SPEND"}, {"Idempotency-Key": "order-9"}
    first = api("POST", "/ledger/entry", spend, headers=key)
    again = api("POST", "/ledger/entry", spend, headers=key)
    assert (again.status, again.body, again.headers["idempotency-replayed"]) == (
        200,
        first.body,
        "true",
    )
    other = {**spend, "amount": 2}
    assert api("POST", "/ledger/entry", other, headers=key).status == 422
    used = api("POST", "/ledger/entry", {**other, "nonce": "order-9"})
    assert (used.status, used.body["replay"], used.body["entry"]) == (409, False, first.body)


def test_the_longest_nonce_of_an_owner_is_stored(api: LambdaApi) -> None:
    """An owner's may be as long as an application's, and with owner and prefix it is still a key for DynamoDB."""
    api.claims = {"sub": "\U0001f41f" * OWNER_ID_LENGTH_MAX}
    body = {
        "owner_id": api.claims["sub"],
        "operation": "CONTENT_ACCESS",
        "nonce": "\U0001f41f" * NONCE_LENGTH_MAX,
    }
    entry = api("POST", "/ledger/entry", body)
    assert (entry.status, len(entry.body["nonce"])) == (200, NONCE_STORED_LENGTH_MAX)
    assert len(f"{body['owner_id']}#{entry.body['nonce']}".encode()) < KEY_BYTES_MAX
    assert api("POST", "/ledger/entry", {**body, "nonce": body["nonce"] + "n"}).status == 422


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
        {
            "requestContext": {
                "authorizer": {
                    "jwt": {"claims": {"sub": "ada", "scope": "openid", "token_use": "id"}}
                }
            }
        },
        {"headers": {"authorization": "Bearer unchecked"}},
    ],
)
def test_nobody_is_known_without_checked_claims(event: dict[str, Any]) -> None:
    """Only what an authorizer has put into the event counts; a header of the caller's is nothing."""
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
    """No comma, no half of a pair of brackets, and nothing that is not text grants anything."""
    event = {"requestContext": {"authorizer": {"jwt": {"claims": {"sub": "ada", **claims}}}}}
    assert Caller.from_event(event) == Caller("ada", frozenset(scopes))


@pytest.mark.parametrize("subject", ["", 5, True, ["ada"], {"ada": 1}, None])
def test_an_owner_is_named_by_text(subject: Any) -> None:
    """A subject that is not a text is nobody's id; the scopes count all the same."""
    event = {
        "requestContext": {
            "authorizer": {"claims": {"sub": subject, "scope": "a", "token_use": "access"}}
        }
    }
    assert Caller.from_event(event) == Caller(None, frozenset({"a"}))
