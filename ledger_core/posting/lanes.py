"""Where the operations of one owner wait for each other within a process, and are put together for one transaction.

A caller takes a ticket. The caller that holds the lane's lock writes for all that wait, so that a hot owner costs less,
not more. In Lambda, where a process has one request at a time, a ticket is alone in its lane.
"""

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ledger_core.account import Head, Mark
from ledger_core.dynamodb import ENTRIES_MAX
from ledger_core.errors import LedgerError
from ledger_core.fields import BALANCE_MAX
from ledger_core.models import LedgerEntry, OperationRequest

__all__ = ["Lane", "Ticket", "Transaction"]


@dataclass(eq=False, slots=True)
class Ticket:
    """An operation in a lane, and what came of it."""

    lane: "Lane"
    request: OperationRequest
    amount: int
    is_fixed: bool
    """Whether the amount is the app's, and not the caller's choice."""
    mark: Mark | None = None
    alone: bool = False
    """Whether it is written by itself: it has a mark, or did not fit beside others."""
    begins: bool = True
    """Whether it may be the owner's first entry."""
    sent: "dict[str, Transaction]" = field(default_factory=dict)
    """By the hash of its entry, each transaction of which it was not known, for a while at least, if it was done."""
    entry: LedgerEntry | None = None
    error: BaseException | None = None

    @property
    def is_settled(self) -> bool:
        """Whether it is known what came of it, or nobody wants to know any more."""
        return self.entry is not None or self.error is not None

    def fits(self, head: Head) -> bool:
        """Whether the balance may move by it."""
        return (self.begins or head.entry_count > 0) and 0 <= head.balance + self.amount <= BALANCE_MAX

    def outcome(self) -> LedgerEntry:
        """Its entry; raises what it failed with."""
        if self.error is not None:
            raise self.error
        assert self.entry is not None
        return self.entry

    def abandon(self, reason: LedgerError) -> None:
        """Wait for it no longer. If it is being written just now, it may come to be stored."""
        if not self.is_settled:
            self.error = reason


@dataclass(eq=False, slots=True)
class Transaction:
    """Entries on their way into the store, each for its ticket; sent again, it is the same by its token.

    DynamoDB forgets a token after a while: `begun_at`, on a clock that nobody sets, and `time`, on one that goes on
    while the process is frozen, tell whether it may be sent again.
    """

    tickets: Sequence[Ticket]
    entries: Sequence[LedgerEntry]
    head: Head
    token: str
    begun_at: float
    time: datetime
    in_doubt: bool = False
    """Whether a try of it had no answer, so that it may have been done."""

    def doubt(self) -> None:
        """Note that a try of it had no answer."""
        self.in_doubt = True
        for ticket, entry in zip(self.tickets, self.entries, strict=True):
            ticket.sent[entry.hash] = self


@dataclass(eq=False, slots=True)
class Lane:
    """One owner's line, and what its last transaction left behind. All but `tickets` is for who holds `lock`."""

    owner_id: str
    lock: threading.Lock
    head: Head | None = None
    tickets: deque[Ticket] = field(default_factory=deque)
    """Those that have just come; anybody may add one."""
    line: list[Ticket] = field(default_factory=list)
    transaction: Transaction | None = None
    """One of which it is not known whether it was done: that is found out before any other is sent."""

    def enter(self, ticket: Ticket) -> Ticket:
        self.tickets.append(ticket)
        return ticket

    def doubtful(self) -> Transaction | None:
        """The transaction to be settled first, if anybody still waits for it."""
        if self.transaction and all(ticket.is_settled for ticket in self.transaction.tickets):
            self.transaction = None
        return self.transaction

    def forget_settled(self) -> None:
        """Keep nothing of what is known to those who waited for it."""
        self.line = [ticket for ticket in self.line if not ticket.is_settled]

    def next(self) -> list[Ticket]:
        """The first in line, and those behind it that go into the same transaction: no two under one nonce."""
        while self.tickets:
            self.line.append(self.tickets.popleft())
        self.forget_settled()
        together: dict[str, Ticket] = {}
        for ticket in self.line:
            if ticket.alone or len(together) == ENTRIES_MAX:
                break
            together.setdefault(ticket.request.nonce, ticket)
        return list(together.values()) or self.line[:1]
