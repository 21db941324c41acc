"""Every way the ledger says no. Callers switch on `code`; people read the message and the state.

LedgerError                       code                  raised when
├── InvalidRequestError           invalid               a field, a limit or a rule of the operation is broken
├── UnknownOperationError         unknown_operation     the app has no such operation
├── DuplicateNonceError           duplicate_nonce       the owner has used this nonce; carries the original entry
├── InsufficientBalanceError      insufficient_balance  the balance would fall below zero
├── UnauthorizedError             unauthorized          nobody is known to be calling
├── ForbiddenError                forbidden             the caller may not do this
├── ContentionError               contention            other writers kept winning until the time was up; try again
├── UnavailableError              unavailable           DynamoDB did not answer in time or throttled; try again
├── TooLongError                  too_long              the ledger is too long to be verified in the time there is
├── StoreError                    internal              DynamoDB refused: a table, a permission, a bug
└── ConfigurationError            (at start only)       a setting or an app's operations are wrong
"""

from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from ledger_core.models import LedgerEntry

__all__ = [
    "ConfigurationError",
    "ContentionError",
    "DuplicateNonceError",
    "ForbiddenError",
    "InsufficientBalanceError",
    "InvalidRequestError",
    "LedgerError",
    "RequestState",
    "StoreError",
    "TooLongError",
    "UnauthorizedError",
    "UnavailableError",
    "UnknownOperationError",
]


class RequestState(StrEnum):
    """Where a request is in its life; a failure names the state it failed in."""

    RECEIVED = "Received"
    VALIDATING = "Validating"
    CHECKING_NONCE = "CheckingNonce"
    CHECKING_BALANCE = "CheckingBalance"
    PROCESSING = "Processing"
    COMPLETED = "Completed"
    FAILED = "Failed"


class LedgerError(Exception):
    """The root: `code` is stable and for programs, `state` says where the request was, the message is for people."""

    code: ClassVar[str]
    state: RequestState = RequestState.PROCESSING


class InvalidRequestError(LedgerError):
    code = "invalid"
    state = RequestState.VALIDATING


class UnknownOperationError(LedgerError):
    code = "unknown_operation"
    state = RequestState.VALIDATING


class DuplicateNonceError(LedgerError):
    """`entry` is the original; `replay` is true when this request asked for the same as the one that made it."""

    code = "duplicate_nonce"
    state = RequestState.CHECKING_NONCE

    def __init__(self, *, entry: "LedgerEntry", replay: bool) -> None:
        same = "the same request" if replay else "a different request"
        super().__init__(f"The nonce was used by entry {entry.id}, for {same}.")
        self.entry = entry
        self.replay = replay


class InsufficientBalanceError(LedgerError):
    """`balance` is what the owner has, `required` what the operation takes; both in credits, neither negative."""

    code = "insufficient_balance"
    state = RequestState.CHECKING_BALANCE

    def __init__(self, *, balance: int, required: int) -> None:
        super().__init__(f"The operation takes {required} credits and the balance is {balance}.")
        self.balance = balance
        self.required = required


class UnauthorizedError(LedgerError):
    code = "unauthorized"
    state = RequestState.RECEIVED


class ForbiddenError(LedgerError):
    code = "forbidden"
    state = RequestState.RECEIVED


class ContentionError(LedgerError):
    code = "contention"


class UnavailableError(LedgerError):
    code = "unavailable"


class TooLongError(LedgerError):
    code = "too_long"


class StoreError(LedgerError):
    """The message goes to the log, never to a client. `dynamodb_code` is None when what is stored is malformed."""

    code = "internal"

    def __init__(self, message: str, *, dynamodb_code: str | None = None) -> None:
        super().__init__(message)
        self.dynamodb_code = dynamodb_code


class ConfigurationError(LedgerError):
    code = "configuration"
