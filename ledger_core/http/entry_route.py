"""How the one route that is called most is read: by pydantic from the bytes, and not through FastAPI's dependencies.

FastAPI documents it by its signature, as any other.
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
"""What some write before a text in UTF-8."""


class EntryRoute(APIRoute):
    """A route whose endpoint takes the request and a body, and gives a response.

    It runs no `dependencies` of FastAPI's; who may do what is a matter of `create_api` and of the endpoint.

    Raises:
        ConfigurationError: it is given some.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What FastAPI calls instead of a handler of its own."""
        if self.dependencies:
            raise ConfigurationError(f"{self.path}: dependencies are not run here; take a middleware instead")
        endpoint, model = self.endpoint, self.endpoint.__annotations__["body"]

        async def handle(request: Request) -> Response:
            await check_query(request)
            try:
                content = await request.body() if is_json(request) else b""
                body = model.model_validate_json(content.removeprefix(BOM))
            except ClientDisconnect:
                raise InvalidRequestError("body: ended before it was complete; send it again") from None
            except ValidationError as error:
                raise _refusal(error) from None
            response: Response = await endpoint(request, body)
            return response

        return handle


def _refusal(error: ValidationError) -> LedgerError | RequestValidationError:
    """What a body is refused with: an unknown operation counts only if all else is right."""
    found = error.errors()
    if {problem["type"] for problem in found} == {UNKNOWN_OPERATION}:
        return UnknownOperationError(f"operation: {found[0]['msg']}")
    return RequestValidationError([{**problem, "loc": ("body", *problem["loc"])} for problem in found])
