"""The main job, as outside clients see it: many owners, many clients, repeats, refusals; then every book is checked."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from tests.support import Answer

Send = Callable[..., Answer]
T = TypeVar("T")
R = TypeVar("R")

KINDS: list[dict[str, Any]] = [
    {"operation": "CREDIT_SPEND"},
    {"operation": "CREDIT_SPEND", "amount": 2},
    {"operation": "CREDIT_ADD", "amount": 4},
    {"operation": "DAILY_REWARD"},
    {"operation": "CONTENT_CREATION"},
    {"operation": "CONTENT_ACCESS", "metadata": {"content_id": "c1"}},
    {"operation": "CREDIT_SPEND", "amount": 1_000_000},  # too expensive for anybody
]


class MainJob:
    """Posts a signup credit to every owner and then mixed operations, every tenth twice; keeps what was answered."""

    def __init__(self, send: Send, *, owners: int, operations: int, clients: int, seed: int) -> None:
        self.send = send
        self.clients = clients
        self.owners = [f"owner-{number}" for number in range(owners)]
        chance = random.Random(seed)
        self.operations = [
            {"owner_id": chance.choice(self.owners), "nonce": f"op-{number}", **chance.choice(KINDS)}
            for number in range(operations)
        ]
        self.accepted: dict[tuple[str, str], dict[str, Any]] = {}
        self.answers = Counter[str]()
        self._lock = threading.Lock()

    def run(self) -> None:
        self._post_all([{"owner_id": owner, "operation": "SIGNUP_CREDIT", "nonce": "signup"} for owner in self.owners])
        self._post_all(self.operations)

    def check(self) -> None:
        """Every book adds up, and holds what was answered and nothing else."""
        entries = [entry for found in self._map(self._checked_entries, self.owners) for entry in found]
        assert {(entry["owner_id"], entry["nonce"]): entry for entry in entries} == self.accepted
        assert len(entries) == len(self.accepted)

    def _post_all(self, requests: list[dict[str, Any]]) -> None:
        def client(number: int) -> None:
            for position in range(number, len(requests), self.clients):
                self._post(requests[position], twice=position % 10 == 9)

        self._map(client, range(self.clients))

    def _map(self, function: Callable[[T], R], arguments: Iterable[T]) -> list[R]:
        if self.clients == 1:  # a Lambda handler runs in one thread
            return [function(argument) for argument in arguments]
        with ThreadPoolExecutor(self.clients) as threads:
            return list(threads.map(function, arguments))

    def _post(self, request: dict[str, Any], *, twice: bool) -> None:
        key = (request["owner_id"], request["nonce"])
        answer = self.send("POST", "/ledger/entry", request)
        if answer.status == 409:  # only after a crash: the first try had succeeded, its answer was lost
            assert answer.body["replay"]
            answer = Answer(200, {}, answer.body["entry"])
        with self._lock:
            self.answers["accepted" if answer.status == 200 else answer.body["code"]] += 1
            if answer.status == 200:
                self.accepted[key] = answer.body
            else:
                assert (answer.status, answer.body["code"]) == (402, "insufficient_balance")
                assert answer.body["balance"] < answer.body["required"]
        if twice and answer.status == 200:
            duplicate = self.send("POST", "/ledger/entry", request)
            assert (duplicate.status, duplicate.body["entry"], duplicate.body["replay"]) == (409, answer.body, True)
            with self._lock:
                self.answers["duplicate_nonce"] += 1

    def _checked_entries(self, owner: str) -> list[dict[str, Any]]:
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
        assert [entry["id"] for entry in entries] == list(range(len(entries), 0, -1))
        assert balance["balance"] == sum(entry["amount"] for entry in entries) >= 0
        assert balance["entry_count"] == report["entries_checked"] == len(entries)
        assert report["valid"], report
        return entries
