"""Threads and processes race for the same owners on DynamoDB Local: nothing is lost, doubled or negative."""

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
    """Processes that share nothing with one another; none begins before all have started."""
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
    """32 threads, of one process or of eight, share owners and nonces: every ledger is right, and every answer."""
    seed, variables = fresh_seed(), dict(os.environ)
    shares = [range(first, WRITERS, spread) for first in range(spread)]
    if spread == 1:
        done = [write(variables, seed, shares[0], owner_ids)]
    else:
        done = [
            one.result()
            for one in [processes.submit(write, variables, seed, one, owner_ids) for one in shares]
        ]
    assert len({process for process, _ in done}) == spread
    answers = [one for _, told in done for one in told]
    counts = note(answers, record_property)
    assert counts["requests"] - counts["in doubt"] == WRITERS * REQUESTS_EACH
    assert (
        min(counts[outcome] for outcome in ("accepted", "replayed", "refused")) > REQUESTS_EACH
    ), f"SEED={seed}"
    check_all(create_store(real_client), answers, seed)


def write(
    variables: Mapping[str, str], seed: int, clients: Sequence[int], owner_ids: Sequence[str]
) -> tuple[int, list[Answer]]:
    """Be so many clients of one processor, each in a thread of its own; the process, and all that they were told."""
    os.environ.update(variables)
    processor = create_processor(ExampleAppOperations)
    told = partial(_told, processor, seed, owner_ids)
    with ThreadPoolExecutor(len(clients)) as threads:
        return os.getpid(), [one for answers in threads.map(told, clients) for one in answers]


def _told(
    processor: OperationProcessor, seed: int, owner_ids: Sequence[str], number: int
) -> list[Answer]:
    def post(request: OperationRequest) -> Answer:
        return Answer.of(request, processor.process)

    def read(owner_id: str) -> Answer:
        begun, head = time.monotonic(), partial(processor.store.account, owner_id, consistent=True)
        account = processor.budget(TIMEOUT_SECONDS).call(head)
        return reading(owner_id, account.balance, begun)

    return list(client(post, read, islice(requests(seed, number, owner_ids), REQUESTS_EACH)))
