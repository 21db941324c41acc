"""Posts operations: know the account, plan, write one transaction, and read from its failure what
came between.

No AWS and no HTTP. Time, sleep and chance are arguments, so that a test can hold them still.
"""

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from random import SystemRandom
from secrets import token_hex
from typing import TypeVar

from ledger_core.account import Account, Mark
from ledger_core.dynamodb import Cancelled, LedgerStore
from ledger_core.errors import (
    ContentionError,
    LedgerError,
    RequestState,
    StoreError,
    UnavailableError,
    UnknownOperationError,
)
from ledger_core.models import LedgerEntry, OperationRequest
from ledger_core.observability import current_request_metrics
from ledger_core.operations import BaseLedgerOperations, OperationConfig
from ledger_core.posting.batch import Attempt, Batch, Pending
from ledger_core.posting.known_accounts import KnownAccounts
from ledger_core.posting.plan import GroupPlan, Posting, duplicate_of, make_plan, plan_group
from ledger_core.posting.retry import RetryBudget

__all__ = ["ACCOUNTS_MAX", "TIMEOUT_SECONDS", "TOKEN_BYTES", "OperationProcessor"]

TIMEOUT_SECONDS = 10.0
"""How long a caller waits that gives no time."""
ACCOUNTS_MAX = 4096
"""Accounts that a process remembers."""
TOKEN_BYTES = 16
"""A token of DynamoDB has 36 characters at most, and two for each of these."""
TOKEN_SECONDS_MAX = 540.0
"""How long after its first try a transaction may be sent again. DynamoDB knows its token for ten
minutes, of which some pass on the way; after that it would be another transaction."""

T = TypeVar("T")

_SYSTEM_RANDOM = SystemRandom()


class OperationProcessor:
    """Posts an app's operations to owners' accounts.

    Threads may share it, and processes need not know of each other: DynamoDB's conditions decide
    who was first.

    Args:
        store: where the accounts are.
        operations: the app's operations.
        clock: the time that entries get; UTC. By default the machine's, which has to agree with
            DynamoDB's. It may raise UnavailableError when it is not sure.
        monotonic: seconds on a clock that never goes back, for deadlines.
        sleep: waits for some seconds.
        random: chance in [0, 1), for jitter; of the system by default, so that copies of a process
            do not move in step.
    """

    def __init__(
        self,
        store: LedgerStore,
        operations: type[BaseLedgerOperations],
        *,
        clock: Callable[[], datetime] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        random: Callable[[], float] = _SYSTEM_RANDOM.random,
    ) -> None:
        self.store = store
        self.operations = operations.get_operation_config()
        self.app = operations.APP
        self._clock = clock or store.clock
        self._monotonic = monotonic
        self._sleep = sleep
        self._random = random
        self._configs = {str(name): config for name, config in self.operations.items()}
        self._known = KnownAccounts(ACCOUNTS_MAX)

    def config_of(self, operation: str) -> OperationConfig:
        """One operation's config.

        Raises:
            UnknownOperationError: the app has no such operation.
        """
        if operation not in self._configs:
            raise UnknownOperationError(f"operation: must be one of {', '.join(self._configs)}")
        return self._configs[operation]

    def process(
        self,
        request: OperationRequest,
        *,
        config: OperationConfig | None = None,
        mark: Mark | None = None,
        begins: bool = True,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> LedgerEntry:
        """Post one operation and return its entry, stored, with the balance moved.

        When it raises ContentionError or UnavailableError the entry may or may not be stored: the
        same request under the same nonce finds out, without harm.

        Args:
            request: what to post.
            config: what `config_of` returned for its operation, if the caller has asked already.
            mark: what to note on the account with it, as for a reward, unless a later period is
                noted there.
            begins: whether it may be the owner's first entry; not so for a reward.
            timeout_seconds: how long to keep trying. The first call is made however little time
                there is, no further one begins after it, and one that is under way then is waited
                for.

        Raises:
            UnknownOperationError: the app has no such operation.
            InvalidRequestError: the amount breaks the operation's bounds, the balance would exceed
                BALANCE_MAX, or it would be the first entry and may not.
            DuplicateNonceError: the owner has an entry under this nonce; it is in the error. Takes
                precedence over:
            InsufficientBalanceError: the balance would fall below zero; nothing is stored, the
                nonce is not spent.
            ContentionError: other writers moved this account until the time was up.
            UnavailableError: DynamoDB failed or throttled until the time was up, or the clock is
                off.
            StoreError: DynamoDB refused.
        """
        pending = self.accept(request, config=config, mark=mark, begins=begins)
        self.settle(pending, Batch(pendings=[pending]), self.budget(timeout_seconds))
        return pending.result()

    def accept(
        self,
        request: OperationRequest,
        *,
        config: OperationConfig | None = None,
        mark: Mark | None = None,
        begins: bool = True,
    ) -> Pending:
        """A pending request. Raises UnknownOperationError, InvalidRequestError."""
        if config is None:
            config = self.config_of(request.operation)
        return Pending(
            Posting.of(request, config, app=self.app, mark=mark, begins=begins),
            is_alone=mark is not None,
        )

    def settle(self, pending: Pending, batch: Batch, budget: RetryBudget) -> None:
        """Write the requests of a batch, one transaction after the other, until `pending` is
        settled.

        If the budget is spent before, it raises ContentionError or UnavailableError; the batch then
        keeps an attempt whose outcome is unknown.
        """
        metrics, races_lost, is_contended = current_request_metrics(), 0, False
        while not pending.is_settled:
            attempt = batch.unsettled_attempt() or self._next_attempt(
                batch, budget, consistent=is_contended
            )
            # A request was settled without a transaction, or the account is to be read.
            if attempt is None:
                continue
            batch.attempt = attempt
            # Until the attempt is settled, the account is not known.
            self._known.forget(attempt.change.before.key)
            try:
                cancelled = budget.call(partial(self._send, attempt))
            except StoreError as error:
                batch.attempt = None
                self._fail(attempt, error)
                continue
            batch.attempt = None
            if cancelled is None:
                self._known.remember(attempt.change.after)
                for done, entry in zip(attempt.pendings, attempt.change.entries, strict=True):
                    done.entry = entry
                continue
            self._answer_duplicates(attempt, cancelled)
            races_lost += cancelled.account is not None
            metrics.stale_heads += cancelled.account is not None
            self._known.remember(cancelled.account or attempt.change.before)
            if (races_lost > 1 or cancelled.busy) and not pending.is_settled:
                budget.pause(ContentionError("Other writers kept moving this owner's balance."))
                # The account is old by now: to read it costs less than to lose another transaction
                # by it.
                is_contended = True
                self._known.forget(attempt.change.before.key)

    def remembered(self, key: str) -> Account | None:
        """The account of a key as far as this process knows it; None if it does not."""
        return self._known.get(key)

    def budget(self, timeout_seconds: float) -> RetryBudget:
        """The retry budget of a request that takes several calls: their time is in common."""
        return RetryBudget.lasting(
            timeout_seconds, monotonic=self._monotonic, sleep=self._sleep, random=self._random
        )

    def _next_attempt(
        self, batch: Batch, budget: RetryBudget, *, consistent: bool
    ) -> Attempt | None:
        """The next transaction of a batch; None if a request was settled without one, or the
        account is to be read.

        Read eventually consistent: half a unit, and a stale account costs one retry. Under
        contention read strongly consistent.
        """
        group = batch.next_group()
        key = group[0].posting.account_key
        remembered = self.remembered(key)
        read = partial(self.store.account, key, consistent=consistent)
        account = remembered or budget.call(read, RequestState.CHECKING_BALANCE)
        try:
            now = self._clock()
        except UnavailableError:
            self._known.forget(key)
            if remembered:  # an answer of DynamoDB may show that the clock is right
                return None
            raise
        planned = self._plan(group, account, now) or self._confirm(group[0], now, budget)
        if planned is None:
            return None
        current_request_metrics().attempts += 1
        fitting = [pending for pending in group if pending.posting in planned.fitting]
        return Attempt(fitting, planned.change, token_hex(TOKEN_BYTES), budget.monotonic(), now)

    def _plan(self, group: Sequence[Pending], account: Account, now: datetime) -> GroupPlan | None:
        """What a group writes; None if not even its first request fits."""
        planned = plan_group([pending.posting for pending in group], account, now)
        for pending in group:
            if pending.posting not in planned.fitting:
                pending.is_alone = True
        return planned if planned.fitting else None

    def _confirm(self, pending: Pending, now: datetime, budget: RetryBudget) -> GroupPlan | None:
        """Refuse a request, but never from a remembered account, and never what was accepted
        before.

        Returns what it writes if it is possible after all.
        """
        posting = pending.posting
        look_up = partial(self.store.look_up, posting.account_key, posting.stored_nonce)
        try:
            entry, account = budget.call(look_up, RequestState.CHECKING_NONCE)
        except StoreError as error:
            pending.fail(error)
            return None
        self._known.remember(account)
        planned = duplicate_of(posting, entry) if entry else make_plan(posting, account, now)
        if isinstance(planned, LedgerError):
            pending.fail(planned)
            return None
        return GroupPlan(planned.changes[0], [posting])

    def _send(self, attempt: Attempt) -> Cancelled | None:
        """Send a transaction, each time under the same token; None once it is written."""
        if attempt.is_in_doubt and self._is_forgotten(attempt):
            return self._look_up(attempt)
        try:
            cancelled = self.store.transact([attempt.change], token=attempt.token)
        except (ContentionError, StoreError):
            raise
        except BaseException:  # no answer, or an interruption: it may have been written
            attempt.is_in_doubt = True
            raise
        if not cancelled:
            return None
        (reason,) = cancelled
        if reason.error:
            raise reason.error
        nonces = {entry.nonce for entry in attempt.change.entries}
        if reason.account is None and not any(entry.nonce in nonces for entry in reason.stored):
            raise reason.busy or StoreError(
                "DynamoDB cancelled a transaction for no reason that concerns it."
            )
        return reason

    def _is_forgotten(self, attempt: Attempt) -> bool:
        """Whether DynamoDB may have forgotten the token of an attempt."""
        if self._monotonic() - attempt.begun_at >= TOKEN_SECONDS_MAX:
            return True
        try:
            return abs((self._clock() - attempt.time).total_seconds()) >= TOKEN_SECONDS_MAX
        except UnavailableError:  # the clock was set, or the process was frozen
            return True

    def _look_up(self, attempt: Attempt) -> Cancelled | None:
        """The outcome of a transaction whose token may be forgotten: all of it was written, or
        nothing."""
        before = attempt.change.before
        first = attempt.change.entries[0]
        entry, account = self.store.look_up(before.key, first.stored_nonce)
        if entry and entry.hash == first.hash:
            return None
        for pending, lost in zip(attempt.pendings, attempt.change.entries, strict=True):
            pending.lost_hashes.add(lost.hash)
        moved = None if account.is_at(before) else account
        return Cancelled((entry,) if entry else (), moved)

    def _answer_duplicates(self, attempt: Attempt, cancelled: Cancelled) -> None:
        """Settle the requests of a cancelled transaction whose nonces have an entry."""
        stored = {entry.nonce: entry for entry in cancelled.stored}
        for pending, planned in zip(attempt.pendings, attempt.change.entries, strict=True):
            entry = stored.get(planned.nonce)
            if entry is None:
                continue
            # Under a token that DynamoDB knows it would not have been cancelled: another process
            # made the same entry.
            is_lost = (
                attempt.is_in_doubt and entry.hash == planned.hash and self._is_forgotten(attempt)
            )
            if is_lost or entry.hash in pending.lost_hashes:
                pending.entry = entry
            else:
                pending.fail(duplicate_of(pending.posting, entry))

    def _fail(self, attempt: Attempt, error: StoreError) -> None:
        # If the attempt may have succeeded, all of it fails. Otherwise each request is tried alone
        # to find the invalid one.
        is_final = attempt.is_in_doubt or len(attempt.pendings) == 1
        for pending in attempt.pendings:
            pending.is_alone = True
            if is_final:
                pending.fail(error)
