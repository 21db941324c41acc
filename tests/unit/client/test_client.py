"""The client of apps in another process: its requests, its retries and its errors."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import httpx
import pytest

from functions.example_app.app import create_app
from ledger_core import (
    ConfigurationError,
    ContentionError,
    DuplicateNonceError,
    ForbiddenError,
    InsufficientBalanceError,
    InvalidRequestError,
    LedgerEntry,
    LedgerError,
    StoreError,
    TooLongError,
    UnauthorizedError,
    UnavailableError,
    UnknownFormatError,
    UnknownOperationError,
)
from ledger_core.client import AsyncLedgerClient, LedgerClient, RefusedError
from ledger_core.client import answers as answers_module
from ledger_core.client import attempts as attempts_module
from ledger_core.client import calls as calls_module
from ledger_core.client.attempts import PAUSE_SECONDS_MAX, PAUSE_SECONDS_MIN
from ledger_core.http.openapi import ERRORS
from tests.support import NOON, add, operation, spend

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

URL = "https://ledger.example/prod"
TOKEN = "very.secret.token"
ENTRY: dict[str, Any] = {
    "v": 1,
    "id": 1,
    "operation": "SIGNUP_CREDIT",
    "owner_id": "ada",
    "amount": 3,
    "nonce": "n",
    "created_at": "2026-11-22T12:00:00.000000Z",
    "updated_at": "2026-11-22T12:00:00.000000Z",
    "balance_after": 3,
    "prev_hash": "0" * 64,
    "hash": "1" * 64,
}
ACCOUNT = {"owner_id": "ada", "unit": "CREDIT"}
BALANCE = {**ACCOUNT, "balance": 3, "entry_count": 1, "updated_at": None}
AUDIT: dict[str, Any] = {
    **ACCOUNT,
    "valid": True,
    "entries_checked": 1,
    "findings": [],
    "head": None,
}
GATEWAY = {"message": "Internal Server Error"}
LOST = httpx.ReadTimeout("no answer")

Outcome = httpx.Response | httpx.TransportError
Use = Callable[[Any], Any]
"""The use of a client by a test: a call, or a whole history."""


def answer(status: int, body: Any = None, **headers: str) -> httpx.Response:
    """An answer of the ledger."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, json=body, headers=names)


class Script:
    """A transport that plays outcomes in order, repeats the last, and keeps the requests."""

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes = list(outcomes)
        self.sent: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, httpx.TransportError):
            raise outcome
        # A new one: httpx binds a response to the request that it answers.
        return httpx.Response(outcome.status_code, headers=outcome.headers, content=outcome.content)


def use_sync(script: Script, use: Use, **options: Any) -> Any:
    """The result of `use` with a blocking client."""
    transport = httpx.MockTransport(script)
    with LedgerClient(URL, lambda: TOKEN, transport=transport, **options) as ledger:
        result = use(ledger)
        return list(result) if isinstance(result, Iterator) else result


def use_async(script: Script, use: Use, **options: Any) -> Any:
    """The result of `use` with an asyncio client."""

    async def token() -> str:
        return TOKEN

    async def run() -> Any:
        transport = httpx.MockTransport(script)
        async with AsyncLedgerClient(URL, token, transport=transport, **options) as ledger:
            result = use(ledger)
            if hasattr(result, "__aiter__"):
                return [entry async for entry in result]
            return await result

    return asyncio.run(run())


@pytest.fixture(params=[use_sync, use_async], ids=["sync", "async"])
def run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that runs a use against a script, with either client and without pauses."""
    monkeypatch.setattr(attempts_module, "uniform", lambda low, high: 0.0)
    return request.param


def test_post_sends_the_nonce_as_the_idempotency_key(run: Any) -> None:
    """The nonce is in the header, the rest in the body; the path is below the base path."""
    script = Script(answer(200, ENTRY))
    entry = run(script, lambda ledger: ledger.post(operation(nonce='a "b\\', metadata={"k": "v"})))
    assert entry == LedgerEntry.model_validate(ENTRY)
    (request,) = script.sent
    assert (request.method, request.url.path) == ("POST", "/prod/ledger/entry")
    assert request.headers["idempotency-key"] == '"a \\"b\\\\"'
    assert request.headers["authorization"] == f"Bearer {TOKEN}"
    body = {"owner_id": "ada", "operation": "SIGNUP_CREDIT", "metadata": {"k": "v"}}
    assert json.loads(request.content) == body


@pytest.mark.parametrize("nonce", ["a,b", "ü"])
def test_nonce_that_fits_no_header_is_in_the_body(run: Any, nonce: str) -> None:
    """A repeated request is a 409, whose entry is the answer."""
    script = Script(LOST, answer(409, {"code": "duplicate_nonce", "replay": True, "entry": ENTRY}))
    assert run(script, lambda ledger: ledger.post(operation(nonce=nonce))).id == 1
    assert [json.loads(request.content)["nonce"] for request in script.sent] == [nonce, nonce]
    assert "idempotency-key" not in script.sent[0].headers


@pytest.mark.parametrize(
    "outcome",
    [
        LOST,
        httpx.ConnectError("refused"),
        answer(429, {"message": "Too Many Requests"}),
        answer(500, GATEWAY),
        httpx.Response(502, text="<html>"),
        answer(503, {"code": "unavailable", "detail": "Not in time."}),
        answer(503, {"code": "contention", "detail": "Busy."}),
        answer(504, ["no object"]),
    ],
    ids=repr,
)
def test_request_in_doubt_is_sent_again_under_the_same_nonce(run: Any, outcome: Outcome) -> None:
    """A lost answer, a throttled call and a 503 are sent again, with the same key and body."""
    script = Script(outcome, outcome, answer(200, ENTRY))
    assert run(script, lambda ledger: ledger.post(operation())).id == 1
    sent = [(request.headers["idempotency-key"], request.content) for request in script.sent]
    assert sent == 3 * sent[:1]


PROBLEMS: dict[str, tuple[int, Any, type[LedgerError], str]] = {
    "invalid": (422, {"code": "invalid", "detail": "amount: x"}, InvalidRequestError, "amount: x"),
    "operation": (422, {"code": "unknown_operation"}, UnknownOperationError, "HTTP status 422"),
    "too long": (422, {"code": "too_long"}, TooLongError, "HTTP status 422"),
    "newer format": (
        501,
        {"code": "unknown_format", "detail": "newer", "state": "CheckingBalance"},
        UnknownFormatError,
        "newer",
    ),
    "token": (401, {"message": "Unauthorized"}, UnauthorizedError, "Unauthorized"),
    "scope": (403, {"message": "Forbidden"}, ForbiddenError, "Forbidden"),
    "forbidden": (
        403,
        {"code": "forbidden", "state": "Validating"},
        ForbiddenError,
        "HTTP status 403",
    ),
    "bug": (500, {"code": "internal", "detail": "failed"}, RefusedError, "failed"),
    "app's own": (
        409,
        {"code": "sold_out", "detail": "sold", "state": "Received"},
        RefusedError,
        "sold",
    ),
    "redirect": (307, None, RefusedError, "HTTP status 307"),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_refusals_are_errors_of_the_ledger(run: Any, name: str) -> None:
    """Each refusal is sent once, and raised as the error that its code or its status names."""
    status, problem, kind, message = PROBLEMS[name]
    script = Script(answer(status, problem))
    with pytest.raises(LedgerError) as refusal:
        run(script, lambda ledger: ledger.post(operation()))
    assert (type(refusal.value), str(refusal.value)) == (kind, message)
    assert len(script.sent) == 1
    assert refusal.value.state == (problem or {}).get("state", kind.state)
    if isinstance(refusal.value, RefusedError):
        assert (refusal.value.http_status, refusal.value.problem) == (status, problem or {})


def test_every_code_of_the_ledger_is_known() -> None:
    """The client has each error of the ledger, except those whose answer is a plain 500."""
    faults = {ConfigurationError.code, StoreError.code}
    assert answers_module.CODES.keys() == {error.code for error in ERRORS} - faults


def test_duplicate_has_the_original_entry(run: Any) -> None:
    """The error has the entry that used the nonce, if the token may read it."""
    problem = {"code": "duplicate_nonce", "replay": False, "detail": "Used."}
    whole = answer(422, {**problem, "entry": ENTRY})
    with pytest.raises(DuplicateNonceError) as duplicate:
        run(Script(whole), lambda ledger: ledger.post(spend(1, "n")))
    assert (duplicate.value.entry.id, duplicate.value.replay) == (1, False)
    with pytest.raises(DuplicateNonceError, match=r"^Used\.$") as hidden:
        run(Script(answer(422, problem)), lambda ledger: ledger.post(spend(1, "n")))
    assert (hasattr(hidden.value, "entry"), hidden.value.replay) == (False, False)


def test_insufficient_balance_has_the_balance(run: Any) -> None:
    """The error has the required amount, and the balance if the token may read it."""
    problem = {"code": "insufficient_balance", "required": 5, "detail": "Less."}
    whole = answer(402, {**problem, "balance": 3})
    with pytest.raises(InsufficientBalanceError) as poor:
        run(Script(whole), lambda ledger: ledger.post(spend(5, "n")))
    assert (poor.value.balance, poor.value.required) == (3, 5)
    with pytest.raises(InsufficientBalanceError, match=r"^Less\.$") as hidden:
        run(Script(answer(402, problem)), lambda ledger: ledger.post(spend(5, "n")))
    assert (hasattr(hidden.value, "balance"), hidden.value.required) == (False, 5)


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [(LOST, UnavailableError), (answer(503, {"code": "contention"}), ContentionError)],
    ids=["lost", "contention"],
)
def test_call_ends_when_its_time_is_up(run: Any, outcome: Outcome, kind: type[LedgerError]) -> None:
    """The last failure is raised when no time is left for an attempt."""
    script = Script(outcome)
    with pytest.raises(kind):
        run(script, lambda ledger: ledger.balance("ada"), timeout_seconds=0.0)
    assert len(script.sent) == 1


def test_errors_hold_no_token(run: Any) -> None:
    """If the error of a transport quotes the token, the client's error does not contain it."""
    script = Script(httpx.LocalProtocolError(f"Illegal header value b'Bearer {TOKEN}'"))
    with pytest.raises(UnavailableError) as unavailable:
        run(script, lambda ledger: ledger.balance("ada"), timeout_seconds=0.0)
    assert TOKEN not in repr(unavailable.value)
    assert str(unavailable.value).startswith("answer: missing (LocalProtocolError); send")
    assert (unavailable.value.__cause__, unavailable.value.__context__) == (None, None)


def test_balance_is_of_now_or_of_an_instant(run: Any) -> None:
    """A balance is read for the owner in the path, at the instant in the query."""
    script = Script(answer(200, {**BALANCE, "unit": "of a later version"}))
    assert run(script, lambda ledger: ledger.balance("a&ü|b")).balance == 3
    run(script, lambda ledger: ledger.balance("ada", at=NOON))
    now, then = (request.url for request in script.sent)
    assert unquote(now.raw_path.decode()) == "/prod/ledger/a&ü|b/balance"
    assert dict(then.params) == {"at": "2026-11-22T12:00:00+00:00"}


@pytest.mark.parametrize("owner_id", ["", "..", "a/b", "a?b", "a#b"])
def test_owner_id_opens_no_other_path(run: Any, owner_id: str) -> None:
    """An owner id that is not valid is refused before anything is sent."""
    script = Script(answer(200, BALANCE))
    with pytest.raises(InvalidRequestError, match=r"^owner_id: "):
        run(script, lambda ledger: ledger.balance(owner_id))
    assert not script.sent


def test_history_reads_page_after_page(run: Any) -> None:
    """A history has the entries of all pages, which are read with the same filters."""
    pages = [
        answer(200, {"entries": [ENTRY, ENTRY], "next_cursor": "next"}),
        answer(200, {"entries": [ENTRY], "next_cursor": None}),
    ]
    script = Script(*pages)
    entries = run(
        script,
        lambda ledger: ledger.history("ada", operation="SIGNUP_CREDIT", since=NOON, before=NOON),
    )
    assert [entry.id for entry in entries] == [1, 1, 1]
    noon = "2026-11-22T12:00:00+00:00"
    query = {"limit": "100", "operation": "SIGNUP_CREDIT", "from": noon, "to": noon}
    sent = [dict(request.url.params) for request in script.sent]
    assert sent == [query, {**query, "cursor": "next"}]


def test_verification_is_read(run: Any) -> None:
    """An audit has findings, and an attempt of it has more time than other calls."""
    finding = {"kind": "changed", "first_id": 1, "last_id": 1, "position": 1, "detail": "d"}
    script = Script(answer(200, {**AUDIT, "valid": False, "findings": [finding]}))
    audit = run(script, lambda ledger: ledger.verify("ada"))
    assert (audit.valid, [finding.kind for finding in audit.findings]) == (False, ["changed"])
    run(Script(answer(200, BALANCE)), lambda ledger: ledger.balance("ada"))
    assert script.sent[0].extensions["timeout"]["read"] > calls_module.ATTEMPT_SECONDS_MAX


def test_account_of_another_unit_is_asked_for(run: Any) -> None:
    """The unit and the app are in the query, except CREDIT, which is the ledger's default."""
    page = answer(200, {"entries": [], "next_cursor": None})
    script = Script(answer(200, BALANCE), page, answer(200, AUDIT), answer(200, BALANCE))
    run(script, lambda ledger: ledger.balance("ada", unit="GEMS"))
    run(script, lambda ledger: ledger.history("ada", unit="GEMS", app="game"))
    run(script, lambda ledger: ledger.verify("ada", unit="GEMS"))
    run(script, lambda ledger: ledger.balance("ada"))
    gems = {"unit": "GEMS"}
    assert [dict(request.url.params) for request in script.sent] == [
        gems,
        {**gems, "limit": "100", "app": "game"},
        gems,
        {},
    ]


def test_answer_of_another_server_is_an_error(run: Any) -> None:
    """A 200 that is not from the ledger is an error that says what to check."""
    with pytest.raises(UnavailableError, match="check base_url"):
        run(Script(httpx.Response(200, text="<html>")), lambda ledger: ledger.balance("ada"))


def test_ledger_without_tokens_gets_no_token() -> None:
    """Without `token`, neither client sends a token."""
    script = Script(answer(200, BALANCE))
    LedgerClient(URL, transport=httpx.MockTransport(script)).balance("ada")
    asyncio.run(AsyncLedgerClient(URL, transport=httpx.MockTransport(script)).balance("ada"))
    assert not [request for request in script.sent if "authorization" in request.headers]


def test_pauses_double_up_to_a_limit_and_obey_retry_after(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pause is random up to a limit that doubles, and comes on top of `Retry-After`."""
    pauses: list[float] = []
    monkeypatch.setattr(attempts_module, "uniform", lambda low, high: high - low)
    monkeypatch.setattr(time, "sleep", pauses.append)
    later = [answer(503, None, retry_after=after) for after in ("0", "1", "Sun, 22 Nov")]
    script = Script(*later, *[LOST] * 5, answer(200, BALANCE))
    use_sync(script, lambda ledger: ledger.balance("ada"))
    limits = [PAUSE_SECONDS_MIN * 2**number for number in range(8)]
    limits = [min(limit, PAUSE_SECONDS_MAX) for limit in limits]
    assert pauses == [limits[0], 1 + limits[1], *limits[2:]]
    assert limits[-1] == PAUSE_SECONDS_MAX


def test_client_and_ledger_understand_each_other(
    client: "DynamoDBClient",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The client posts to the Example App and reads balances, histories and audits."""
    monkeypatch.setattr(calls_module, "PAGE_ENTRIES", 2)
    owner: str = "a&ü|b"

    async def run() -> None:
        transport = httpx.ASGITransport(create_app(client))
        async with AsyncLedgerClient("http://ledger", transport=transport) as ledger:
            for nonce in ('a "quoted\\ nonce', "a,b", "ü"):
                entry = await ledger.post(add(5, nonce, owner_id=owner))
                assert entry.nonce == nonce
                assert await ledger.post(add(5, nonce, owner_id=owner)) == entry
                with pytest.raises(DuplicateNonceError) as duplicate:
                    await ledger.post(add(6, nonce, owner_id=owner))
                assert (duplicate.value.entry, duplicate.value.replay) == (entry, False)
            with pytest.raises(InsufficientBalanceError) as poor:
                await ledger.post(spend(500, "n", owner_id=owner))
            assert (poor.value.balance, poor.value.required) == (15, 500)
            assert (await ledger.balance(owner)).balance == 15
            then: datetime = entry.created_at
            assert (await ledger.balance(owner, at=then)).entry_count == 3
            assert [entry.id async for entry in ledger.history(owner)] == [3, 2, 1]
            assert [entry.id async for entry in ledger.history(owner, before=then)] == [2, 1]
            assert (await ledger.verify(owner)).valid

    asyncio.run(run())
