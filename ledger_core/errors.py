"""Every way the ledger says no. Programs switch on `code`; people read the message and the state.

LedgerError                   code                  status  raised when
├── InvalidRequestError       invalid               422     a field, limit or rule is broken
├── UnknownOperationError     unknown_operation     422     the app has no such operation
├── DuplicateNonceError       duplicate_nonce       409     the owner has used this nonce
├── InsufficientBalanceError  insufficient_balance  402     the balance would be below zero
├── UnauthorizedError         unauthorized          401     the caller is unknown
├── ForbiddenError            forbidden             403     the caller may not do this
├── ContentionError           contention            503     other writers kept winning
├── UnavailableError          unavailable           503     DynamoDB throttled or was slow
├── TooLongError              too_long              422     it is too long to verify in time
├── StoreError                internal              500     a table or permission is missing
│   └── UnknownFormatError    unknown_format        501     a newer version wrote this
└── ConfigurationError        (at start only)       500     a setting or operation is wrong

`status` is the status of the HTTP answer. An app may derive errors with a code and a status of its
own; see `LedgerError`.
"""

from enum import StrEnum
from typing import ClassVar, Self

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
    "UnknownFormatError",
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
    """The root of all errors. An app may derive its own:

        class OutOfStockError(LedgerError):
            code = "out_of_stock"
            status = 409

    The API answers `raise OutOfStockError("There are no swords left.")` with status 409, this code,
    its state, and the message as `detail`. A status of 500 marks a fault: the message goes to the
    log, and the client learns only that the ledger failed.

    Args:
        message: for people.
        state: where the request was; by default the `state` of the class.
    """

    code: ClassVar[str] = "internal"
    """Stable, for programs."""
    status: ClassVar[int] = 500
    """Of the HTTP answer."""
    state: RequestState = RequestState.PROCESSING

    def __init__(self, message: str = "", *, state: RequestState | None = None) -> None:
        super().__init__(message)
        if state is not None:
            self.state = state

    def in_state(self, state: RequestState) -> Self:
        """A copy of this error for a request that was in `state`."""
        copy = type(self).__new__(type(self), *self.args)
        copy.__dict__.update(self.__dict__, state=state)
        copy.__cause__ = self.__cause__
        return copy.with_traceback(self.__traceback__)


class InvalidRequestError(LedgerError):
    code = "invalid"
    status = 422
    state = RequestState.VALIDATING


class UnknownOperationError(LedgerError):
    code = "unknown_operation"
    status = 422
    state = RequestState.VALIDATING


class DuplicateNonceError(LedgerError):
    """`entry` is the original; `replay` says whether this request asked for what made it."""

    code = "duplicate_nonce"
    status = 409
    state = RequestState.CHECKING_NONCE

    def __init__(self, *, entry: LedgerEntry, replay: bool) -> None:
        same = "the same request" if replay else "a different request"
        super().__init__(f"The nonce was used by entry {entry.id}, for {same}.")
        self.entry = entry
        self.replay = replay


class InsufficientBalanceError(LedgerError):
    """`balance` is what the owner has, `required` what the operation takes; neither is negative."""

    code = "insufficient_balance"
    status = 402
    state = RequestState.CHECKING_BALANCE

    def __init__(self, *, balance: int, required: int) -> None:
        super().__init__(f"The operation takes {required} credits and the balance is {balance}.")
        self.balance = balance
        self.required = required


class UnauthorizedError(LedgerError):
    code = "unauthorized"
    status = 401
    state = RequestState.RECEIVED


class ForbiddenError(LedgerError):
    code = "forbidden"
    status = 403
    state = RequestState.RECEIVED


class ContentionError(LedgerError):
    code = "contention"
    status = 503


class UnavailableError(LedgerError):
    code = "unavailable"
    status = 503


class TooLongError(LedgerError):
    code = "too_long"
    status = 422


class StoreError(LedgerError):
    """Its message goes to the log only. `dynamodb_code` is None when a stored item is malformed."""

    code = "internal"
    status = 500

    def __init__(
        self,
        message: str,
        *,
        dynamodb_code: str | None = None,
        state: RequestState | None = None,
    ) -> None:
        super().__init__(message, state=state)
        self.dynamodb_code = dynamodb_code


class UnknownFormatError(StoreError):
    """An entry or an account has a version or an attribute that this version of the ledger does not
    know."""

    code = "unknown_format"
    status = 501


class ConfigurationError(LedgerError):
    code = "configuration"
    status = 500
