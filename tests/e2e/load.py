"""Many clients of a ledger at once, with all their answers, for the tests that race and kill."""

import itertools
import os
import random
import secrets
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx

from ledger_core import OperationRequest
from ledger_core.dynamodb import LedgerStore
from ledger_core.fields import AMOUNT_MAX
from tests import support
from tests.invariants import Answer, Book, Outcome, violations
from tests.support import add, spend

SHARED_EVERY = 4
READ_EVERY = 5
AGAIN_SECONDS = 0.02
LISTENS_SECONDS = 0.2
SECONDS_MAX = 120
NEVER = "never"
"""The nonce of a request that is always refused."""

Ask = Callable[[OperationRequest], Answer]
Send = Callable[..., support.Answer | None]
Note = Callable[[str, object], None]


def fresh_seed() -> int:
    """SEED of the environment, or a random seed."""
    seed = int(os.environ.get("SEED") or secrets.randbits(32))
    print(f"SEED={seed}")  # noqa: T201  # shown when the test fails
    return seed


def requests(seed: int, client: int, owner_ids: Sequence[str]) -> Iterator[OperationRequest]:
    """The requests of a client, without end.

    They add, and spend often more than there is; they use nonces again, some of other clients.
    """
    chance = random.Random(f"{seed}-{client}")
    shared = random.Random(seed)
    sent: list[OperationRequest] = []
    for step in itertools.count(1):
        kind = chance.random()
        if step % SHARED_EVERY == 0:
            owner_id = shared.choice(owner_ids)
            post = shared.choice([add, spend])
            amount = shared.randint(1, 5)
            if kind < 0.1:  # another request under the same nonce
                amount += 1
            yield post(amount, f"shared-{step}", owner_id=owner_id)
        elif kind < 0.2 and sent:
            again = chance.choice(sent)
            yield again if kind < 0.15 else again.model_copy(update={"amount": 7})
        else:
            post, amount_max = (add, 5) if kind < 0.55 else (spend, 12)
            amount = chance.randint(1, amount_max)
            sent.append(post(amount, f"{client}-{step}", owner_id=chance.choice(owner_ids)))
            yield sent[-1]


def client(
    post: Ask, read: Callable[[str], Answer], asked: Iterable[OperationRequest]
) -> Iterator[Answer]:
    """Send each request until its answer is definite, and read balances in between.

    Yields:
        All answers.
    """
    for step, request in enumerate(asked):
        deadline = time.monotonic() + SECONDS_MAX
        while (answer := post(request)).outcome is Outcome.IN_DOUBT:
            assert time.monotonic() < deadline, answer
            yield answer
            time.sleep(AGAIN_SECONDS)
        # Only the balance may refuse a request.
        assert answer.outcome is not Outcome.REFUSED or answer.required, answer
        yield answer
        if step % READ_EVERY == 0:
            yield read(request.owner_id)


def reading(owner_id: str, balance: int | None, begun: float) -> Answer:
    """A balance that was read, as the refusal of a spend that is always too high."""
    return Answer(
        request=spend(AMOUNT_MAX, NEVER, owner_id=owner_id),
        outcome=Outcome.IN_DOUBT if balance is None else Outcome.REFUSED,
        balance=balance,
        begun=begun,
        ended=time.monotonic(),
    )


def over_http(send: Send, *, key_in_header: bool) -> tuple[Ask, Callable[[str], Answer]]:
    """Functions that post and read by HTTP.

    Args:
        send: sends a request once; returns None if no answer comes.
        key_in_header: whether the nonce goes into `Idempotency-Key`.
    """

    def post(request: OperationRequest) -> Answer:
        body = request.model_dump(mode="json", exclude_none=True)
        headers = {"Idempotency-Key": body.pop("nonce")} if key_in_header else {}
        begun = time.monotonic()
        http = send("POST", "/ledger/entry", body, headers=headers)
        if http is None:
            http = support.Answer(503, {}, None)
        replayed = "idempotency-replayed" in http.headers
        return Answer.of_http(
            request, http.status, http.body, replayed=replayed, begun=begun, ended=time.monotonic()
        )

    def read(owner_id: str) -> Answer:
        begun = time.monotonic()
        http = send("GET", f"/ledger/{owner_id}/balance")
        balance = http.body["balance"] if http and http.status == 200 else None
        return reading(owner_id, balance, begun)

    return post, read


def sender(http: httpx.Client) -> Send:
    """A function that sends a request once, as soon as the server listens."""

    def send(method: str, path: str, body: object = None, **options: Any) -> support.Answer | None:
        deadline = time.monotonic() + SECONDS_MAX
        while True:
            try:
                response = http.request(method, path, json=body, **options)
                return support.Answer(response.status_code, response.headers, response.json())
            except httpx.ConnectError:  # the request was not sent
                assert time.monotonic() < deadline
                time.sleep(LISTENS_SECONDS)
            except httpx.TransportError:
                return None

    return send


class Clients:
    """Clients that send requests without end, each in its own thread; `answers` has all answers."""

    def __init__(self, sends: Sequence[Send], seed: int, owner_ids: Sequence[str]) -> None:
        self.answers: list[Answer] = []
        self._definite = threading.Semaphore(0)
        self._done = threading.Event()
        self._clients = [
            client(
                *over_http(send, key_in_header=number % 2 > 0), requests(seed, number, owner_ids)
            )
            for number, send in enumerate(sends)
        ]

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Run the clients during the block; each ends after a definite answer."""
        with ThreadPoolExecutor(len(self._clients)) as threads:
            working = [threads.submit(self._work, client) for client in self._clients]
            try:
                yield
            finally:
                self._done.set()
        for work in working:
            work.result()

    def await_answers(self, count: int) -> None:
        """Wait for `count` further definite answers."""
        for _ in range(count):
            assert self._definite.acquire(timeout=SECONDS_MAX)

    def _work(self, answers: Iterator[Answer]) -> None:
        for answer in answers:
            self.answers.append(answer)
            if answer.outcome is not Outcome.IN_DOUBT:
                self._definite.release()
                if self._done.is_set():
                    return


def kill_at_random(
    clients: Clients, seed: int, kills: int, kill: Callable[[random.Random], bool]
) -> None:
    """Kill `kills` times at random moments; `kill` returns whether it killed."""
    chance = random.Random(seed)
    with clients.at_work():
        while kills:
            clients.await_answers(chance.randint(1, 60))
            time.sleep(chance.uniform(0, 0.03))
            kills -= kill(chance)


def check_all(store: LedgerStore, answers: Iterable[Answer], seed: int) -> None:
    """Each owner's ledger holds all invariants, and fits all answers about it."""
    by_owner = defaultdict(list)
    for answer in answers:
        by_owner[answer.request.owner_id].append(answer)
    found = [
        str(violation)
        for owner_id, owner_answers in by_owner.items()
        for violation in violations(Book.of(store, owner_id), owner_answers)
    ]
    assert not found, "\n".join([f"SEED={seed}", *found])


def note(answers: Iterable[Answer], record_property: Note) -> Counter[str]:
    """The number of answers of each kind, which the report gets too."""
    counts: Counter[str] = Counter()
    readings = 0
    for answer in answers:
        if answer.request.nonce == NEVER:
            readings += 1
        elif answer.outcome is Outcome.DUPLICATE:
            counts["replayed"] += 1
        else:
            counts[str(answer.outcome)] += 1
    counts["requests"] = sum(counts.values())
    counts["balances read"] = readings
    for name, count in counts.items():
        record_property(name, count)
    return counts
