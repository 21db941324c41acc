"""How one owner's line is written: what goes into a transaction, what is sent again, what came of each operation."""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from secrets import token_hex

from ledger_core.account import Head, entry_after
from ledger_core.dynamodb import Cancelled, LedgerStore
from ledger_core.errors import (
    ContentionError,
    DuplicateNonceError,
    InsufficientBalanceError,
    InvalidRequestError,
    RequestState,
    StoreError,
    UnavailableError,
)
from ledger_core.fields import BALANCE_MAX
from ledger_core.models import LedgerEntry
from ledger_core.observability import current_request_metrics
from ledger_core.posting.lanes import Lane, Ticket, Transaction
from ledger_core.posting.retry import RetryBudget

__all__ = ["LaneWriter"]


TOKEN_BYTES = 16
"""A token of DynamoDB's has 36 characters at most, and two for each of these."""
TOKEN_SECONDS_MAX = 540.0
"""How long after its first try a transaction may be sent again. DynamoDB knows its token for ten minutes, of which some
pass on the way; after that it would be another transaction."""


class LaneWriter:
    """Writes what waits in a lane. Its caller holds the lane's lock.

    Args:
        store: where the ledgers are.
        clock: the time that entries get; UTC. It may raise UnavailableError when it is not sure.
    """

    def __init__(self, store: LedgerStore, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock

    def write_until_settled(self, ticket: Ticket, patience: RetryBudget) -> None:
        """Write for all in the lane, one transaction after the other, as long as it is this ticket's turn."""
        lane, losses, paused, usage = ticket.lane, 0, False, current_request_metrics()
        while not ticket.is_settled:
            transaction = lane.doubtful() or self._next_transaction(lane, patience, contended=paused)
            if transaction is None:
                continue
            try:
                cancelled = self._send(lane, transaction, patience)
            except StoreError as error:
                # What may have been done is not tried under another token. Else one of them may be to blame.
                final = transaction.in_doubt or len(transaction.tickets) == 1
                for one in transaction.tickets:
                    one.alone = True
                    if final:
                        one.error = error
                continue
            if cancelled is None:
                continue
            losses += cancelled.head is not None
            usage.stale_heads += cancelled.head is not None
            if (losses > 1 or cancelled.contended) and not ticket.is_settled:
                patience.pause(ContentionError("Other writers kept moving this owner's balance."))
                # The head is old by now: to read it anew costs less than to lose another transaction by it.
                paused, lane.head = True, None

    def _next_transaction(self, lane: Lane, patience: RetryBudget, *, contended: bool) -> Transaction | None:
        """What comes next in the lane, computed from its head; None if it is settled without.

        A head that is a little old costs one more try, and half a read unit; where many write, it has to be the last.
        """
        read = partial(self._store.head, lane.owner_id, consistent=contended)
        remembered = lane.head
        head = lane.head = remembered or patience.retry(read, RequestState.CHECKING_BALANCE)
        tickets = lane.next()
        if len(tickets) == 1 and not tickets[0].fits(head):
            try:
                head = self._refuse_unless_moved(lane, tickets[0], patience)
            except (DuplicateNonceError, InsufficientBalanceError, InvalidRequestError, StoreError) as refusal:
                tickets[0].error = refusal
                return None
        try:
            now = self._clock()
        except UnavailableError:
            lane.head = None  # for an answer to come before the next try
            if remembered:
                return None
            raise
        at, entries, fitting = head, [], []
        for ticket in tickets:
            if ticket.fits(at):
                entries.append(entry_after(at, ticket.request, amount=ticket.amount, now=now))
                fitting.append(ticket)
                at = Head.at(entries[-1])
            else:  # it may fit after them, and if not it is refused for what is stored
                ticket.alone = True
        current_request_metrics().attempts += bool(entries)
        if not entries:
            return None
        return Transaction(fitting, entries, head, token_hex(TOKEN_BYTES), patience.monotonic(), now)

    def _send(self, lane: Lane, transaction: Transaction, patience: RetryBudget) -> Cancelled | None:
        """Write, and settle what is known then. If it fails, the lane keeps the transaction for the next caller."""
        tickets, entries = transaction.tickets, transaction.entries
        lane.head = None  # not known while the transaction is under way
        lane.transaction = transaction
        try:
            cancelled = patience.retry(partial(self._append, transaction, patience), RequestState.PROCESSING)
        except StoreError:
            lane.transaction = None
            raise
        lane.transaction = None
        if cancelled is None:
            lane.head = Head.at(entries[-1])
            for ticket, written in zip(tickets, entries, strict=True):
                ticket.entry = written
            return None
        lane.head = cancelled.head or transaction.head
        stored = {entry.nonce: entry for entry in cancelled.stored}
        for ticket in tickets:
            if ticket.mark and ticket.mark.is_overtaken(cancelled.marks):
                ticket.mark = None
            if entry := stored.get(ticket.request.nonce):
                sent = ticket.sent.get(entry.hash)
                # Under a token that is known it would not have been cancelled: another process made the same entry.
                if sent and self._is_forgotten(sent, patience):
                    ticket.entry = entry
                else:
                    ticket.error = self._duplicate(entry, ticket)
        return cancelled

    def _append(self, transaction: Transaction, patience: RetryBudget) -> Cancelled | None:
        # One token for every try of this transaction: if an answer is lost, the next one tells what came of it.
        if transaction.in_doubt and self._is_forgotten(transaction, patience):
            return self._look_up(transaction)
        head, token, (mark,) = transaction.head, transaction.token, {ticket.mark for ticket in transaction.tickets}
        try:
            return self._store.append(transaction.entries, head=head, token=token, mark=mark)
        except UnavailableError:
            transaction.doubt()
            raise

    def _is_forgotten(self, transaction: Transaction, patience: RetryBudget) -> bool:
        """Whether DynamoDB may no more know the token of a transaction."""
        if patience.monotonic() - transaction.begun_at >= TOKEN_SECONDS_MAX:
            return True
        try:
            return abs((self._clock() - transaction.time).total_seconds()) >= TOKEN_SECONDS_MAX
        except UnavailableError:  # the clock was set, or the process was frozen
            return True

    def _look_up(self, transaction: Transaction) -> Cancelled | None:
        """What came of a transaction whose token DynamoDB may know no more: all of it was done, or nothing."""
        first = transaction.entries[0]
        entry, head = self._store.look_up(first.owner_id, first.nonce)
        if entry and entry.hash == first.hash:
            return None
        moved = head if head != transaction.head else None
        return Cancelled((entry,) if entry else (), moved, contended=False)

    def _refuse_unless_moved(self, lane: Lane, ticket: Ticket, patience: RetryBudget) -> Head:
        """Refuse for the balance's sake, but on the strength of a fresh one, and never what was accepted before.

        Returns the fresh head when the operation is possible after all.
        """
        request, amount = ticket.request, ticket.amount
        entry, head = patience.retry(
            partial(self._store.look_up, request.owner_id, request.nonce), RequestState.CHECKING_NONCE
        )
        lane.head = head
        if entry is not None:
            raise self._duplicate(entry, ticket)
        if not (ticket.begins or head.entry_count):
            raise InvalidRequestError("owner_id: has no ledger, and this operation begins none")
        if head.balance + amount < 0:
            raise InsufficientBalanceError(balance=head.balance, required=-amount)
        if head.balance + amount > BALANCE_MAX:
            detail = f"amount: the balance is {head.balance} and cannot exceed {BALANCE_MAX}"
            raise InvalidRequestError(detail, state=RequestState.CHECKING_BALANCE)
        return head

    def _duplicate(self, entry: LedgerEntry, ticket: Ticket) -> DuplicateNonceError:
        # An amount that the app has fixed it may have changed since: the request is the same.
        amount = entry.amount if ticket.is_fixed else ticket.amount
        return DuplicateNonceError(entry=entry, replay=entry.answers(ticket.request, amount=amount))
