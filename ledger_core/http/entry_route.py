"""A route whose body pydantic reads from the bytes. FastAPI's dependencies would cost more time.

POST /ledger/entry uses it, because it is called most. FastAPI describes it by its signature.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from ledger_core.errors import (
    ConfigurationError,
    InvalidRequestError,
    LedgerError,
    UnknownOperationError,
)
from ledger_core.http.middleware import check_query
from ledger_core.http.problems import is_json
from ledger_core.http.schemas import UNKNOWN_OPERATION

__all__ = ["EntryRoute"]

BOM = b"\xef\xbb\xbf"
"""The byte order mark, which some programs write before a text in UTF-8."""


class EntryRoute(APIRoute):
    """A route whose endpoint takes the request and its body, and returns a response.

    It runs no `dependencies`: `create_api` and the endpoint check who may do what.

    Raises:
        ConfigurationError: the route is given `dependencies`.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The function that FastAPI calls for each request."""
        if self.dependencies:
            problem = "dependencies are not run here; use a middleware instead"
            raise ConfigurationError(f"{self.path}: {problem}")
        endpoint = self.endpoint
        model = endpoint.__annotations__["body"]

        async def handle(request: Request) -> Response:
            await check_query(request)
            try:
                content = await request.body() if is_json(request) else b""
                body = model.model_validate_json(content.removeprefix(BOM))
            except ClientDisconnect:
                raise InvalidRequestError("body: is incomplete; send it again") from None
            except ValidationError as error:
                raise _refusal(error) from None
            response: Response = await endpoint(request, body)
            return response

        return handle


def _refusal(error: ValidationError) -> LedgerError | RequestValidationError:
    """The refusal of a body. `unknown_operation` is its code only if all other fields are right."""
    found = error.errors()
    if {problem["type"] for problem in found} == {UNKNOWN_OPERATION}:
        return UnknownOperationError(f"operation: {found[0]['msg']}")
    errors = [{**problem, "loc": ("body", *problem["loc"])} for problem in found]
    return RequestValidationError(errors)
