"""A ledger of user credits on DynamoDB: atomic, exactly once, never below zero, verifiable offline.

The values that an app imports. What does the work is in packages beside them
(`ledger_core.posting`, `ledger_core.dynamodb`, `ledger_core.http`, ...), which this does not
import: it needs neither FastAPI nor botocore.
"""

from ledger_core.account import Account
from ledger_core.errors import (
    ConfigurationError,
    ContentionError,
    DuplicateNonceError,
    ForbiddenError,
    InsufficientBalanceError,
    InvalidRequestError,
    LedgerError,
    StoreError,
    TooLongError,
    UnauthorizedError,
    UnavailableError,
    UnknownFormatError,
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
from ledger_core.periods import Period

__all__ = [
    "Account",
    "BaseLedgerOperations",
    "ConfigurationError",
    "ContentionError",
    "DuplicateNonceError",
    "ForbiddenError",
    "InsufficientBalanceError",
    "InvalidRequestError",
    "LedgerEntry",
    "LedgerError",
    "LedgerOperationType",
    "OperationConfig",
    "OperationRequest",
    "Period",
    "StoreError",
    "TooLongError",
    "UnauthorizedError",
    "UnavailableError",
    "UnknownFormatError",
    "UnknownOperationError",
    "active_within",
    "every_owner",
]
