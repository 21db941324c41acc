"""`ledger rewards` over the store of `make run`: killed twice, run again, while clients spend; then all is checked.

REWARDS_OWNERS=100000 makes it a long one.
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from botocore.config import Config

from functions.wiring import SWEEP_CONFIG, create_account_store, create_client
from ledger_core.accounts import WRITES_MAX, AccountStore
from ledger_core.audit import audit
from ledger_core.items import Write
from ledger_core.models import YEAR_MAX, Head, LedgerEntry
from tests.e2e.server import Server
from tests.support import NOON, operation

OWNERS = int(os.environ.get("REWARDS_OWNERS", "900"))
CLIENTS = 8
SAMPLE = 20
SECONDS_MAX = 60 + OWNERS // 50
LEDGER = str(Path(sys.executable).parent / "ledger")
NONCE = "ledger:daily-reward:2026-11-22"


@pytest.fixture
def store(server: Server, monkeypatch: pytest.MonkeyPatch) -> AccountStore:
    """The store of a server that runs, with owners who have 3 credits each."""
    server.start()
    for name, value in server.variables.items():
        monkeypatch.setenv(name, value)
    store = create_account_store(create_client(SWEEP_CONFIG.merge(Config(read_timeout=60))))
    for first in range(0, OWNERS, WRITES_MAX):
        heads = [Head(owner_id=f"owner-{number}") for number in range(first, min(first + WRITES_MAX, OWNERS))]
        entries = [LedgerEntry.after(one, operation(owner_id=one.owner_id), amount=3, now=NOON) for one in heads]
        assert store.append_all([Write(*pair) for pair in zip(entries, heads, strict=True)]) == []
    return store


def test_killed_twice_while_clients_spend(server: Server, store: AccountStore) -> None:
    """Each owner has one reward in the end, every acknowledged spend is there, and every ledger verifies."""
    chance = random.Random(7)
    sample = [f"owner-{chance.randrange(OWNERS)}" for _ in range(SAMPLE)]
    with clients(server.url) as accepted:
        for how in (signal.SIGKILL, signal.SIGINT):
            so_far = rewarded(store, sample)
            worker = start(server)
            await_rewarded(store, sample, so_far + SAMPLE // 10)
            assert worker.poll() is None  # in the middle of it
            worker.send_signal(how)
            _, err = worker.communicate(timeout=20)
        assert (worker.returncode, err.splitlines()[-1][:13]) == (130, "ledger: ended"), err
        last = start(server)
        out, err = last.communicate(timeout=SECONDS_MAX)
        assert last.returncode == 0, err
        assert '"failed":0' in out
    check(store, accepted)
    again = start(server)
    out, err = again.communicate(timeout=SECONDS_MAX)
    assert f'"granted":0,"already":{OWNERS},"skipped":0,"failed":0' in out, err
    server.stop(signal.SIGTERM)


def start(server: Server) -> "subprocess.Popen[str]":
    environment = {"PATH": os.environ["PATH"], **server.variables}
    command = [LEDGER, "rewards", "--date", "2026-11-22"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def rewarded(store: AccountStore, sample: list[str]) -> int:
    """How many of a sample have the reward."""
    return sum("DAILY_REWARD:day" in store.account(one, consistent=True).marks for one in sample)


def await_rewarded(store: AccountStore, sample: list[str], count: int) -> None:
    """Wait until so many of a sample have the reward, and fail when they do not get it."""
    deadline = time.monotonic() + SECONDS_MAX
    while rewarded(store, sample) < count:
        assert time.monotonic() < deadline


@contextmanager
def clients(url: str) -> Iterator[Counter[str]]:
    """Spend, top up and spend again, all the while; gives how many entries each owner was told are stored."""
    accepted, lock, done = Counter[str](), threading.Lock(), threading.Event()

    def client(number: int) -> None:
        chance, count = random.Random(number), 0
        with httpx.Client(base_url=url, timeout=30) as http:
            while not done.is_set():
                owner_id, count = f"owner-{chance.randrange(OWNERS)}", count + 1
                body = {"owner_id": owner_id, "operation": "CREDIT_SPEND", "nonce": f"{number}-{count}", "amount": 2}
                if count % 3 == 0:
                    body |= {"operation": "CREDIT_ADD", "amount": 1}
                post(lambda body=body: http.post("/ledger/entry", json=body).status_code, owner_id)  # type: ignore[misc]

    def post(send: Callable[[], int], owner_id: str) -> None:
        status = send()
        while status == 503:  # DynamoDB Local is busy; the same nonce finds out
            status = send()
        assert status in {200, 402, 409}, status
        with lock:
            accepted[owner_id] += status != 402  # 409 is what a 503 had stored

    with ThreadPoolExecutor(CLIENTS) as threads:
        working = [threads.submit(client, number) for number in range(CLIENTS)]
        try:
            yield accepted
        finally:
            done.set()
        for one in working:
            one.result()
    assert sum(accepted.values()) > CLIENTS


def check(store: AccountStore, accepted: Counter[str]) -> None:
    """Every ledger has its first entry, one reward, and what clients were told; and it verifies."""

    def check_owner(number: int) -> None:
        owner_id = f"owner-{number}"
        rows, _ = store.rows(owner_id, until=NOON.replace(year=YEAR_MAX - 1))
        assert [row["nonce"] for row in rows].count(NONCE) == 1, owner_id
        assert len(rows) == 2 + accepted[owner_id], owner_id
        report = audit(store.head(owner_id, consistent=True), rows)
        assert report.valid, report

    with ThreadPoolExecutor(4) as threads:
        assert len(list(threads.map(check_owner, range(OWNERS)))) == OWNERS
