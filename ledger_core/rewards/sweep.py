"""The sweep of a segment: page after page of owners, sorted into who has the reward, who is to get
it and who is not.

No AWS, no HTTP. It may die at any moment, be repeated, or run beside another one and beside the
owners' own writers.
"""

import time
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from random import SystemRandom

from ledger_core.account import Account
from ledger_core.dynamodb import LOOK_UPS_MAX, Page, SweepStore
from ledger_core.errors import ContentionError, LedgerError, StoreError, UnavailableError
from ledger_core.keys import split_account_key
from ledger_core.observability import measure_request
from ledger_core.posting import RetryBudget, make_plan
from ledger_core.rewards.batch_writer import TRANSACTIONS_MAX, BatchWriter
from ledger_core.rewards.progress import POSTPONED_MAX, Outcome, Segment, Tally
from ledger_core.rewards.scheduled_operation import Reward

__all__ = ["PAGE_OWNERS_MAX", "Sweep"]

PAGE_OWNERS_MAX = 2000
"""Owners read at a time, which is what a sweep holds in memory."""

_SYSTEM_RANDOM = SystemRandom()


class Sweep:
    """Posts one reward to the owners of segments, one segment at a time.

    Args:
        store: where the accounts are.
        reward: what to post.
        dry_run: whether only to count who would get it.
        clock, monotonic, sleep, random: as for `OperationProcessor`.
        executor: makes as many threads as it is told.
    """

    def __init__(
        self,
        store: SweepStore,
        reward: Reward,
        *,
        dry_run: bool = False,
        clock: Callable[[], datetime] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        random: Callable[[], float] = _SYSTEM_RANDOM.random,
        executor: Callable[[int], ThreadPoolExecutor] = ThreadPoolExecutor,
    ) -> None:
        self._store = store
        self._reward = reward
        self._dry_run = dry_run
        self._monotonic = monotonic
        self._sleep = sleep
        self._random = random
        self._executor = executor
        self._deadline = 0.0
        self._writer = BatchWriter(store, reward, clock=clock or store.clock, budget=self._budget)

    def run(
        self,
        segment: Segment,
        *,
        seconds: float,
        on_page: Callable[[Tally], None] = lambda _tally: None,
    ) -> Segment:
        """Work on a segment until it is finished or the time is up, and give it as it stands then.

        Args:
            segment: where to go on.
            seconds: how long; requests that are under way then are waited for.
            on_page: is told what came of each page.

        Raises:
            ContentionError, UnavailableError: nothing could be done, or the clock is off: try again
                later.
            StoreError: DynamoDB refused, for want of a permission or a table.
        """
        started = self._monotonic()
        self._deadline = started + seconds
        now = segment.model_copy(deep=True)
        with measure_request() as metrics, self._executor(TRANSACTIONS_MAX) as threads:
            try:
                for tally in self._steps(now, threads):
                    on_page(tally)
            except (ContentionError, UnavailableError):
                if now.place == segment.place:
                    raise
        now.tally.add_metrics(metrics)
        now.tally.seconds += self._monotonic() - started
        return now

    def _steps(self, now: Segment, threads: ThreadPoolExecutor) -> Iterator[Tally]:
        """Take `now` on, page by page; each gives what came of it.

        Only a page that is seen to is left behind, with those of it who are put off. Of another
        one, which is read again, nothing is counted but whom it was granted to now.
        """
        late = frozenset(now.postponed)
        if late:
            outcome = self._post(self._page_of(now.postponed), threads)
            tally = now.count(outcome)
            if outcome.complete:
                now.postponed = outcome.postponed
            yield tally
        while not now.scanned and self._monotonic() < self._deadline:
            page = self._budget().call(partial(self._page_of_all, now, late))
            outcome = self._post(page, threads)
            too_many = len(now.postponed) + len(outcome.postponed) > POSTPONED_MAX
            outcome.complete = outcome.complete and not too_many
            tally = now.count(outcome)
            if outcome.complete:
                now.postponed = now.postponed + outcome.postponed
                now.start, now.scanned = page.start, page.start is None
            yield tally
            if too_many:
                raise UnavailableError("DynamoDB takes too few of the writes.")

    def _page_of_all(self, now: Segment, late: Container[str]) -> Page:
        """The next page, without those who come by themselves."""
        page = self._store.accounts(
            segment=now.segment, segments=now.segments, start=now.start, limit=PAGE_OWNERS_MAX
        )
        return Page(
            accounts=[
                account
                for account in page.accounts
                if account.unit == self._reward.unit and account.owner_id not in late
            ],
            malformed={
                owner_id: error
                for key, error in page.malformed.items()
                for owner_id, unit in [split_account_key(key)]
                if unit == self._reward.unit and owner_id not in late
            },
            start=page.start,
        )

    def _page_of(self, owner_ids: Sequence[str]) -> Page:
        page = Page([], {}, None)
        budget = self._budget()
        for owner_id in owner_ids:
            try:
                key = self._reward.account_key(owner_id)
                page.accounts.append(
                    budget.call(partial(self._store.account, key, consistent=True))
                )
            except StoreError as error:
                if error.dynamodb_code:
                    raise
                page.malformed[owner_id] = error
        return page

    def _budget(self) -> RetryBudget:
        return RetryBudget(self._deadline, self._monotonic, self._sleep, self._random)

    def _post(self, page: Page, threads: ThreadPoolExecutor) -> Outcome:
        """Post the reward to the owners of a page."""
        outcome = Outcome()
        for owner_id, error in page.malformed.items():
            outcome.fail(owner_id, error)
        rewarded = self._rewarded(page.accounts)
        chosen = [
            account for account in page.accounts if self._is_chosen(account, rewarded, outcome)
        ]
        if self._dry_run:
            for account in chosen:
                self._count(account, outcome)
            return outcome
        written = self._writer.write(chosen, threads)
        written.tally.add(outcome.tally)
        return written

    def _is_chosen(self, account: Account, rewarded: Container[str], outcome: Outcome) -> bool:
        """Whether to write to an owner; counted if not."""
        if account.key in rewarded:
            outcome.tally.already += 1
            return False
        if not account.entry_count:  # erased since it was postponed
            outcome.tally.skipped += 1
            return False
        try:
            is_eligible = self._reward.eligible(account, self._reward.period.first_day)
        except (
            Exception
        ) as error:  # the policy is the app's, and one owner's trouble with it is not the others'
            outcome.fail(account.owner_id, error)
            return False
        outcome.tally.skipped += not is_eligible
        return is_eligible

    def _count(self, account: Account, outcome: Outcome) -> None:
        """Count an owner to whom the reward would be written."""
        assert account.updated_at is not None  # it has an entry
        planned = make_plan(self._reward.posting(account.owner_id), account, account.updated_at)
        if isinstance(planned, LedgerError):
            outcome.refuse(account, planned)
        else:
            outcome.tally.granted += 1

    def _rewarded(self, accounts: Sequence[Account]) -> set[str]:
        """The accounts that have the reward: by their mark, or by their entries where the mark is
        of a later period."""
        rewarded = {account.key for account in accounts if self._reward.is_marked(account)}
        unknown = [account.key for account in accounts if self._reward.is_overtaken(account)]
        budget = self._budget()
        for first in range(0, len(unknown), LOOK_UPS_MAX):
            some = unknown[first : first + LOOK_UPS_MAX]
            rewarded |= budget.call(partial(self._store.accounts_with, self._reward.nonce, some))
        return rewarded
