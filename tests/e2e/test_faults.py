"""Faults on the wire between boto3 and DynamoDB Local: what the client is told, and what is stored."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from botocore.exceptions import BotoCoreError

from functions.example_app.operations import ExampleAppOperations
from functions.wiring import create_client, create_store
from infra.processes import free_port
from ledger_core import DuplicateNonceError, OperationProcessor, UnavailableError
from ledger_core.audit import audit_store
from tests.support import add, spend, wire

WRITE = {"service": "dynamodb", "operation": "TransactWriteItems"}
CONFLICT = {
    "code": "TransactionCanceledException",
    "message": "Transaction cancelled, please refer cancellation reasons for specific reasons [TransactionConflict]",
    "fields": {"CancellationReasons": [{"Code": "TransactionConflict", "Message": "ongoing"}, {"Code": "None"}]},
}
FAULTS: dict[str, dict[str, Any]] = {
    "answer lost after commit": {**WRITE, "times": 1, "response": {"abort_bytes": 0}},
    "answer cut after commit": {**WRITE, "times": 1, "response": {"abort_bytes": 1}},
    "answers lost after commit, thrice": {**WRITE, "times": 3, "response": {"abort_bytes": 0}},
    "never sent": {**WRITE, "times": 2, "reset": True},
    "held until timeout": {**WRITE, "times": 1, "timeout_ms": 3000},
    "throttled": {**WRITE, "times": 3, "error": {"code": "ThrottlingException"}},
    "failed": {**WRITE, "times": 3, "error": {"code": "InternalServerError", "status": 500}},
    "conflict": {**WRITE, "times": 3, "error": CONFLICT},
    "head not read": {
        "service": "dynamodb",
        "operation": "GetItem",
        "times": 2,
        "error": {"code": "ThrottlingException"},
    },
}


@pytest.fixture(scope="module")
def microburst(dynamodb_local_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A proxy in front of DynamoDB Local that does as it is told; its first call is slow, and made here."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    program = str(Path(sys.executable).parent / "microburst")
    log = tmp_path_factory.mktemp("microburst") / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, "--upstream", dynamodb_local_endpoint, "--port", str(port)], stdout=output, stderr=output
        )
    deadline = time.monotonic() + 60
    client = boto3.client("dynamodb", endpoint_url=url, region_name="us-east-1")
    while True:
        try:
            client.list_tables()
            break
        except BotoCoreError:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
    yield url
    process.terminate()
    process.wait()


@pytest.fixture
def proxy(microburst: str, real_client: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """The proxy without faults; clients made from now on go through it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", microburst)
    httpx.delete(f"{microburst}/_microburst/fired").raise_for_status()
    return microburst


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_fault_on_the_wire_counts_once(proxy: str, fault: dict[str, Any]) -> None:
    """Whatever happens to a request on its way, the client is told of its entry, and it is there once."""
    client = create_client()
    store = create_store(client)
    processor = OperationProcessor(store, ExampleAppOperations)
    httpx.post(f"{proxy}/_microburst/rules", json=[fault]).raise_for_status()
    sent = wire(client)
    entry = processor.process(add(5, "n"))
    assert (entry.id, entry.balance_after) == (1, 5)
    assert len(sent) == 2 + fault["times"]
    assert len(httpx.get(f"{proxy}/_microburst/fired").json()) == fault["times"]
    assert processor.process(spend(5, "m")).balance_after == 0
    report = audit_store(store, "ada", read=processor.read)
    assert (report.valid, report.entries_checked) == (True, 2)
    assert store.page("ada", limit=9)[0][-1] == entry


def test_client_that_is_told_to_come_back_finds_its_entry(proxy: str) -> None:
    """When the time is up in doubt, the same request under the same nonce settles it."""
    store = create_store()
    processor = OperationProcessor(store, ExampleAppOperations)
    processor.process(add(1, "before"))
    httpx.post(f"{proxy}/_microburst/rules", json=[FAULTS["answer lost after commit"]]).raise_for_status()
    with pytest.raises(UnavailableError, match="did not answer"):
        processor.process(add(5, "n"), timeout_seconds=0)
    with pytest.raises(DuplicateNonceError) as duplicate:
        processor.process(add(5, "n"))
    assert duplicate.value.replay
    assert audit_store(store, "ada", read=processor.read).head.balance == 6
