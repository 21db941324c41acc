"""What the client gets: entries, balances, audits, and refusals as our errors."""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from ledger_core.errors import (
    ContentionError,
    DuplicateNonceError,
    ForbiddenError,
    InsufficientBalanceError,
    InvalidRequestError,
    LedgerError,
    RequestState,
    TooLongError,
    UnauthorizedError,
    UnavailableError,
    UnknownFormatError,
    UnknownOperationError,
)
from ledger_core.fields import Instant
from ledger_core.models import LedgerEntry

__all__ = [
    "Balance",
    "Finding",
    "Page",
    "RefusedError",
    "Verification",
    "error_of",
    "original",
    "read",
]

CODES: Mapping[str, type[LedgerError]] = {
    kind.code: kind
    for kind in (
        ContentionError,
        DuplicateNonceError,
        ForbiddenError,
        InsufficientBalanceError,
        InvalidRequestError,
        TooLongError,
        UnauthorizedError,
        UnavailableError,
        UnknownFormatError,
        UnknownOperationError,
    )
}
CODELESS: Mapping[int, type[LedgerError]] = {
    401: UnauthorizedError,
    403: ForbiddenError,
    **dict.fromkeys((429, 500, 502, 503, 504), UnavailableError),
}
"""By status: what API Gateway answers by itself has no code."""
STATES: Mapping[str, RequestState] = {str(state): state for state in RequestState}


class RefusedError(LedgerError):
    """Any other refusal, an app's own for example; `problem` is the whole problem document."""

    code = "refused"

    def __init__(
        self,
        message: str,
        *,
        http_status: int,
        problem: Mapping[str, Any],
        state: RequestState | None = None,
    ) -> None:
        super().__init__(message, state=state)
        self.http_status = http_status
        self.problem = problem


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)  # fields that a later version adds are ignored


class Balance(_Answer):
    """What an owner has in `unit` after `entry_count` entries, the last of them at `updated_at`."""

    owner_id: str
    unit: str
    balance: int
    entry_count: int
    updated_at: Instant | None


class Finding(_Answer):
    """What was done to the entries `first_id` to `last_id`; both are null when it has no id."""

    kind: str
    first_id: int | None
    last_id: int | None
    detail: str


class Verification(_Answer):
    """Whether the entries of an account give its balance, and what was done to them if not."""

    owner_id: str
    unit: str
    valid: bool
    entries_checked: int
    findings: tuple[Finding, ...]


class Page(_Answer):
    """One page of a history."""

    entries: tuple[LedgerEntry, ...]
    next_cursor: str | None


AnyModel = TypeVar("AnyModel", bound=BaseModel)


def read(kind: type[AnyModel], response: httpx.Response) -> AnyModel:
    """The model that an answer is.

    Raises:
        UnavailableError: another server answered, or a ledger of a later version.
    """
    try:
        return kind.model_validate_json(response.content)
    except ValidationError:
        raise UnavailableError(
            f"answer: cannot be read as {kind.__name__}; check base_url, or update shared-ledger"
        ) from None


def original(error: DuplicateNonceError) -> LedgerEntry:
    """The entry that the same request made before.

    Raises:
        DuplicateNonceError: a different request made it, or the token may not read it.
    """
    if error.replay and hasattr(error, "entry"):
        return error.entry
    raise error


def error_of(response: httpx.Response) -> LedgerError:
    """The error that a refusal is."""
    problem = _problem(response)
    status = response.status_code
    message = str(problem.get("detail") or problem.get("message") or f"HTTP status {status}")
    kind = CODES.get(str(problem["code"])) if "code" in problem else CODELESS.get(status)
    state = STATES.get(str(problem.get("state")))
    if kind is None:
        return RefusedError(message, http_status=status, problem=problem, state=state)
    if kind is DuplicateNonceError:
        return _duplicate(message, problem)
    if kind is InsufficientBalanceError:
        return _insufficient(message, problem)
    return kind(message, state=state)


def _duplicate(message: str, problem: Mapping[str, Any]) -> LedgerError:
    replay = problem.get("replay") is True
    try:
        entry = LedgerEntry.model_validate(problem.get("entry"))
    except ValidationError:
        return _undetailed(DuplicateNonceError, message, replay=replay)
    return DuplicateNonceError(entry=entry, replay=replay)


def _insufficient(message: str, problem: Mapping[str, Any]) -> LedgerError:
    known = {name: problem[name] for name in ("balance", "required") if name in problem}
    if len(known) == 2:
        return InsufficientBalanceError(**known)
    return _undetailed(InsufficientBalanceError, message, **known)


def _undetailed(kind: type[LedgerError], message: str, **known: Any) -> LedgerError:
    """An error that lacks the attributes that the token may not read."""
    error = kind.__new__(kind, message)
    vars(error).update(known)
    return error


def _problem(response: httpx.Response) -> Mapping[str, Any]:
    try:
        problem = json.loads(response.content)
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}
