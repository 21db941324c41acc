"""The main job: many owners and clients, repeats and refusals; then each ledger is checked."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from pydantic import TypeAdapter

from functions.example_app.operations import ExampleAppOperations
from ledger_core import LedgerEntry, OperationRequest
from ledger_core.account import Account
from tests.invariants import Answer, Book, Outcome, check
from tests.support import Answer as HttpAnswer

Send = Callable[..., HttpAnswer]
T = TypeVar("T")
R = TypeVar("R")

NAMES = {str(name): name for name in ExampleAppOperations.get_operation_config()}

KINDS: list[dict[str, Any]] = [
    {"operation": "CREDIT_SPEND"},
    {"operation": "CREDIT_SPEND", "amount": 2},
    {"operation": "CREDIT_ADD", "amount": 4},
    {"operation": "DAILY_REWARD"},
    {"operation": "CONTENT_CREATION"},
    {"operation": "CONTENT_ACCESS", "metadata": {"content_id": "c1"}},
    {"operation": "CREDIT_SPEND", "amount": 1_000_000},  # more than any balance
]


class MainJob:
    """Posts a signup credit to each owner, then mixed operations, each tenth of them twice."""

    def __init__(
        self, send: Send, *, owners: int, operations: int, clients: int, seed: int
    ) -> None:
        self.send = send
        self.clients = clients
        self.owners = [f"owner-{number}" for number in range(owners)]
        chance = random.Random(seed)
        self.operations = [
            {
                "owner_id": chance.choice(self.owners),
                "nonce": f"op-{number}",
                **chance.choice(KINDS),
            }
            for number in range(operations)
        ]
        self.answers: list[Answer] = []

    def run(self) -> None:
        signup = {"operation": "SIGNUP_CREDIT", "nonce": "signup"}
        self._post_all([{"owner_id": owner_id, **signup} for owner_id in self.owners])
        self._post_all(self.operations)

    def check(self) -> Counter[Outcome]:
        """Check each ledger against the answers, and count the answers of each kind."""
        for book in self._map(self._book, self.owners):
            check(book, self.answers)
        return Counter(answer.outcome for answer in self.answers)

    def _post_all(self, requests: list[dict[str, Any]]) -> None:
        def client(number: int) -> None:
            for position in range(number, len(requests), self.clients):
                for _ in range(2 if position % 10 == 9 else 1):
                    self._post(requests[position])

        self._map(client, range(self.clients))

    def _map(self, function: Callable[[T], R], arguments: Iterable[T]) -> list[R]:
        if self.clients == 1:  # a Lambda handler runs in one thread
            return [function(argument) for argument in arguments]
        with ThreadPoolExecutor(self.clients) as threads:
            return list(threads.map(function, arguments))

    def _post(self, body: dict[str, Any]) -> None:
        request = OperationRequest(**{**body, "operation": NAMES[body["operation"]]})
        status: int | None = None
        while status in {None, 503}:  # the same request finds out whether the first was written
            begun = time.monotonic()
            answer = self.send("POST", "/ledger/entry", body)
            ended = time.monotonic()
            status = answer.status
            self.answers.append(
                Answer.of_http(request, status, answer.body, begun=begun, ended=ended)
            )
        assert status in {200, 402, 409}

    def _book(self, owner: str) -> Book:
        """An owner's ledger, read by HTTP."""
        entries: list[dict[str, Any]] = []
        cursor = None
        while True:
            query = {"limit": "7"} | ({"cursor": cursor} if cursor else {})
            page = self.send("GET", f"/ledger/{owner}/entries", query=query).body
            entries += page["entries"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        balance = self.send("GET", f"/ledger/{owner}/balance").body
        report = self.send("GET", f"/ledger/{owner}/verify").body
        assert report["valid"], report
        assert report["head"].items() >= balance.items()
        head = TypeAdapter(Account).validate_python(report["head"])
        return Book(head, [LedgerEntry(**entry) for entry in reversed(entries)])
