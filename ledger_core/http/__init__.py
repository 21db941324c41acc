"""The HTTP API, with FastAPI and Mangum. It has no rule of the ledger."""

from ledger_core.http.app import create_api, create_handler
from ledger_core.http.authorization import Caller
from ledger_core.http.request_context import caller_of
from ledger_core.http.router import LedgerRouter
from ledger_core.http.schemas import IDEMPOTENCY_KEY, REPLAYED

__all__ = [
    "IDEMPOTENCY_KEY",
    "REPLAYED",
    "Caller",
    "LedgerRouter",
    "caller_of",
    "create_api",
    "create_handler",
]
