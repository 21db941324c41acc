"""What a schedule posts to every eligible owner, once in a period.

An owner gets it under a nonce that the period makes (`ledger:daily-reward:2026-11-22`), so it may
be tried any number of times. A mark on the balance, set in the same transaction, spares later
sweeps the try.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from ledger_core.account import Account, Mark
from ledger_core.errors import UnknownOperationError
from ledger_core.fields import NONCE_PREFIX_RESERVED
from ledger_core.keys import CREDIT, account_key
from ledger_core.models import OperationRequest
from ledger_core.operations import BaseLedgerOperations, Eligible
from ledger_core.periods import Period
from ledger_core.posting import Posting

__all__ = ["Reward"]


@dataclass(frozen=True)
class Reward:
    """What is posted to every eligible owner once in a period."""

    operation: StrEnum
    amount: int
    eligible: Eligible
    period: Period
    unit: str = CREDIT
    app: str | None = None
    is_shared: bool = True
    """Whether every app has the operation, so that an owner gets it once whichever app posts it."""

    @classmethod
    def of(cls, operations: type[BaseLedgerOperations], operation: str, period: Period) -> Self:
        """The reward that an app's operations describe.

        Raises:
            UnknownOperationError: the app does not let a schedule post this operation.
        """
        by_name = {str(name): (name, eligible) for name, eligible in operations.SCHEDULED.items()}
        if operation not in by_name:
            raise UnknownOperationError(
                f"operation: must be one that may be scheduled, {', '.join(by_name)}"
            )
        name, eligible = by_name[operation]
        config = operations.get_operation_config()[name]
        return cls(
            name,
            config.amount,
            eligible,
            period,
            unit=config.unit,
            app=operations.APP,
            is_shared=name in BaseLedgerOperations.BASE_CONFIG,
        )

    @property
    def nonce(self) -> str:
        """The nonce that each owner gets it under, once for ever; see `ledger_core.keys`."""
        name = self.operation.lower().replace("_", "-")
        owned = f"@{self.app}:" if self._is_owned else ""
        return f"{NONCE_PREFIX_RESERVED}{owned}{name}:{self.period}"

    def request(self, owner_id: str) -> OperationRequest:
        """The operation for one owner. Its nonce is one that callers are refused, so it is not
        validated."""
        return OperationRequest.model_construct(
            owner_id=owner_id, operation=self.operation, nonce=self.nonce
        )

    def posting(self, owner_id: str) -> Posting:
        """What is posted to one owner: never as the first entry, and no sign of life."""
        return Posting(
            self.request(owner_id),
            self.amount,
            is_fixed=True,
            mark=self.mark,
            begins=False,
            is_active=False,
            unit=self.unit,
            app=self.app,
        )

    def account_key(self, owner_id: str) -> str:
        """The key of the account in which an owner gets it."""
        return account_key(owner_id, self.unit)

    @property
    def mark(self) -> Mark:
        """What is noted on an account that has it: days, weeks and months each have a mark of their
        own."""
        owned = f"{self.app}:" if self._is_owned else ""
        return Mark(f"{owned}{self.operation}:{self.period.kind}", str(self.period))

    @property
    def _is_owned(self) -> bool:
        """Whether it is an operation that only this app has."""
        return self.app is not None and not self.is_shared

    def is_marked(self, account: Account) -> bool:
        """Whether the marks of an account show that the owner has it."""
        return account.marks.get(self.mark.name) == self.mark.period

    def is_overtaken(self, account: Account) -> bool:
        """Whether the mark is of a later period, and so does not show it."""
        return self.mark.is_overtaken(account.marks)
