"""How the one route that is called most is read: by pydantic from the bytes, and not through FastAPI's dependencies.

FastAPI documents it by its signature, as any other.
"""

import re
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import ValidationError

__all__ = ["EntryRoute", "is_json"]

JSON = re.compile(r"(application/(.+\+)?json)?")


def is_json(request: Request) -> bool:
    """Whether the body is declared to be JSON, or nothing."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return JSON.fullmatch(media_type) is not None


class EntryRoute(APIRoute):
    """A route whose endpoint takes the request, a body, and an `Idempotency-Key`, and gives a response."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What FastAPI calls instead of a handler of its own."""
        endpoint, model = self.endpoint, self.endpoint.__annotations__["body"]

        async def handle(request: Request) -> Response:
            content = await request.body()
            try:
                body = model.model_validate_json(content if is_json(request) else b"")
            except ValidationError as error:
                errors = [{**one, "loc": ("body", *one["loc"])} for one in error.errors()]
                raise RequestValidationError(errors) from None
            response: Response = await endpoint(request, body, request.headers.get("idempotency-key"))
            return response

        return handle
