"""What a schedule posts to every eligible owner, once in a period.

An owner gets it under a nonce that the period makes (`ledger:daily-reward:2026-11-22`), so it may be tried any number
of times. A mark on the balance, set in the same transaction, spares later sweeps the try.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Self

from ledger_core.account import Head, Mark, entry_after
from ledger_core.errors import UnknownOperationError
from ledger_core.fields import NONCE_PREFIX_RESERVED
from ledger_core.models import LedgerEntry, OperationRequest
from ledger_core.operations import BaseLedgerOperations, Eligible
from ledger_core.periods import Period

__all__ = ["Reward"]


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
        return entry_after(head, self.request(head.owner_id), amount=self.amount, now=now)

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
