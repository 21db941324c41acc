"""Where the sweep of a segment stands, and what came of it so far."""

import logging
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field

from ledger_core.account import Account
from ledger_core.errors import InsufficientBalanceError, InvalidRequestError, LedgerError
from ledger_core.fields import Instant, owner_hash
from ledger_core.observability import RequestMetrics
from ledger_core.rewards.scheduled_operation import Reward

__all__ = ["POSTPONED_MAX", "SEGMENTS_MAX", "Outcome", "Segment", "Tally"]

SEGMENTS_MAX = 1000
"""Parts that a sweep may be divided into."""
POSTPONED_MAX = 400
"""Owners that a segment may set aside for later: as many as a message of SQS holds, whatever their
ids."""

logger = logging.getLogger(__name__)


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

    def add_metrics(self, metrics: RequestMetrics) -> None:
        """Take in what requests to DynamoDB used."""
        self.dynamodb_requests += metrics.dynamodb_requests
        self.read_units += metrics.read_units
        self.write_units += metrics.write_units


@dataclass
class Outcome:
    """What became of some owners."""

    tally: Tally = field(default_factory=Tally)
    postponed: list[str] = field(default_factory=list)
    """Owners that are tried again later."""
    complete: bool = True
    """Whether all were seen to before the time was up."""

    def refuse(self, account: Account, refusal: LedgerError) -> None:
        """Count an owner whose account cannot take the reward."""
        if not account.entry_count or isinstance(refusal, InsufficientBalanceError):
            self.tally.skipped += 1
        else:
            self.fail(account.owner_id, refusal)

    def fail(self, owner_id: str, error: Exception) -> None:
        """Count, and log, an owner that cannot be written to."""
        self.tally.failed += 1
        logger.error("owner %s gets no reward: %s", owner_hash(owner_id), error)


class Segment(BaseModel):
    """One part of the sweep for one reward, and where it stands: all that anybody needs to go on
    with it."""

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
    """Whether the end was reached; postponed owners may be left."""
    postponed: list[str] = []
    """Owners who were postponed, because others kept writing to their ledgers, or DynamoDB
    throttled."""
    tally: Tally = Tally()
    met_again: Annotated[int, Field(ge=0)] = 0
    """Owners of an unfinished page who were granted it and are counted. The next worker reads that
    page again, and finds that so many have it already."""

    @classmethod
    def all_of(cls, reward: Reward, segments: int, started_at: datetime) -> list[Self]:
        """The parts of a sweep that begins, each far from the ones before and after it.

        Parts that lie side by side are on the same partition of the table, which takes 1,000 write
        units a second, so those that are worked on at the same time should not.

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
        """Take in what became of some owners, each once however often their page is read; gives
        what that adds."""
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
        return self.start, self.scanned, sorted(self.postponed), self.tally.granted

    @property
    def finished(self) -> bool:
        """Whether every owner of it has been seen to."""
        return self.scanned and not self.postponed
