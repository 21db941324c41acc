"""The Example App: the ledger's routes and its own. Servers run `app`, Lambda runs `handler`."""

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
    "description": (
        "An app on the shared ledger of user credits. It posts operations for owners, each "
        "under a nonce. Every accepted operation becomes one immutable entry and moves the "
        "balance: atomically, exactly once, never below zero."
    ),
    "contact": {
        "name": "Example App",
        "url": "https://app.example/support",
        "email": "support@app.example",
    },
    "license": {"name": "MIT", "url": "https://opensource.org/license/mit"},
}
"""The `info` of the OpenAPI description, which `make openapi` writes to openapi.json."""


def create_app(client: "DynamoDBClient | None" = None) -> FastAPI:
    """The Example App on the tables that the environment names.

    Args:
        client: a client of DynamoDB, for tests and local runs; by default a new client.
    """
    settings = load_settings()
    processor = create_processor(ExampleAppOperations, client)
    ledger = LedgerRouter(processor, receipt_key=create_receipt_key())
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
