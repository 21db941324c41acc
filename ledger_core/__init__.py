"""A ledger of user credits on DynamoDB: atomic, exactly once, never below zero, verifiable offline.

The values that an app imports. What does the work is in packages beside them (`ledger_core.posting`,
`ledger_core.dynamodb`, `ledger_core.http`, ...), which this does not import: it needs neither FastAPI nor botocore.
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

__all__ = [
    "Account",
    "BaseLedgerOperations",
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
    "UnauthorizedError",
    "UnavailableError",
    "UnknownOperationError",
    "active_within",
    "every_owner",
]
