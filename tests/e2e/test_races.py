"""Threads and processes race for the same owners: no entry is lost, doubled or overdrawn."""

import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from itertools import islice
from threading import Barrier
from typing import TYPE_CHECKING

import pytest

from functions.example_app.operations import ExampleAppOperations
from ledger_core import OperationRequest
from ledger_core.posting import TIMEOUT_SECONDS, OperationProcessor
from ledger_core.wiring import create_processor, create_store
from tests.e2e.load import Note, check_all, client, fresh_seed, note, reading, requests
from tests.invariants import Answer
from tests.support import DEEP

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

PROCESSES = 8
WRITERS = 32
REQUESTS_EACH = 150 if DEEP else 12
OWNERS = [f"owner-{number}" for number in range(40)]


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessPoolExecutor]:
    """Processes that share no memory. They begin when all have started."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    start = (context.Barrier(PROCESSES),)
    with ProcessPoolExecutor(PROCESSES, context, initializer=Barrier.wait, initargs=start) as pool:
        yield pool


@pytest.mark.parametrize("owner_ids", [OWNERS[:1], OWNERS], ids=["one owner", "many owners"])
@pytest.mark.parametrize("spread", [1, PROCESSES], ids=["threads", "processes"])
def test_racing_writers_lose_and_double_nothing(
    real_client: "DynamoDBClient",
    processes: ProcessPoolExecutor,
    record_property: Note,
    owner_ids: list[str],
    spread: int,
) -> None:
    """32 threads of one process or of eight share owners and nonces: all invariants hold."""
    seed = fresh_seed()
    variables = dict(os.environ)
    shares = [range(first, WRITERS, spread) for first in range(spread)]
    if spread == 1:
        results = [write(variables, seed, shares[0], owner_ids)]
    else:
        writing = [processes.submit(write, variables, seed, share, owner_ids) for share in shares]
        results = [work.result() for work in writing]
    assert len({process for process, _ in results}) == spread
    answers = [answer for _, process_answers in results for answer in process_answers]
    counts = note(answers, record_property)
    assert counts["requests"] - counts["in doubt"] == WRITERS * REQUESTS_EACH
    for outcome in ("accepted", "replayed", "refused"):
        assert counts[outcome] > REQUESTS_EACH, f"SEED={seed}"
    check_all(create_store(real_client), answers, seed)


def write(
    variables: Mapping[str, str], seed: int, clients: Sequence[int], owner_ids: Sequence[str]
) -> tuple[int, list[Answer]]:
    """Run clients of a processor, each in its own thread; return the process id and answers."""
    os.environ.update(variables)
    processor = create_processor(ExampleAppOperations)
    run_client = partial(_run_client, processor, seed, owner_ids)
    answers: list[Answer] = []
    with ThreadPoolExecutor(len(clients)) as threads:
        for client_answers in threads.map(run_client, clients):
            answers += client_answers
    return os.getpid(), answers


def _run_client(
    processor: OperationProcessor, seed: int, owner_ids: Sequence[str], number: int
) -> list[Answer]:
    def post(request: OperationRequest) -> Answer:
        return Answer.of(request, processor.process)

    def read(owner_id: str) -> Answer:
        begun = time.monotonic()
        read_account = partial(processor.store.account, owner_id, consistent=True)
        account = processor.budget(TIMEOUT_SECONDS).call(read_account)
        return reading(owner_id, account.balance, begun)

    return list(client(post, read, islice(requests(seed, number, owner_ids), REQUESTS_EACH)))
