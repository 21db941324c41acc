"""Each error that an app raises is answered as the app means it."""

from typing import TYPE_CHECKING, Annotated, Any

import pytest
from fastapi import APIRouter, Depends, HTTPException, Request, Response

from functions.example_app.app import create_app
from functions.example_app.operations import ExampleAppOperations
from ledger_core import ConfigurationError, InsufficientBalanceError, LedgerError, StoreError
from ledger_core.errors import RequestState
from ledger_core.http import Caller, LedgerRouter, caller_of, create_api, create_handler
from ledger_core.http.request_context import context_of
from ledger_core.settings import AuthMode
from ledger_core.wiring import create_processor
from tests.support import LambdaApi

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


class OutOfStockError(LedgerError):
    code = "out_of_stock"
    status = 409


class SoldOutError(OutOfStockError):
    code = "sold_out"
    state = RequestState.VALIDATING


class PaymentsDownError(LedgerError):
    code = "payments_down"
    status = 503


class BrokenShelfError(LedgerError):
    code = "broken_shelf"


def api_raising(error: Exception, *, auth: AuthMode = AuthMode.NONE) -> LambdaApi:
    """An app whose only route raises an error."""
    router = APIRouter()

    @router.get("/thing")
    async def thing() -> None:
        raise error

    return LambdaApi(create_handler(create_api("Things", router, auth=auth)))


@pytest.mark.parametrize(
    ("error", "status", "code", "state"),
    [
        (OutOfStockError("There are no swords left."), 409, "out_of_stock", "Processing"),
        (SoldOutError("There are no swords left."), 409, "sold_out", "Validating"),
        (
            OutOfStockError("There are no swords left.", state=RequestState.CHECKING_BALANCE),
            409,
            "out_of_stock",
            "CheckingBalance",
        ),
        (PaymentsDownError("There are no swords left."), 503, "payments_down", "Processing"),
    ],
)
def test_error_of_an_app_has_its_own_status_code_and_state(
    error: LedgerError, status: int, code: str, state: str
) -> None:
    """An app's LedgerError is answered with the status, code and state that it declares."""
    answer = api_raising(error)("GET", "/thing")
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status, answer.body["status"]) == (status, status)
    assert (answer.body["code"], answer.body["state"]) == (code, state)
    assert answer.body["detail"] == "There are no swords left."


@pytest.mark.parametrize(
    "error",
    [
        BrokenShelfError("secret"),
        LedgerError("secret"),
        StoreError("secret"),
        ConfigurationError("secret"),
    ],
)
def test_error_without_a_status_is_a_fault(
    error: LedgerError, caplog: pytest.LogCaptureFixture
) -> None:
    """The message of an error without a status is only in the log."""
    answer = api_raising(error)("GET", "/thing")
    assert (answer.status, answer.body["code"]) == (500, "internal")
    assert "secret" not in str(answer.body)
    assert "secret" in caplog.text


@pytest.mark.parametrize(
    ("error", "code", "state"),
    [
        (HTTPException(400, "no such colour"), "bad_request", "Validating"),
        (HTTPException(401, "who?"), "unauthorized", "Received"),
        (HTTPException(403, "not you"), "forbidden", "Received"),
        (HTTPException(404, "no such thing"), "not_found", "Received"),
        (HTTPException(409, {"left": 0, "names": ["sword"]}), "conflict", "Processing"),
        (HTTPException(410, ["gone", 7]), "gone", "Processing"),
        (HTTPException(422, "size: too large"), "invalid", "Validating"),
        (HTTPException(429, "slowly"), "too_many_requests", "Processing"),
        (HTTPException(500, "I am broken"), "internal", "Processing"),
        (HTTPException(503, "later"), "service_unavailable", "Processing"),
    ],
)
def test_http_exception_of_an_app_keeps_its_status_and_detail(
    error: HTTPException, code: str, state: str
) -> None:
    """A detail of any type is the detail of the problem."""
    answer = api_raising(error)("GET", "/thing")
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status, answer.body["status"]) == (error.status_code, error.status_code)
    assert (answer.body["code"], answer.body["state"]) == (code, state)
    assert answer.body["detail"] == error.detail


def test_http_exception_of_an_app_keeps_its_headers() -> None:
    """The headers replace the ledger's headers, in any spelling."""
    headers = {"Retry-After": "120", "X-Why": "night"}
    later = api_raising(HTTPException(503, "later", headers=headers))
    answer = later("GET", "/thing")
    assert (answer.headers["retry-after"], answer.headers["x-why"]) == ("120", "night")
    unknown = api_raising(HTTPException(401, "who?", headers={"WWW-Authenticate": "Basic"}))
    assert unknown("GET", "/thing").headers["www-authenticate"] == "Basic"


def test_http_exception_that_is_no_failure_is_no_problem(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A redirect has no body and counts as answered."""
    headers = {"Location": "/there", "Content-Type": "text/plain"}
    api = api_raising(HTTPException(307, headers=headers))
    answer = api("GET", "/thing")
    assert (answer.status, answer.headers["location"], answer.body) == (307, "/there", "")
    assert '"code":"answered"' in capsys.readouterr().out


def test_body_that_fastapi_cannot_read_is_invalid(client: "DynamoDBClient") -> None:
    """FastAPI's 400 for an unreadable body becomes the 422 of any malformed body."""
    answer = LambdaApi(create_handler(create_app(client)))("PUT", "/content/c", "[" * 10_000)
    assert (answer.status, answer.body["code"]) == (422, "invalid")
    assert answer.body["detail"].startswith("body: cannot be read")


def test_exception_handler_of_an_app_comes_first() -> None:
    """An app may answer an error with its own exception handler, as in any FastAPI app."""
    router = APIRouter()

    @router.get("/thing")
    async def thing() -> None:
        raise OutOfStockError("There are no swords left.")

    async def answer_plainly(_request: Request, error: Exception) -> Response:
        return Response(str(error), 418, media_type="text/plain")

    api = create_api("Things", router, auth=AuthMode.NONE)
    api.add_exception_handler(OutOfStockError, answer_plainly)
    answer = LambdaApi(create_handler(api))("GET", "/thing")
    assert (answer.status, answer.body) == (418, "There are no swords left.")


def test_endpoint_of_an_app_gets_its_caller(client: "DynamoDBClient") -> None:
    """`caller_of` is a dependency for endpoints; `request.state` belongs to the app."""
    router = APIRouter()

    @router.get("/me")
    async def me(request: Request, caller: Annotated[Caller, Depends(caller_of)]) -> dict[str, Any]:
        request.state.visits = 1
        return {"subject": caller.subject, "visits": request.state.visits}

    ledger = LedgerRouter(create_processor(ExampleAppOperations, client))
    api = LambdaApi(create_handler(create_api("Me", ledger, router, auth=AuthMode.JWT)))
    assert api("GET", "/me").body == {"subject": "shop", "visits": 1}


def test_open_path_without_a_token_has_no_caller() -> None:
    """An endpoint on an open path that needs a caller answers 401 without a token."""
    router = APIRouter()

    @router.get("/health")
    async def health(caller: Annotated[Caller, Depends(caller_of)]) -> str | None:
        return caller.subject

    api = LambdaApi(create_handler(create_api("Open", router, auth=AuthMode.JWT)))
    assert api("GET", "/health").body == "shop"
    api.claims = None
    answer = api("GET", "/health")
    assert (answer.status, answer.body["code"]) == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_refusal_shows_an_unknown_caller_no_balance() -> None:
    """A refusal on an open path has the balance only for a reader."""
    router = APIRouter()

    @router.get("/health")
    async def health() -> None:
        raise InsufficientBalanceError(balance=3, required=5)

    api = LambdaApi(create_handler(create_api("Open", router, auth=AuthMode.JWT)))
    assert api("GET", "/health").body["balance"] == 3
    api.claims = None
    assert "balance" not in api("GET", "/health").body


def test_context_is_one_object_per_request() -> None:
    """A request has the same context in all its parts; each request has its own id."""
    scope: dict[str, Any] = {"type": "http"}
    assert context_of(scope) is context_of(scope)
    assert context_of(scope).request_id != context_of({"type": "http"}).request_id
