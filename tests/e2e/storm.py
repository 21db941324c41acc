"""Clients who ask for many things at once while calls fail, all of it by a seed, and what they were told."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from random import Random

from functions.example_app.operations import ExampleAppOperations
from ledger_core import LedgerEntry, LedgerError, OperationRequest
from ledger_core.audit import audit_store
from ledger_core.dynamodb import SweepStore
from ledger_core.periods import Period
from ledger_core.posting import OperationProcessor
from ledger_core.rewards import Reward, Segment, Sweep
from tests.invariants import Answer, Outcome
from tests.support import NOON, add, spend

OWNERS = [f"owner-{number}" for number in range(5)]
REWARD = Reward.of(ExampleAppOperations, "DAILY_REWARD", Period.parse("2026-11-22"))
POST_SECONDS_MAX = 0.5


class Storm:
    """What is asked, by a seed; many ask for the same, and the same is the same operation under the same nonce.

    Args:
        seed: makes all choices, but not who comes first.
        requests: how many there are, of all clients.
        new_store: what each client goes to the ledger with, which is their own.
        clients: how many there are, beside one who sweeps.
    """

    def __init__(
        self, seed: int, *, requests: int, new_store: Callable[[], SweepStore], clients: int
    ) -> None:
        self.answers: list[Answer] = []
        self.seen: list[LedgerEntry] = []
        """Entries that were in somebody's history."""
        self.unread = 0
        """Requests to read that failed."""
        self._seed = seed
        self._shares = [
            requests // clients + (number < requests % clients) for number in range(clients)
        ]
        self._stores = [new_store() for _ in range(clients + 1)]
        self._nonces = requests // 2

    def blow(self) -> None:
        """Do all of it."""
        with ThreadPoolExecutor(len(self._stores)) as threads:
            working = [
                threads.submit(self._client, number, share)
                for number, share in enumerate(self._shares)
            ]
            while not all(one.done() for one in working):
                self.sweep(self._stores[-1])
            for one in working:
                one.result()

    def settle(self, store: SweepStore) -> None:
        """Ask once more, when nothing fails, for what is in doubt; and sweep."""
        told = {one.request.nonce for one in self.answers if one.outcome is not Outcome.IN_DOUBT}
        doubted = {
            one.request.nonce: one.request for one in self.answers if one.request.nonce not in told
        }
        processor = OperationProcessor(store, ExampleAppOperations)
        self.answers += [Answer.of(request, processor.process) for request in doubted.values()]
        while not self.sweep(store):
            pass

    def sweep(self, store: SweepStore) -> bool:
        """Reward everybody, as far as that goes; whether it came to the end."""
        (segment,) = Segment.all_of(REWARD, 1, NOON)
        try:
            return Sweep(store, REWARD).run(segment, seconds=1).finished
        except LedgerError:
            return False

    def _client(self, number: int, requests: int) -> None:
        chance, store = Random(f"{self._seed} client {number}"), self._stores[number]
        processor = OperationProcessor(store, ExampleAppOperations)
        for _ in range(requests):
            seconds = chance.random() * POST_SECONDS_MAX
            if chance.random() < 0.7:
                post = partial(processor.process, timeout_seconds=seconds)
                self.answers.append(Answer.of(self._request(chance.randrange(self._nonces)), post))
                continue
            owner_id = chance.choice(OWNERS)
            read = processor.budget(seconds).call
            try:
                if chance.random() < 0.5:
                    assert audit_store(store, owner_id, read=read).valid
                else:
                    self.seen += store.page(owner_id, limit=20, read=read)[0]
            except LedgerError:
                self.unread += 1

    def _request(self, number: int) -> OperationRequest:
        chance = Random(f"{self._seed} nonce {number}")
        make = chance.choice([add, spend])
        return make(chance.randint(1, 5), f"n-{number}", owner_id=chance.choice(OWNERS))
