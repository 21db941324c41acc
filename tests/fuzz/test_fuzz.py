"""The whole API under good, bad and extreme requests that come from its OpenAPI document.

Deep (PROVE=1) it sends 20,000 requests and more. SEED repeats the requests of a run.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from hypothesis import HealthCheck, Phase, given, seed
from schemathesis import GenerationMode

from functions.example_app.app import create_app
from ledger_core.dynamodb import SweepStore
from ledger_core.http import create_handler
from ledger_core.wiring import create_client
from tests.chance import SEED, looking_at
from tests.e2e.server import Server
from tests.fuzz.targets import TOKEN, Gateway, Operation, Sent, Target
from tests.support import DEEP

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

EXAMPLES = 1000 if DEEP else 12
"""Requests of each operation, good and as many bad ones; fewer where there are not as many."""
REQUESTS_MIN = 10_000 if DEEP else 400
"""Through each of the two targets."""
SETTINGS = looking_at(
    EXAMPLES,
    phases=[Phase.generate, Phase.shrink],
    # To make a request that is bad in a certain way takes long.
    suppress_health_check=list(HealthCheck),
)


def account_store(client: "DynamoDBClient", variables: Any) -> SweepStore:
    return SweepStore(
        client,
        entries_table=variables["LEDGER_ENTRIES_TABLE"],
        accounts_table=variables["LEDGER_ACCOUNTS_TABLE"],
    )


@pytest.fixture
def handler(real_client: "DynamoDBClient", monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    """The Lambda handler, where tokens are asked for, over DynamoDB Local."""
    monkeypatch.setenv("LEDGER_AUTH", "jwt")
    with requests.Session() as session:
        session.mount("http://", Gateway(create_handler(create_app(real_client))))
        session.trust_env = False
        headers = {"Authorization": f"Bearer {TOKEN}"}
        yield Target(
            "http://ledger", session, account_store(real_client, os.environ), headers=headers
        )


@pytest.fixture
def server(
    dynamodb_local_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Target]:
    """What `make run` starts, over a DynamoDB Local of its own, where anybody may do everything."""
    server = Server(tmp_path)
    try:
        server.start()
        monkeypatch.setenv(
            "AWS_ENDPOINT_URL_DYNAMODB", server.variables["AWS_ENDPOINT_URL_DYNAMODB"]
        )
        with requests.Session() as session:
            session.trust_env = False
            yield Target(server.url, session, account_store(create_client(), server.variables))
    finally:
        if server.process is not None and server.process.poll() is None:
            server.stop(signal.SIGTERM)


@pytest.mark.parametrize("name", ["handler", "server"])
def test_every_answer_is_documented_and_every_ledger_right(
    name: str, request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> None:
    """No request gets a 5xx; answers are as documented; bad input is 4xx, a wrong method 405."""
    sys.stdout.write(f"SEED={SEED}\n")
    target: Target = request.getfixturevalue(name)
    target.give_credits()
    for operation in target.operations():
        send_edge_cases(target, operation)
        for mode in GenerationMode:
            send_examples(target, operation, mode)
    record_property("requests", target.answers.total())
    record_property("accepted", target.answers[200])
    record_property("ledgers", target.check())
    assert target.answers.total() >= REQUESTS_MIN, (SEED, target.answers)
    assert {200, 402, 409, 422} <= set(target.answers), (SEED, target.answers)


def send_edge_cases(target: Target, operation: Operation) -> None:
    """Requests at, within and beyond each limit of the document, and undocumented methods."""
    generation = target.schema.config.generation_for(operation=operation)
    cases = target.schema.iter_coverage_cases(
        operation, generation_modes=list(GenerationMode), generation_config=generation
    )
    for case in cases:
        target.send(case)


def send_examples(target: Target, operation: Operation, mode: GenerationMode) -> None:
    """What chance makes of the document, and on a failure the smallest of it."""
    if mode is GenerationMode.NEGATIVE and not (
        operation.body or list(operation.iter_parameters())
    ):
        return  # there is nothing to get wrong

    @seed(SEED)
    @SETTINGS
    @given(case=operation.as_strategy(generation_mode=mode))
    def send(case: Sent) -> None:
        target.send(case)

    send()
