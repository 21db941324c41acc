"""`ledger rewards` over the store of `make run`: killed twice, run again, while clients spend; then all is checked.

The workers that are killed write through a proxy which lets two transactions pass and takes its time over the others.

REWARDS_OWNERS=100000 makes it a long one.
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from botocore.config import Config

from ledger_core import OperationRequest
from ledger_core.account import Account
from ledger_core.dynamodb import SWEEP_CONFIG, WRITES_MAX, SweepStore
from ledger_core.wiring import create_account_store, create_client
from tests.e2e.proxy import Proxy, microburst
from tests.e2e.server import Server
from tests.invariants import Answer, Book, Outcome, check
from tests.support import NOON, add, change_of, operation, spend

ENDPOINT = "AWS_ENDPOINT_URL_DYNAMODB"
OWNERS = int(os.environ.get("REWARDS_OWNERS", "700"))
CLIENTS = 8
SECONDS_MAX = 60 + OWNERS // 50
LEDGER = str(Path(sys.executable).parent / "ledger")
APP = "functions.example_app.operations:ExampleAppOperations"
NONCE = "ledger:daily-reward:2026-11-22"
WRITE = {"operation": "TransactWriteItems"}
SLOW = {**WRITE, "latency": 1000}

Answers = defaultdict[str, list[Answer]]


@pytest.fixture
def store(server: Server, monkeypatch: pytest.MonkeyPatch) -> SweepStore:
    """The store of a server that runs."""
    server.start()
    for name, value in server.place.items():
        monkeypatch.setenv(name, value)
    return create_account_store(create_client(SWEEP_CONFIG.merge(Config(read_timeout=60))))


@pytest.fixture
def answers(store: SweepStore) -> Answers:
    """Owners who have 3 credits each, by an entry that somebody asked for."""
    asked = Answers(list)
    for first in range(0, OWNERS, WRITES_MAX):
        writes = []
        for number in range(first, min(first + WRITES_MAX, OWNERS)):
            head, request = (
                Account(owner_id=f"owner-{number}"),
                operation(owner_id=f"owner-{number}"),
            )
            writes.append(change_of(head, head.next_entry(request, amount=3, now=NOON)))
            asked[head.owner_id] += [
                Answer(request=request, outcome=Outcome.ACCEPTED, entry=writes[-1].entries[0])
            ]
        assert store.transact(writes, token=uuid4().hex) == []
    return asked


@pytest.fixture
def proxy(server: Server, store: SweepStore, tmp_path: Path) -> Iterator[Proxy]:
    with microburst(server.variables[ENDPOINT], tmp_path) as proxy:
        yield proxy


def test_killed_twice_while_clients_spend(
    server: Server,
    store: SweepStore,
    proxy: Proxy,
    answers: Answers,
    record_property: Callable[[str, int], None],
) -> None:
    """Each owner has one reward in the end, every acknowledged spend is there, and every ledger holds together."""
    with clients(server.url, answers):
        for how in (signal.SIGKILL, signal.SIGINT):
            proxy.rule({**WRITE, "times": 2, "latency": 0}, SLOW)
            worker = start(server, **{ENDPOINT: proxy.url})
            await_slow_write(proxy)
            worker.send_signal(how)
            _, err = worker.communicate(timeout=SECONDS_MAX)
        assert (worker.returncode, err.splitlines()[-1][:13]) == (130, "ledger: ended"), err
        last = start(server)
        out, err = last.communicate(timeout=SECONDS_MAX)
        assert last.returncode == 0, err
        assert '"failed":0' in out
    check_all(store, answers)
    again = start(server)
    out, err = again.communicate(timeout=SECONDS_MAX)
    assert f'"granted":0,"already":{OWNERS},"skipped":0,"failed":0' in out, err
    server.stop(signal.SIGTERM)
    record_property("owners", OWNERS)
    record_property("kills", 2)
    record_property("requests", sum(map(len, answers.values())) - OWNERS)


def start(server: Server, **environment: str) -> "subprocess.Popen[str]":
    environment = {"PATH": os.environ["PATH"], **server.variables, **environment}
    command = [LEDGER, "rewards", "--app", APP, "--date", "2026-11-22", "--force", "--yes"]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def await_slow_write(proxy: Proxy) -> None:
    """Wait until two transactions are through and the third is on its way: the worker is in the middle of it."""
    deadline = time.monotonic() + SECONDS_MAX
    while proxy.fired() < 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def clients(url: str, answers: Answers) -> Iterator[None]:
    """Spend, top up and spend again, all the while, and note what each owner was told."""
    done, asked = threading.Event(), len(answers)

    def client(number: int) -> None:
        chance, count = random.Random(number), 0
        with httpx.Client(base_url=url, timeout=30) as http:
            while not done.is_set():
                owner_id, count = f"owner-{chance.randrange(OWNERS)}", count + 1
                make, amount = (add, 1) if count % 3 == 0 else (spend, 2)
                post(http, make(amount, f"{number}-{count}", owner_id=owner_id))

    def post(http: httpx.Client, request: OperationRequest) -> None:
        body, answer = request.model_dump(mode="json"), None
        while (
            answer is None or answer.outcome is Outcome.IN_DOUBT
        ):  # DynamoDB Local is busy; the nonce finds out
            begun = time.monotonic()
            told = http.post("/ledger/entry", json=body)
            assert told.status_code in {200, 402, 409, 503}, told.text
            answer = Answer.of_http(
                request, told.status_code, told.json(), begun=begun, ended=time.monotonic()
            )
            answers[request.owner_id].append(answer)

    with ThreadPoolExecutor(CLIENTS) as threads:
        working = [threads.submit(client, number) for number in range(CLIENTS)]
        try:
            yield
        finally:
            done.set()
        for one in working:
            one.result()
    assert sum(map(len, answers.values())) > asked + CLIENTS


def check_all(store: SweepStore, answers: Answers) -> None:
    """Every ledger has one reward, and what clients were told; and every invariant holds of it."""

    def check_owner(owner_id: str) -> None:
        book = Book.of(store, owner_id)
        assert [entry.nonce for entry in book.entries].count(NONCE) == 1, owner_id
        check(book, answers[owner_id])

    with ThreadPoolExecutor(4) as threads:
        assert len(list(threads.map(check_owner, list(answers)))) == OWNERS
