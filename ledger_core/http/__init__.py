"""The HTTP side: FastAPI and Mangum. No rule of the ledger is here."""

from ledger_core.http.app import create_api, create_handler
from ledger_core.http.authorization import Caller
from ledger_core.http.request_context import caller_of
from ledger_core.http.router import LedgerRouter
from ledger_core.http.schemas import KEYED, REPLAYABLE

__all__ = [
    "KEYED",
    "REPLAYABLE",
    "Caller",
    "LedgerRouter",
    "caller_of",
    "create_api",
    "create_handler",
]
