"""`ledger rewards` on the store of `make run`: killed twice and run again while clients spend.

The killed workers write through a proxy that passes two transactions and delays the others.
REWARDS_OWNERS=100000 makes it a long test.
"""

import itertools
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
    """Owners with 3 credits each, and the answers about them."""
    answers = Answers(list)
    for first in range(0, OWNERS, WRITES_MAX):
        writes = []
        for number in range(first, min(first + WRITES_MAX, OWNERS)):
            account = Account(owner_id=f"owner-{number}")
            request = operation(owner_id=account.owner_id)
            entry = account.next_entry(request, amount=3, now=NOON)
            writes.append(change_of(account, entry))
            answer = Answer(request=request, outcome=Outcome.ACCEPTED, entry=entry)
            answers[account.owner_id].append(answer)
        assert store.transact(writes, token=uuid4().hex) == []
    return answers


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
    """In the end each owner has one reward and each acknowledged spend, in a valid ledger."""
    with clients(server.url, answers):
        for number in (signal.SIGKILL, signal.SIGINT):
            proxy.rule({**WRITE, "times": 2, "latency": 0}, SLOW)
            worker = start(server, **{ENDPOINT: proxy.url})
            await_slow_write(proxy)
            worker.send_signal(number)
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
    """Wait until two transactions are written and the third is open."""
    deadline = time.monotonic() + SECONDS_MAX
    while proxy.fired() < 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def clients(url: str, answers: Answers) -> Iterator[None]:
    """Spend and add during the block, and keep the answers of each owner."""
    done = threading.Event()
    answers_before = len(answers)

    def client(number: int) -> None:
        chance = random.Random(number)
        with httpx.Client(base_url=url, timeout=30) as http:
            for count in itertools.count(1):
                if done.is_set():
                    return
                owner_id = f"owner-{chance.randrange(OWNERS)}"
                make, amount = (add, 1) if count % 3 == 0 else (spend, 2)
                post(http, make(amount, f"{number}-{count}", owner_id=owner_id))

    def post(http: httpx.Client, request: OperationRequest) -> None:
        body = request.model_dump(mode="json")
        answer = None
        # A busy DynamoDB Local leaves a request in doubt. The same nonce settles it.
        while answer is None or answer.outcome is Outcome.IN_DOUBT:
            begun = time.monotonic()
            response = http.post("/ledger/entry", json=body)
            ended = time.monotonic()
            status = response.status_code
            assert status in {200, 402, 409, 503}, response.text
            answer = Answer.of_http(request, status, response.json(), begun=begun, ended=ended)
            answers[request.owner_id].append(answer)

    with ThreadPoolExecutor(CLIENTS) as threads:
        working = [threads.submit(client, number) for number in range(CLIENTS)]
        try:
            yield
        finally:
            done.set()
        for work in working:
            work.result()
    assert sum(map(len, answers.values())) > answers_before + CLIENTS


def check_all(store: SweepStore, answers: Answers) -> None:
    """Each ledger has one reward, fits the answers and holds all invariants."""

    def check_owner(owner_id: str) -> None:
        book = Book.of(store, owner_id)
        assert [entry.nonce for entry in book.entries].count(NONCE) == 1, owner_id
        check(book, answers[owner_id])

    with ThreadPoolExecutor(4) as threads:
        assert len(list(threads.map(check_owner, list(answers)))) == OWNERS
