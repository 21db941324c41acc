"""The sweep of a segment: page after page of owners, sorted into who has the reward, who is to get it and who is not.

No AWS, no HTTP. It may die at any moment, be repeated, or run beside another one and beside the owners' own writers.
"""

import time
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from random import SystemRandom

from ledger_core.account import Account
from ledger_core.dynamodb import LOOK_UPS_MAX, Page, SweepStore
from ledger_core.errors import ContentionError, StoreError, UnavailableError
from ledger_core.observability import measure_request
from ledger_core.posting import RetryBudget
from ledger_core.rewards.batch_writer import TRANSACTIONS_MAX, BatchWriter
from ledger_core.rewards.progress import STRAGGLERS_MAX, Outcome, Segment, Tally
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
        self._writer = BatchWriter(store, reward, clock=clock or store.clock, patience=self._patience)

    def run(
        self, segment: Segment, *, seconds: float, on_page: Callable[[Tally], None] = lambda _tally: None
    ) -> Segment:
        """Work on a segment until it is finished or the time is up, and give it as it stands then.

        Args:
            segment: where to go on.
            seconds: how long; requests that are under way then are waited for.
            on_page: is told what came of each page.

        Raises:
            ContentionError, UnavailableError: nothing could be done, or the clock is off: try again later.
            StoreError: DynamoDB refused, for want of a permission or a table.
        """
        begun = self._monotonic()
        self._deadline = begun + seconds
        now = segment.model_copy(deep=True)
        with measure_request() as usage, self._executor(TRANSACTIONS_MAX) as threads:
            try:
                for tally in self._steps(now, threads):
                    on_page(tally)
            except (ContentionError, UnavailableError):
                if now.place == segment.place:
                    raise
        now.tally.add_usage(usage)
        now.tally.seconds += self._monotonic() - begun
        return now

    def _steps(self, now: Segment, threads: ThreadPoolExecutor) -> Iterator[Tally]:
        """Take `now` on, page by page; each gives what came of it.

        Only a page that is seen to is left behind, with those of it who are put off. Of another one, which is read
        again, nothing is counted but whom it was granted to now.
        """
        late = frozenset(now.stragglers)
        if late:
            outcome = self._see_to(self._page_of(now.stragglers), threads)
            tally = now.count(outcome)
            if outcome.complete:
                now.stragglers = outcome.stragglers
            yield tally
        while not now.scanned and self._monotonic() < self._deadline:
            page = self._patience().read(partial(self._page_of_all, now, late))
            outcome = self._see_to(page, threads)
            too_many = len(now.stragglers) + len(outcome.stragglers) > STRAGGLERS_MAX
            outcome.complete = outcome.complete and not too_many
            tally = now.count(outcome)
            if outcome.complete:
                now.stragglers = now.stragglers + outcome.stragglers
                now.start, now.scanned = page.start, page.start is None
            yield tally
            if too_many:
                raise UnavailableError("DynamoDB takes too few of the writes.")

    def _page_of_all(self, now: Segment, late: Container[str]) -> Page:
        """The next page, without those who come by themselves."""
        page = self._store.accounts(segment=now.segment, segments=now.segments, start=now.start, limit=PAGE_OWNERS_MAX)
        return Page(
            accounts=[account for account in page.accounts if account.head.owner_id not in late],
            malformed={owner_id: error for owner_id, error in page.malformed.items() if owner_id not in late},
            start=page.start,
        )

    def _page_of(self, owner_ids: Sequence[str]) -> Page:
        page, patience = Page([], {}, None), self._patience()
        for owner_id in owner_ids:
            try:
                page.accounts.append(patience.read(partial(self._store.account, owner_id, consistent=True)))
            except StoreError as error:
                if error.dynamodb_code:
                    raise
                page.malformed[owner_id] = error
        return page

    def _patience(self) -> RetryBudget:
        return RetryBudget(self._deadline, self._monotonic, self._sleep, self._random)

    def _see_to(self, page: Page, threads: ThreadPoolExecutor) -> Outcome:
        """What becomes of the owners of a page."""
        sorted_out = Outcome()
        for owner_id, error in page.malformed.items():
            sorted_out.fail(owner_id, error)
        having = self._having(page.accounts)
        chosen = [account for account in page.accounts if self._is_chosen(account, having, sorted_out)]
        if self._dry_run:
            sorted_out.tally.granted += len(chosen)
            return sorted_out
        outcome = self._writer.write(chosen, threads)
        outcome.tally.add(sorted_out.tally)
        return outcome

    def _is_chosen(self, account: Account, having: Container[str], outcome: Outcome) -> bool:
        """Whether to write to an owner; counted if not."""
        if account.head.owner_id in having:
            outcome.tally.already += 1
            return False
        if not account.head.entry_count:  # erased since it was put off
            outcome.tally.skipped += 1
            return False
        try:
            eligible = self._reward.eligible(account, self._reward.period.first_day)
        except Exception as error:  # the policy is the app's, and one owner's trouble with it is not the others'
            outcome.fail(account.head.owner_id, error)
            return False
        if not eligible:
            outcome.tally.skipped += 1
            return False
        return outcome.admits(account.head, self._reward)

    def _having(self, accounts: Sequence[Account]) -> set[str]:
        """Owners who have the reward: by their mark, or by their entries where the mark is of a later period."""
        having = {one.head.owner_id for one in accounts if self._reward.is_marked(one.marks)}
        unknown = [one.head.owner_id for one in accounts if self._reward.is_overtaken(one.marks)]
        patience = self._patience()
        for first in range(0, len(unknown), LOOK_UPS_MAX):
            some = unknown[first : first + LOOK_UPS_MAX]
            having |= patience.read(partial(self._store.owners_with, self._reward.nonce, some))
        return having
