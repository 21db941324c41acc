"""What a request would write. It is decided here, and nowhere else, what may happen: no I/O, no
clock, no lock."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from ledger_core.account import Account, AccountChange, Mark
from ledger_core.errors import (
    DuplicateNonceError,
    InsufficientBalanceError,
    InvalidRequestError,
    LedgerError,
    RequestState,
)
from ledger_core.fields import BALANCE_MAX
from ledger_core.keys import CREDIT, account_key, stored_nonce
from ledger_core.models import LedgerEntry, OperationRequest
from ledger_core.operations import OperationConfig

__all__ = ["GroupPlan", "Plan", "Posting", "duplicate_of", "make_plan", "plan_group"]


# A group looks postings up; by identity that costs nothing.
@dataclass(frozen=True, eq=False, slots=True)
class Posting:
    """A request with what the app's configuration says of it."""

    request: OperationRequest
    amount: int
    """In credits, signed."""
    is_fixed: bool
    """Whether the app sets the amount, and not the caller."""
    mark: Mark | None = None
    """What to note on the account with it; not noted over a later period."""
    begins: bool = True
    """Whether it may be the account's first entry."""
    is_active: bool = True
    """Whether it is a sign of life of the owner; what a schedule posts is not."""
    unit: str = CREDIT
    app: str | None = None
    """The app that posts it; None: an app without a name."""

    @property
    def account_key(self) -> str:
        """The key of the account that it moves."""
        return account_key(self.request.owner_id, self.unit)

    @property
    def stored_nonce(self) -> str:
        """Its nonce as the key of its entry holds it."""
        return stored_nonce(self.request.nonce, self.app)

    @classmethod
    def of(
        cls,
        request: OperationRequest,
        config: OperationConfig,
        *,
        app: str | None = None,
        mark: Mark | None = None,
        begins: bool = True,
        is_active: bool = True,
    ) -> "Posting":
        """The posting of a request.

        Raises:
            InvalidRequestError: the amount breaks the operation's bounds.
        """
        amount = config.signed_amount(request.amount)
        is_fixed = config.magnitude_min is None
        return cls(request, amount, is_fixed, mark, begins, is_active, config.unit, app)


class Plan(NamedTuple):
    """The changes that one request makes. Its own entry is the last of the first change."""

    changes: tuple[AccountChange, ...]

    @property
    def entry(self) -> LedgerEntry:
        return self.changes[0].entries[-1]


class GroupPlan(NamedTuple):
    """The change that several postings make together, and which postings these are; the others do
    not fit."""

    change: AccountChange
    fitting: list[Posting]


def make_plan(posting: Posting, account: Account, created_at: datetime) -> Plan | LedgerError:
    """What a posting would write to an account, or why it may not.

    Args:
        posting: what to post. Whether its nonce was used is for the store to say, and takes
            precedence.
        account: the account as it stands.
        created_at: the time that the entry gets, unless the last entry's is not before it.
    """
    balance = account.balance + posting.amount
    if not posting.begins and not account.entry_count:
        return InvalidRequestError("owner_id: has no account, and this operation opens none")
    if balance < 0:
        return InsufficientBalanceError(balance=account.balance, required=-posting.amount)
    if balance > BALANCE_MAX:
        message = f"amount: the balance is {account.balance} and cannot exceed {BALANCE_MAX}"
        return InvalidRequestError(message, state=RequestState.CHECKING_BALANCE)
    mark = posting.mark
    if mark and mark.is_overtaken(account.marks):
        mark = None
    entry = account.next_entry(
        posting.request, amount=posting.amount, now=created_at, app=posting.app
    )
    after = account.after(entry, mark=mark, is_active=posting.is_active)
    return Plan((AccountChange((entry,), account, after),))


def plan_group(postings: Sequence[Posting], account: Account, created_at: datetime) -> GroupPlan:
    """What postings to one account would write together, each upon the one before; those that do
    not fit are left out.

    A posting that is left out may fit after the others, so it is not refused by this.
    """
    entries: list[LedgerEntry] = []
    fitting: list[Posting] = []
    after = account
    for posting in postings:
        planned = make_plan(posting, after, created_at)
        if isinstance(planned, Plan):
            entries.append(planned.entry)
            fitting.append(posting)
            after = planned.changes[0].after
    return GroupPlan(AccountChange(tuple(entries), account, after), fitting)


def duplicate_of(posting: Posting, entry: LedgerEntry) -> DuplicateNonceError:
    """The refusal of a posting whose nonce made `entry`."""
    # The app may have changed an amount that it sets since: the request is the same.
    amount = entry.amount if posting.is_fixed else posting.amount
    # An owner's nonces are the same in every app, but not what an app's operation means.
    is_same = entry.app == posting.app and entry.answers(posting.request, amount=amount)
    return DuplicateNonceError(entry=entry, replay=is_same)
