"""Clients that send many requests at once while calls fail, all by a seed, and their answers."""

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
    """Clients that race with requests of a seed. Several clients often post the same request.

    Args:
        seed: decides all requests, but not their order.
        requests: the number of requests of all clients together.
        new_store: creates the store of a client.
        clients: the number of clients. A further client sweeps.
    """

    def __init__(
        self, seed: int, *, requests: int, new_store: Callable[[], SweepStore], clients: int
    ) -> None:
        self.answers: list[Answer] = []
        self.seen: list[LedgerEntry] = []
        """Entries that a client read in a history."""
        self.unread = 0
        """Reads that failed."""
        self._seed = seed
        self._shares = [
            requests // clients + (number < requests % clients) for number in range(clients)
        ]
        self._stores = [new_store() for _ in range(clients + 1)]
        self._nonces = requests // 2

    def blow(self) -> None:
        """Send all requests."""
        with ThreadPoolExecutor(len(self._stores)) as threads:
            clients = [
                threads.submit(self._client, number, share)
                for number, share in enumerate(self._shares)
            ]
            while not all(client.done() for client in clients):
                self.sweep(self._stores[-1])
            for client in clients:
                client.result()

    def settle(self, store: SweepStore) -> None:
        """Send the requests whose outcome is in doubt again, now that no call fails; and sweep."""
        settled = {
            answer.request.nonce
            for answer in self.answers
            if answer.outcome is not Outcome.IN_DOUBT
        }
        in_doubt = {
            answer.request.nonce: answer.request
            for answer in self.answers
            if answer.request.nonce not in settled
        }
        processor = OperationProcessor(store, ExampleAppOperations)
        self.answers += [Answer.of(request, processor.process) for request in in_doubt.values()]
        while not self.sweep(store):
            pass

    def sweep(self, store: SweepStore) -> bool:
        """Reward the owners until a call fails; return whether the sweep finished."""
        (segment,) = Segment.all_of(REWARD, 1, NOON)
        try:
            return Sweep(store, REWARD).run(segment, seconds=1).finished
        except LedgerError:
            return False

    def _client(self, number: int, requests: int) -> None:
        chance = Random(f"{self._seed} client {number}")
        store = self._stores[number]
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
