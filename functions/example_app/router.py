"""The Example App's own routes. Each posts an operation for what the app does."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict

from functions.example_app.operations import ExampleAppOperationType
from ledger_core.fields import Nonce, OwnerId
from ledger_core.http import IDEMPOTENCY_KEY, REPLAYED, LedgerRouter
from ledger_core.models import LedgerEntry, OperationRequest

__all__ = ["create_app_router"]

ContentId = Annotated[
    str,
    Path(
        pattern=r"^[A-Za-z0-9_-]{1,64}$",
        description="The id of the content; the app chooses it.",
        examples=["essay-1"],
    ),
]


class ContentCreation(BaseModel):
    """The owner who creates the content."""

    model_config = ConfigDict(extra="forbid")

    owner_id: OwnerId


class ContentAccess(BaseModel):
    """The owner who accesses the content. The nonce goes here or in `Idempotency-Key`."""

    model_config = ConfigDict(extra="forbid")

    owner_id: OwnerId
    nonce: Nonce | None = None


def create_app_router(ledger: LedgerRouter) -> APIRouter:
    """The routes under /content. They post through `ledger`."""
    router = APIRouter(prefix="/content", tags=["content"])

    @router.put("/{content_id}")
    async def create_content(
        request: Request,
        content_id: ContentId,
        body: ContentCreation,
    ) -> LedgerEntry:
        """Create content. It costs 5 credits once, because the content's id is the nonce."""
        return await ledger.post_operation(
            request,
            OperationRequest(
                owner_id=body.owner_id,
                operation=ExampleAppOperationType.CONTENT_CREATION,
                nonce=f"content-creation:{content_id}",
                metadata={"content_id": content_id},
            ),
        )

    @router.post(
        "/{content_id}/access",
        response_model=LedgerEntry,
        responses=REPLAYED,
        openapi_extra=IDEMPOTENCY_KEY,
    )
    async def access_content(
        request: Request,
        content_id: ContentId,
        body: ContentAccess,
    ) -> Response:
        """Access content. It is free, and an entry records it."""
        return await ledger.answer(
            request,
            body.nonce,
            lambda nonce: OperationRequest(
                owner_id=body.owner_id,
                operation=ExampleAppOperationType.CONTENT_ACCESS,
                nonce=nonce,
                metadata={"content_id": content_id},
            ),
        )

    return router
