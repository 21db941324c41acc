"""A ledger of user credits on DynamoDB: atomic, exactly once, never below zero, verifiable offline.

What an app needs to post operations from its own code. The HTTP side is in `ledger_core.router` and `ledger_core.api`,
which this does not import, so that functions without HTTP do not pay for it.
"""

from ledger_core.errors import (
    ContentionError,
    DuplicateNonceError,
    ForbiddenError,
    InsufficientBalanceError,
    InvalidRequestError,
    LedgerError,
    UnauthorizedError,
    UnavailableError,
    UnknownOperationError,
)
from ledger_core.models import LedgerEntry, OperationRequest
from ledger_core.operations import (
    BaseLedgerOperations,
    LedgerOperationType,
    OperationConfig,
    active_within,
    every_owner,
)
from ledger_core.processor import OperationProcessor
from ledger_core.store import LedgerStore

__all__ = [
    "BaseLedgerOperations",
    "ContentionError",
    "DuplicateNonceError",
    "ForbiddenError",
    "InsufficientBalanceError",
    "InvalidRequestError",
    "LedgerEntry",
    "LedgerError",
    "LedgerOperationType",
    "LedgerStore",
    "OperationConfig",
    "OperationProcessor",
    "OperationRequest",
    "UnauthorizedError",
    "UnavailableError",
    "UnknownOperationError",
    "active_within",
    "every_owner",
]
