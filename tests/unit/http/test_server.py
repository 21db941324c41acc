"""Under a server: requests overlap, and no owner waits for another."""

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from functions.example_app.app import create_app
from ledger_core.http.executor import SLOW_CALLS_MAX
from ledger_core.settings import CONNECTIONS_MAX
from tests.fakes.server import SECONDS_MAX, Gate, serving

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

pytestmark = pytest.mark.slow

HOT_REQUESTS = CONNECTIONS_MAX + 10
AUDITS = 100


def signup(http: httpx.Client, owner_id: str, nonce: str = "n") -> httpx.Response:
    return http.post(
        "/ledger/entry", json={"owner_id": owner_id, "operation": "SIGNUP_CREDIT", "nonce": nonce}
    )


def test_requests_overlap(monkeypatch: pytest.MonkeyPatch, client: "DynamoDBClient") -> None:
    """As many calls run at once as the server has connections."""
    together = threading.Barrier(CONNECTIONS_MAX)
    get_item = client.get_item

    def wait_for_all(**arguments: Any) -> Any:
        together.wait(SECONDS_MAX)
        return get_item(**arguments)

    monkeypatch.setattr(client, "get_item", wait_for_all, raising=False)
    with serving(client) as http, ThreadPoolExecutor(CONNECTIONS_MAX) as threads:
        paths = [f"/ledger/owner-{number}/balance" for number in range(CONNECTIONS_MAX)]
        assert {response.status_code for response in threads.map(http.get, paths)} == {200}


def test_hot_owner_with_a_slow_call_blocks_no_other_owner(
    monkeypatch: pytest.MonkeyPatch, client: "DynamoDBClient"
) -> None:
    """While many requests of an owner wait for a call, other requests are answered."""
    gate = Gate(monkeypatch, client, "hot")
    with serving(client) as http, ThreadPoolExecutor(HOT_REQUESTS) as threads:
        hot: list[Future[httpx.Response]] = [
            threads.submit(signup, http, "hot", f"n{number}") for number in range(HOT_REQUESTS)
        ]
        assert gate.reached.wait(SECONDS_MAX)
        assert http.get("/health").status_code == 200
        assert signup(http, "other").status_code == 200
        assert http.get("/ledger/hot/balance").json()["balance"] == 0
        assert not any(future.done() for future in hot)
        gate.opened.set()
        assert {future.result().status_code for future in hot} == {200}
        assert http.get("/ledger/hot/balance").json()["entry_count"] == HOT_REQUESTS
        # The requests that had arrived shared transactions.
        assert sum(gate.entries) == HOT_REQUESTS
        assert len(gate.entries) < HOT_REQUESTS / 2


def test_request_whose_turn_does_not_come_is_503(
    monkeypatch: pytest.MonkeyPatch, client: "DynamoDBClient"
) -> None:
    """A request that waits too long for its turn is answered with 503."""
    gate = Gate(monkeypatch, client, "hot")
    with serving(client) as http, ThreadPoolExecutor(1) as threads:
        first = threads.submit(signup, http, "hot", "first")
        assert gate.reached.wait(SECONDS_MAX)
        monkeypatch.setattr("ledger_core.http.executor.TIMEOUT_SECONDS", 0.2)
        second = signup(http, "hot", "second")
        assert (second.status_code, second.json()["code"]) == (503, "unavailable")
        gate.opened.set()
        assert first.result().status_code == 200


def test_request_that_was_answered_with_503_is_not_written(
    monkeypatch: pytest.MonkeyPatch, client: "DynamoDBClient"
) -> None:
    """The next leader does not write it, because the client may send it again."""
    gate = Gate(monkeypatch, client, "hot")
    with serving(client) as http, ThreadPoolExecutor(1) as threads:
        first = threads.submit(signup, http, "hot", "first")
        assert gate.reached.wait(SECONDS_MAX)
        with monkeypatch.context() as short:
            short.setattr("ledger_core.http.executor.TIMEOUT_SECONDS", 0.2)
            assert signup(http, "hot", "late").status_code == 503
        gate.opened.set()
        assert first.result().status_code == 200
        assert signup(http, "hot", "third").json()["id"] == 2
        nonces = [entry["nonce"] for entry in http.get("/ledger/hot/entries").json()["entries"]]
        assert nonces == ["third", "first"]


def test_request_that_is_cancelled_while_it_waits_is_not_written(
    monkeypatch: pytest.MonkeyPatch, client: "DynamoDBClient"
) -> None:
    """The next request of the owner is written without it."""
    gate = Gate(monkeypatch, client, "hot")

    async def load() -> list[str]:
        transport = httpx.ASGITransport(create_app(client))
        async with httpx.AsyncClient(transport=transport, base_url="http://ledger") as http:

            def post(nonce: str) -> "asyncio.Task[httpx.Response]":
                body = {"owner_id": "hot", "operation": "SIGNUP_CREDIT", "nonce": nonce}
                return asyncio.create_task(http.post("/ledger/entry", json=body))

            first = post("first")
            while not gate.reached.is_set():
                await asyncio.sleep(0.001)
            cancelled = post("cancelled")
            third = post("third")
            await asyncio.sleep(0.01)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            gate.opened.set()
            assert {(await first).status_code, (await third).status_code} == {200}
            entries = (await http.get("/ledger/hot/entries")).json()["entries"]
            return [entry["nonce"] for entry in entries]

    assert asyncio.run(asyncio.wait_for(load(), SECONDS_MAX)) == ["third", "first"]


@pytest.mark.parametrize("path", ["/ledger/ada/verify", "/ledger/ada/entries"])
def test_slow_audits_delay_no_post(
    monkeypatch: pytest.MonkeyPatch, client: "DynamoDBClient", path: str
) -> None:
    """While 100 audits hang, posts and balances are answered."""
    begun: list[None] = []
    opened = threading.Event()
    query = client.query

    def hanging(**arguments: Any) -> Any:
        begun.append(None)
        assert opened.wait(SECONDS_MAX)
        return query(**arguments)

    monkeypatch.setattr(client, "query", hanging, raising=False)

    async def load() -> None:
        transport = httpx.ASGITransport(create_app(client))
        async with httpx.AsyncClient(transport=transport, base_url="http://ledger") as http:
            audits = [asyncio.create_task(http.get(path)) for _ in range(AUDITS)]
            while len(begun) < SLOW_CALLS_MAX:
                await asyncio.sleep(0.001)
            for number in range(3):
                body = {"owner_id": "ada", "operation": "SIGNUP_CREDIT", "nonce": f"n{number}"}
                assert (await http.post("/ledger/entry", json=body)).status_code == 200
            assert (await http.get("/ledger/ada/balance")).json()["entry_count"] == 3
            assert len(begun) == SLOW_CALLS_MAX
            assert not [audit for audit in audits if audit.done()]
            for audit in audits:
                audit.cancel()
            opened.set()
            ends = await asyncio.gather(*audits, return_exceptions=True)
            assert {type(end) for end in ends} == {asyncio.CancelledError}

    asyncio.run(asyncio.wait_for(load(), 2 * SECONDS_MAX))


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/ledger/entry"), ("POST", "/content/c/access"), ("PUT", "/content/c")],
)
def test_idempotency_key_in_two_lines_is_refused(
    client: "DynamoDBClient", method: str, path: str
) -> None:
    """Two headers with a key are 422, even if the keys are equal."""
    body = {"owner_id": "ada"}
    if path == "/ledger/entry":
        body["operation"] = "SIGNUP_CREDIT"
    with serving(client) as http:
        for second in ("a", "b"):
            keys = [("Idempotency-Key", "a"), ("Idempotency-Key", second)]
            answer = http.request(method, path, json=body, headers=keys)
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
