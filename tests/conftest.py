"""Stores to test on, and the rule that CI skips nothing."""

import asyncio
import os
import signal
from collections.abc import Generator, Iterator
from random import Random
from typing import TYPE_CHECKING
from uuid import uuid4

import moto.core as moto_core
import pytest

from functions.example_app.operations import ExampleAppOperations
from infra.dynamodb import ENVIRONMENT as LOCAL_ENVIRONMENT
from infra.dynamodb import create_tables, dynamodb_local, has_dynamodb_local
from ledger_core.dynamodb import LedgerStore
from ledger_core.posting import OperationProcessor
from ledger_core.wiring import create_client, create_store
from tests.fakes.quick_moto import quick_moto
from tests.support import DYNAMODB_LOCAL

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

MACHINE = dict(os.environ)
"""The environment of the machine, for tools that tests use."""
ENVIRONMENT = {
    **LOCAL_ENVIRONMENT,
    "LEDGER_REWARDS_QUEUE_URL": "https://sqs.us-east-1.amazonaws.com/123456789012/rewards",
}
os.environ.update(ENVIRONMENT)  # apps read their settings when they are imported
# moto must be imported before the session of ledger_core.wiring, or it does not see its calls.
MOTO = moto_core.__name__
# The processes that tests start inherit this, also where the tests run in the background.
signal.signal(signal.SIGINT, signal.default_int_handler)


def ledger_tables() -> dict[str, str]:
    """The names of the ledger's own two tables. Few tests use the third, which takes time."""
    return {name: os.environ[name] for name in ("LEDGER_ENTRIES_TABLE", "LEDGER_ACCOUNTS_TABLE")}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--order", default="", help="`reverse`, or a number: another order of the tests for each"
    )


JAVA_OPTIONS = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
"""Compile once and collect in one thread: a short run takes 40 % less CPU time."""
LONG = ("conformance/test_stateful", "e2e/", "fuzz/", "simulator/")


@pytest.hookimpl(tryfirst=True)  # before pytest deselects by marker
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests on DynamoDB Local as slow, measure no coverage in long ones, set the order."""
    for item in items:
        if "dynamodb_local_endpoint" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)
    if not config.getoption("no_cov"):
        for item in items:
            if item.nodeid.startswith(tuple(f"tests/{place}" for place in LONG)):
                item.add_marker(pytest.mark.no_cover)
    order = str(config.getoption("order"))
    if order == "reverse":
        items.reverse()
    elif order:
        Random(order).shuffle(items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skipped test is a failed test."""
    report = yield
    if report.skipped and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"CI refuses skips: {report.longrepr}"
    return report


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables of a local run without those of the machine; each test has its own tables."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "LEDGER_")):
            monkeypatch.delenv(name)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, f"{value}-{uuid4()}" if name.endswith("_TABLE") else value)


@pytest.fixture(scope="session")
def dynamodb_local_endpoint() -> Iterator[str]:
    """The DynamoDB Local of all tests; DYNAMODB_LOCAL names one that runs already."""
    if endpoint := MACHINE.get(DYNAMODB_LOCAL):
        yield endpoint
        return
    if not has_dynamodb_local():
        pytest.skip("NOT TESTED on DynamoDB Local, which alone proves the guarantees: needs Java")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("JAVA_TOOL_OPTIONS", JAVA_OPTIONS)
        with dynamodb_local() as endpoint:
            yield endpoint


@pytest.fixture
def moto_client() -> Iterator["DynamoDBClient"]:
    """A client of moto with the ledger's tables, empty."""
    with quick_moto() as client:
        create_tables(client, ledger_tables())
        yield client


@pytest.fixture
def real_client(dynamodb_local_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> "DynamoDBClient":
    """A client of DynamoDB Local with the ledger's tables, empty."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", dynamodb_local_endpoint)
    client = create_client()
    create_tables(client, ledger_tables())
    return client


@pytest.fixture
def client(moto_client: "DynamoDBClient") -> "DynamoDBClient":
    """Most tests use moto; `conformance` overrides this with both stores, for the guarantees."""
    return moto_client


@pytest.fixture
def store(client: "DynamoDBClient") -> LedgerStore:
    return create_store(client)


@pytest.fixture
def processor(store: LedgerStore) -> OperationProcessor:
    return OperationProcessor(store, ExampleAppOperations)


@pytest.fixture(scope="session", autouse=True)
def event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """The event loop that handlers use in this thread."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield loop
    loop.close()


@pytest.fixture(autouse=True)
def event_loop_of_the_thread(event_loop: asyncio.AbstractEventLoop) -> None:
    """Set the loop for each test, because `asyncio.run` leaves the thread without a loop."""
    asyncio.set_event_loop(event_loop)
