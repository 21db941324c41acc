"""The Example App: the ledger's routes, its own, its operations. `app` is for servers, `handler` for Lambda."""

from functions import startup  # isort: split

from typing import TYPE_CHECKING

from fastapi import FastAPI

from functions.example_app.operations import ExampleAppOperations
from functions.example_app.router import create_app_router
from ledger_core.http import LedgerRouter, create_api, create_handler
from ledger_core.wiring import create_processor, create_receipt_key, load_settings

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

__all__ = ["app", "create_app", "handler"]

INFO = {
    "version": "1",  # of the API: a change that breaks callers makes it 2
    "description": "An app on the shared ledger of user credits. It posts operations for owners, each "
    "under a nonce. Every accepted operation becomes one immutable entry and moves the balance: "
    "atomically, exactly once, never below zero.",
    "contact": {
        "name": "Example App",
        "url": "https://app.example/support",
        "email": "support@app.example",
    },
    "license": {"name": "MIT", "url": "https://opensource.org/license/mit"},
}
"""Of the OpenAPI document; `make openapi` writes it to openapi.json."""


def create_app(client: "DynamoDBClient | None" = None) -> FastAPI:
    """The Example App over the tables that the environment names; `client` is for tests and local runs."""
    settings = load_settings()
    ledger = LedgerRouter(create_processor(ExampleAppOperations, client), receipt_key=create_receipt_key())
    return create_api(
        "Example App",
        ledger,
        create_app_router(ledger),
        info=INFO,
        tags={"content": "The app's own business, which costs credits."},
        auth=settings.auth,
        base_path=settings.base_path,
        allowed_origins=settings.allowed_origins,
    )


app = create_app()
handler = create_handler(app)
startup.finish_startup()
