"""The HTTP side: FastAPI and Mangum. No rule of the ledger is here."""

from ledger_core.http.app import create_api, create_handler
from ledger_core.http.router import LedgerRouter
from ledger_core.http.schemas import KEYED, REPLAYABLE

__all__ = [
    "KEYED",
    "REPLAYABLE",
    "LedgerRouter",
    "create_api",
    "create_handler",
]
