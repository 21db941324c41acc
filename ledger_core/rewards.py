"""Which owners get what a schedule posts, and once only: a reward, and where the sweep of a segment stands.

An owner gets it under a nonce that the period makes (`ledger:daily-reward:2026-11-22`), so it may be tried any number
of times. A mark on the balance, set in the same transaction, spares later sweeps the try.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field

from ledger_core.errors import InvalidRequestError, UnknownOperationError
from ledger_core.items import Mark
from ledger_core.models import (
    BALANCE_MAX,
    NONCE_PREFIX_RESERVED,
    Head,
    Instant,
    LedgerEntry,
    OperationRequest,
    owner_hash,
)
from ledger_core.operations import BaseLedgerOperations, Eligible
from ledger_core.periods import Period
from ledger_core.usage import Usage

__all__ = ["SEGMENTS_MAX", "STRAGGLERS_MAX", "Outcome", "Reward", "Segment", "Tally"]

SEGMENTS_MAX = 1000
"""Parts that a sweep may be divided into."""
STRAGGLERS_MAX = 400
"""Owners that a segment may set aside for later: as many as a message of SQS holds, whatever their ids."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reward:
    """What is posted to every eligible owner once in a period."""

    operation: StrEnum
    amount: int
    eligible: Eligible
    period: Period

    @classmethod
    def of(cls, operations: type[BaseLedgerOperations], operation: str, period: Period) -> Self:
        """The reward that an app's operations describe.

        Raises:
            UnknownOperationError: the app does not let a schedule post this operation.
        """
        by_name = {str(name): (name, eligible) for name, eligible in operations.SCHEDULED.items()}
        if operation not in by_name:
            raise UnknownOperationError(f"operation: must be one that may be scheduled, {', '.join(by_name)}")
        name, eligible = by_name[operation]
        return cls(name, operations.get_operation_config()[name].amount, eligible, period)

    @property
    def nonce(self) -> str:
        """What each owner gets it under, once for ever."""
        return f"{NONCE_PREFIX_RESERVED}{self.operation.lower().replace('_', '-')}:{self.period}"

    def request(self, owner_id: str) -> OperationRequest:
        """The operation for one owner. Its nonce is one that callers are refused, so it is not validated."""
        return OperationRequest.model_construct(owner_id=owner_id, operation=self.operation, nonce=self.nonce)

    def entry(self, head: Head, now: datetime) -> LedgerEntry:
        """The entry that it makes on top of `head`."""
        return LedgerEntry.after(head, self.request(head.owner_id), amount=self.amount, now=now)

    @property
    def mark_name(self) -> str:
        """Under what the last period is noted on a balance: days, weeks and months each for themselves."""
        return f"{self.operation}:{self.period.kind}"

    def is_marked(self, marks: Mapping[str, str]) -> bool:
        """Whether the marks of a balance tell that the owner has it."""
        return marks.get(self.mark_name) == str(self.period)

    def is_overtaken(self, marks: Mapping[str, str]) -> bool:
        """Whether the mark is of a later period, and so does not tell."""
        return Mark(self.mark_name, str(self.period)).is_overtaken(marks)

    def mark(self, marks: Mapping[str, str]) -> Mark | None:
        """What to note on a balance that has these marks; never an earlier period over a later one."""
        return None if self.is_overtaken(marks) else Mark(self.mark_name, str(self.period))


class Tally(BaseModel):
    """What a sweep has done: owners by what became of them, and what that took."""

    granted: int = 0
    already: int = 0
    """Had it before."""
    skipped: int = 0
    """Not eligible, or the balance is too low for an operation that takes credits."""
    failed: int = 0
    """Cannot get it until somebody mends their balance; each is in the log."""
    dynamodb_requests: int = 0
    read_units: float = 0.0
    write_units: float = 0.0
    seconds: float = 0.0
    """Time that workers spent."""

    @property
    def owners(self) -> int:
        """All that were seen."""
        return self.granted + self.already + self.skipped + self.failed

    @property
    def rewarded(self) -> int:
        """Owners who have it now."""
        return self.granted + self.already

    def add(self, other: "Tally") -> None:
        """Take another one in."""
        for name in type(self).model_fields:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def add_usage(self, usage: Usage) -> None:
        """Take in what requests to DynamoDB used."""
        self.dynamodb_requests += usage.dynamodb_requests
        self.read_units += usage.read_units
        self.write_units += usage.write_units


@dataclass
class Outcome:
    """What became of some owners."""

    tally: Tally = field(default_factory=Tally)
    stragglers: list[str] = field(default_factory=list)
    """Owners that were passed over for now."""
    complete: bool = True
    """Whether all were seen to before the time was up."""

    def admits(self, head: Head, reward: Reward) -> bool:
        """Whether the balance can take the reward; count the owner if not."""
        balance = head.balance + reward.amount
        if balance > BALANCE_MAX:
            self.fail(head.owner_id, InvalidRequestError(f"the balance cannot exceed {BALANCE_MAX}"))
        elif balance < 0:
            self.tally.skipped += 1
        return 0 <= balance <= BALANCE_MAX

    def fail(self, owner_id: str, error: Exception) -> None:
        """Count, and log, an owner that cannot be written to."""
        self.tally.failed += 1
        logger.error("owner %s gets no reward: %s", owner_hash(owner_id), error)


class Segment(BaseModel):
    """One part of the sweep for one reward, and where it stands: all that anybody needs to go on with it."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    operation: str
    period: str
    segment: Annotated[int, Field(ge=0)]
    segments: Annotated[int, Field(ge=1, le=SEGMENTS_MAX)]
    started_at: Instant
    """When the sweep began; the same for all its segments."""
    start: str | None = None
    """The owner after whom to go on; None: from the beginning."""
    scanned: bool = False
    """Whether the end was reached; stragglers may be left."""
    stragglers: list[str] = []
    """Owners who were passed over, because others kept writing to their ledgers, or DynamoDB throttled."""
    tally: Tally = Tally()
    met_again: Annotated[int, Field(ge=0)] = 0
    """Owners of an unfinished page who were granted it and are counted. The next worker reads that page again, and
    finds that so many have it already."""

    @classmethod
    def all_of(cls, reward: Reward, segments: int, started_at: datetime) -> list[Self]:
        """The parts of a sweep that begins, each far from the ones before and after it.

        Parts that lie side by side are on the same partition of the table, which takes 1,000 write units a second, so
        those that are worked on at the same time should not.

        Raises:
            InvalidRequestError: there are none, or too many.
        """
        if not 1 <= segments <= SEGMENTS_MAX:
            raise InvalidRequestError(f"segments: must be from 1 to {SEGMENTS_MAX}")
        return [
            cls(
                operation=str(reward.operation),
                period=str(reward.period),
                segment=number,
                segments=segments,
                started_at=started_at,
            )
            for number in sorted(range(segments), key=lambda number: f"{number:010b}"[::-1])
        ]

    def count(self, outcome: Outcome) -> Tally:
        """Take in what became of some owners, each once however often their page is read; gives what that adds."""
        tally = outcome.tally
        if outcome.complete:
            known = min(tally.already, self.met_again)
            tally.already -= known
            self.met_again -= known
        else:
            tally.already = tally.skipped = tally.failed = 0
            self.met_again += tally.granted
        self.tally.add(tally)
        return tally

    @property
    def place(self) -> tuple[Any, ...]:
        """What changes when a worker gets any further."""
        return self.start, self.scanned, sorted(self.stragglers), self.tally.granted

    @property
    def finished(self) -> bool:
        """Whether every owner of it has been seen to."""
        return self.scanned and not self.stragglers
