"""Requests to one account, and the transaction that is being written for them."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ledger_core.account import AccountChange
from ledger_core.dynamodb import ENTRIES_MAX
from ledger_core.models import LedgerEntry
from ledger_core.posting.plan import Posting

__all__ = ["Attempt", "Batch", "Pending"]


@dataclass(eq=False, slots=True)
class Pending:
    """A posting, and its outcome once there is one."""

    posting: Posting
    is_alone: bool = False
    """Whether it is written by itself: it has a mark, or did not fit beside others."""
    lost_hashes: set[str] = field(default_factory=set)
    """Of its entry in attempts that were given up although DynamoDB may still write them."""
    entry: LedgerEntry | None = None
    error: BaseException | None = None

    @property
    def is_settled(self) -> bool:
        """True once it succeeded, failed or was cancelled."""
        return self.entry is not None or self.error is not None

    def fail(self, error: BaseException) -> None:
        """Settle it with an error, unless it is settled."""
        if not self.is_settled:
            self.error = error

    def result(self) -> LedgerEntry:
        """Its entry; raises the error that it was settled with."""
        if self.error is not None:
            raise self.error
        assert self.entry is not None
        return self.entry


@dataclass(eq=False, slots=True)
class Attempt:
    """One transaction. Sent again under the same token, DynamoDB writes it once only.

    DynamoDB forgets a token after ten minutes. `begun_at` is on a clock that nobody sets, `time` on
    one that goes on while the process is frozen.
    """

    pendings: Sequence[Pending]
    change: AccountChange
    token: str
    begun_at: float
    time: datetime
    is_in_doubt: bool = False
    """Whether a try of it had no answer, so that it may have been written."""


@dataclass(eq=False, slots=True)
class Batch:
    """The pending requests of one account, in the order in which they came. Any thread may add to
    `arrivals`."""

    arrivals: deque[Pending] = field(default_factory=deque)
    pendings: list[Pending] = field(default_factory=list)
    attempt: Attempt | None = None
    """An attempt whose outcome is unknown: it is settled before anything else is sent."""

    def unsettled_attempt(self) -> Attempt | None:
        """The attempt to settle first, if a caller still waits for it."""
        if self.attempt and all(pending.is_settled for pending in self.attempt.pendings):
            self.attempt = None
        return self.attempt

    def next_group(self) -> list[Pending]:
        """The first pending request, and those behind it that may share its transaction: each has
        its own nonce."""
        while self.arrivals:
            self.pendings.append(self.arrivals.popleft())
        self.pendings = [pending for pending in self.pendings if not pending.is_settled]
        group: dict[str, Pending] = {}
        for pending in self.pendings:
            if pending.is_alone or len(group) == ENTRIES_MAX:
                break
            group.setdefault(pending.posting.request.nonce, pending)
        return list(group.values()) or self.pendings[:1]
