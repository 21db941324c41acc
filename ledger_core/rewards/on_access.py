"""A reward at the first touch: an owner who calls gets the period's reward at once, whether or not
a sweep runs too.

Nonce and mark are the sweep's own, so whichever comes first grants it and the other finds it
granted.
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

from ledger_core.account import Account
from ledger_core.errors import DuplicateNonceError, InsufficientBalanceError, InvalidRequestError
from ledger_core.fields import owner_hash
from ledger_core.models import LedgerEntry
from ledger_core.operations import BaseLedgerOperations, LedgerOperationType
from ledger_core.periods import Period, PeriodKind
from ledger_core.posting import ACCOUNTS_MAX, TIMEOUT_SECONDS, OperationProcessor, RetryBudget
from ledger_core.rewards.scheduled_operation import Reward

__all__ = ["GrantOnAccess"]

logger = logging.getLogger(__name__)


class _Seen(NamedTuple):
    """An owner about whom nobody needs to be asked again."""

    nonce: str
    """The reward's."""
    entry_count: int | None
    """How many entries an owner has who is not eligible; None: the owner has the reward."""


class GrantOnAccess:
    """Grants a scheduled operation to owners as they come.

    Args:
        processor: posts the operation.
        operations: the app's operations; its `SCHEDULED` says which owners are eligible.
        operation: which of them.
        kind: once a day, week or month.
        time_zone: periods begin by the calendar of this zone; the schedule's.
        clock: the time; UTC.
    """

    def __init__(
        self,
        processor: OperationProcessor,
        operations: type[BaseLedgerOperations],
        *,
        operation: str = LedgerOperationType.DAILY_REWARD,
        kind: PeriodKind = PeriodKind.DAY,
        time_zone: str = "UTC",
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._processor = processor
        self._reward: Callable[[], Reward] = lambda: Reward.of(
            operations, operation, Period.at(kind, clock(), time_zone)
        )
        # fails here rather than at the first request when there is no such operation or zone
        self._reward()
        self._seen: dict[str, _Seen] = {}
        """By the key of the account."""

    def touch(
        self, owner_id: str, *, timeout_seconds: float = TIMEOUT_SECONDS
    ) -> LedgerEntry | None:
        """Grant the present period's reward if the owner has it not and is eligible; its entry,
        None if there is none.

        One read, the first time in a period that this process meets the owner, and one write if it
        is granted. Who is not eligible is not asked about again before this process knows of a
        further entry of theirs. It does not fail: what cannot be granted now is granted at the next
        touch, or by the sweep.
        """
        reward = self._reward()
        key = reward.account_key(owner_id)
        if self._is_settled(key, reward):
            return None
        try:
            return self._grant(reward, owner_id, self._processor.budget(timeout_seconds))
        except DuplicateNonceError:
            self._remember(key, reward)
        except (
            Exception
        ) as error:  # the app's rule may fail on an owner, and the request is about something else
            logger.warning("owner %s gets no reward at this touch: %s", owner_hash(owner_id), error)
        return None

    def has_nothing_for(self, owner_id: str) -> bool:
        """True if a touch has nothing to grant, as far as this process knows."""
        reward = self._reward()
        return self._is_settled(reward.account_key(owner_id), reward)

    def saw(self, account: Account) -> None:
        """Note how many entries an account has: who was not eligible with fewer is asked about at
        the next touch."""
        seen = self._seen.get(account.key)
        if seen and seen.entry_count is not None and seen.entry_count < account.entry_count:
            self._seen.pop(account.key, None)

    def _is_settled(self, key: str, reward: Reward) -> bool:
        seen = self._seen.get(key)
        if seen and seen.entry_count is not None and (account := self._processor.remembered(key)):
            self.saw(account)
            seen = self._seen.get(key)
        return seen is not None and seen.nonce == reward.nonce

    def _grant(self, reward: Reward, owner_id: str, budget: RetryBudget) -> LedgerEntry | None:
        key = reward.account_key(owner_id)
        account = budget.call(partial(self._processor.store.account, key, consistent=False))
        if reward.is_marked(account):
            self._remember(key, reward)
        elif account.entry_count and reward.eligible(account, reward.period.first_day):
            request = reward.request(owner_id)
            seconds = budget.seconds_left
            try:
                entry = self._processor.process(
                    request, mark=reward.mark, begins=False, timeout_seconds=seconds
                )
            # The balance cannot take it, or the account is gone.
            except (InsufficientBalanceError, InvalidRequestError):
                self._remember(key, reward, self._processor.remembered(key) or account)
            else:
                self._remember(key, reward)
                return entry
        else:
            self._remember(key, reward, account)
        return None

    def _remember(self, key: str, reward: Reward, account: Account | None = None) -> None:
        """That there is nothing to do in the period; with an `account`, for as long as no entry
        follows it."""
        if len(self._seen) >= ACCOUNTS_MAX:
            self._seen.clear()
        self._seen[key] = _Seen(reward.nonce, account.entry_count if account else None)
