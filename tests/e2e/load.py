"""What many clients ask of a ledger at once, with all that they are told, for the tests that race and that kill."""

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
"""The nonce of what is refused for certain."""

Ask = Callable[[OperationRequest], Answer]
Send = Callable[..., support.Answer | None]
Note = Callable[[str, object], None]


def fresh_seed() -> int:
    """SEED, or another one in each run."""
    seed = int(os.environ.get("SEED") or secrets.randbits(32))
    print(f"SEED={seed}")  # noqa: T201  # shown when the test fails
    return seed


def requests(seed: int, client: int, owner_ids: Sequence[str]) -> Iterator[OperationRequest]:
    """One client's, without end: adds, spends that often lack credits, nonces used again, nonces that all share."""
    chance, together = random.Random(f"{seed}-{client}"), random.Random(seed)
    sent: list[OperationRequest] = []
    for step in itertools.count(1):
        kind = chance.random()
        if step % SHARED_EVERY == 0:
            owner_id, post, amount = (
                together.choice(owner_ids),
                together.choice([add, spend]),
                together.randint(1, 5),
            )
            yield post(
                amount + (kind < 0.1), f"shared-{step}", owner_id=owner_id
            )  # some ask for something else
        elif kind < 0.2 and sent:
            again = chance.choice(sent)
            yield again if kind < 0.15 else again.model_copy(update={"amount": 7})
        else:
            post, most = (add, 5) if kind < 0.55 else (spend, 12)
            sent.append(
                post(chance.randint(1, most), f"{client}-{step}", owner_id=chance.choice(owner_ids))
            )
            yield sent[-1]


def client(
    post: Ask, read: Callable[[str], Answer], asked: Iterable[OperationRequest]
) -> Iterator[Answer]:
    """Ask for each under its nonce until there is a definite answer, and read balances in between; all answers."""
    for step, request in enumerate(asked):
        deadline = time.monotonic() + SECONDS_MAX
        while (answer := post(request)).outcome is Outcome.IN_DOUBT:
            assert time.monotonic() < deadline, answer
            yield answer
            time.sleep(AGAIN_SECONDS)
        assert answer.outcome is not Outcome.REFUSED or answer.required, (
            answer
        )  # for the balance's sake, or never
        yield answer
        if step % READ_EVERY == 0:
            yield read(request.owner_id)


def reading(owner_id: str, balance: int | None, begun: float) -> Answer:
    """A balance that was read, by the refusal of a spend that nobody can afford, which says the same."""
    request, outcome = spend(AMOUNT_MAX, NEVER, owner_id=owner_id), Outcome.REFUSED
    if balance is None:
        outcome = Outcome.IN_DOUBT
    return Answer(
        request=request, outcome=outcome, balance=balance, begun=begun, ended=time.monotonic()
    )


def over_http(send: Send, *, key_in_header: bool) -> tuple[Ask, Callable[[str], Answer]]:
    """How to post and how to read by what sends a request, once, and gives None when no answer comes."""

    def post(request: OperationRequest) -> Answer:
        body = request.model_dump(mode="json", exclude_none=True)
        headers = {"Idempotency-Key": body.pop("nonce")} if key_in_header else {}
        begun = time.monotonic()
        got = send("POST", "/ledger/entry", body, headers=headers) or support.Answer(503, {}, None)
        replayed = "idempotency-replayed" in got.headers
        return Answer.of_http(
            request, got.status, got.body, replayed=replayed, begun=begun, ended=time.monotonic()
        )

    def read(owner_id: str) -> Answer:
        begun = time.monotonic()
        got = send("GET", f"/ledger/{owner_id}/balance")
        return reading(owner_id, got.body["balance"] if got and got.status == 200 else None, begun)

    return post, read


def sender(http: httpx.Client) -> Send:
    """Sends once, by a client of HTTP, as soon as somebody listens."""

    def send(method: str, path: str, body: object = None, **options: Any) -> support.Answer | None:
        deadline = time.monotonic() + SECONDS_MAX
        while True:
            try:
                response = http.request(method, path, json=body, **options)
                return support.Answer(response.status_code, response.headers, response.json())
            except httpx.ConnectError:  # nothing was asked
                assert time.monotonic() < deadline
                time.sleep(LISTENS_SECONDS)
            except httpx.TransportError:
                return None

    return send


class Clients:
    """Clients that ask without end, each in a thread of its own; `answers` is all that they have been told so far."""

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
        """They begin, and end when the last request of each has a definite answer."""
        with ThreadPoolExecutor(len(self._clients)) as threads:
            working = [threads.submit(self._work, one) for one in self._clients]
            try:
                yield
            finally:
                self._done.set()
        for one in working:
            one.result()

    def await_answers(self, count: int) -> None:
        """Wait for so many more definite answers."""
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
    """Kill so many times, each after some answers and some milliseconds more; `kill` says whether it could."""
    chance = random.Random(seed)
    with clients.at_work():
        while kills:
            clients.await_answers(chance.randint(1, 60))
            time.sleep(chance.uniform(0, 0.03))
            kills -= kill(chance)


def check_all(store: LedgerStore, answers: Iterable[Answer], seed: int) -> None:
    """Every owner's ledger is in order, and fits all that was told about it."""
    of_owner = defaultdict(list)
    for one in answers:
        of_owner[one.request.owner_id].append(one)
    found = [
        one
        for owner_id, told in of_owner.items()
        for one in violations(Book.of(store, owner_id), told)
    ]
    assert not found, "\n".join([f"SEED={seed}", *map(str, found)])


def note(answers: Iterable[Answer], record_property: Note) -> Counter[str]:
    """How many answers there were of each kind, for the report."""
    words = {Outcome.DUPLICATE: "replayed"}
    counts = Counter(
        words.get(one.outcome, str(one.outcome)) for one in answers if one.request.nonce != NEVER
    )
    counts["requests"] = sum(counts.values())
    counts["balances read"] = sum(one.request.nonce == NEVER for one in answers)
    for name, count in counts.items():
        record_property(name, count)
    return counts
