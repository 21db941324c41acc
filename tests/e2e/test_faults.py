"""Faults on the wire between boto3 and DynamoDB Local, on every call: what the client is told, and what is stored."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config

from infra.dynamodb import create_tables
from ledger_core.dynamodb import SWEEP_CONFIG
from ledger_core.wiring import create_account_store, create_client
from tests.conftest import ledger_tables
from tests.e2e.calls import WAYS, Way
from tests.e2e.proxy import Proxy, microburst
from tests.e2e.storm import OWNERS, REWARD, Storm
from tests.e2e.world import SOURCES, Told, World, calls_in, seconds_until
from tests.invariants import Book, Outcome, violations
from tests.support import DEEP, new_seed

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

STORM_REQUESTS = 2000 if DEEP else 150
WRITE = "TransactWriteItems"
TRANSACTIONS = (WRITE, "TransactGetItems")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something that happens to a call."""

    rule: Mapping[str, Any]
    code: str = "unavailable"
    """What the client is told in the end when it lasts."""
    of: Sequence[str] | None = None
    """The only calls to which it happens; None: to any."""
    commits: bool = False
    """Whether what was asked for is done all the same."""
    times: int = 2
    """How often it happens where it passes."""
    tries: int = 3
    """How often a call is made where it lasts."""
    read_seconds: float = 60.0
    """How long the client waits for an answer."""

    @property
    def is_fast(self) -> bool:
        """Whether nobody waits for it; and so no other call is taken for lost because it takes long."""
        return self.read_seconds > 1


def cancelled(reason: str) -> dict[str, Any]:
    return {
        "code": "TransactionCanceledException",
        "message": f"Transaction cancelled, please refer cancellation reasons for specific reasons [{reason}, None]",
        "fields": {
            "CancellationReasons": [{"Code": reason, "Message": "ongoing"}, {"Code": "None"}]
        },
    }


SIGNS = ["x-amzn-requestid", "x-amz-crc32"]
"""Headers by which DynamoDB's answers are known, and are known to be whole."""
FAULTS = {
    "answer lost": Fault(rule={"response": {"abort_bytes": 0}}, commits=True),
    "answer cut off": Fault(rule={"response": {"abort_frac": 0.5}}, commits=True),
    "never sent": Fault(rule={"reset": True}),
    # Answers of something else that are 200. What they stand for may have been done, or may never have been handed on.
    "200, and no body": Fault(
        rule={"response": {"truncate_bytes": 0, "strip_headers": SIGNS}}, commits=True
    ),
    "200, and half a body": Fault(
        rule={"response": {"truncate_frac": 0.5, "strip_headers": SIGNS}}, commits=True
    ),
    "200, and another body": Fault(rule={"response": {"corrupt_bytes": 9}}, commits=True),
    "200 of another": Fault(rule={"error": {"code": "Welcome", "status": 200}}),
    # Few times, because it takes the time that the client waits.
    "held": Fault(rule={"timeout_ms": 1000}, times=1, tries=1, read_seconds=0.4),
    "throttled": Fault(rule={"error": {"code": "ThrottlingException"}}),
    "failed": Fault(rule={"error": {"code": "InternalServerError", "status": 500}}),
    "conflict": Fault(
        rule={"error": cancelled("TransactionConflict")}, code="contention", of=TRANSACTIONS
    ),
    "in progress": Fault(rule={"error": {"code": "TransactionInProgressException"}}, of=(WRITE,)),
}
API_NAMES = calls_in(SOURCES, boto3.client("dynamodb", region_name="us-east-1"))
FIRST_WAYS = list({way.call: way for way in reversed(WAYS)}.values())
"""One to each call. The others are tried with all faults when there is time, and otherwise with this."""
FAULTS_OF_ANY_WAY = ("answer lost",)
FAULTS_WHEN_THERE_IS_TIME = ("200, and half a body",)
"""Much as another one."""
CASES = [
    pytest.param(way, fault, id=f"{way.name}: {name}")
    for way in WAYS
    for name, fault in FAULTS.items()
    if (fault.of is None or API_NAMES[way.call] in fault.of)
    and (DEEP or way in FIRST_WAYS or name in FAULTS_OF_ANY_WAY)
    and (DEEP or name not in FAULTS_WHEN_THERE_IS_TIME)
]
every_call_and_fault = pytest.mark.parametrize(("way", "fault"), CASES)


@pytest.fixture(scope="module")
def proxy(
    dynamodb_local_endpoint: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    with microburst(dynamodb_local_endpoint, tmp_path_factory.mktemp("microburst")) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def straight_client(dynamodb_local_endpoint: str) -> "DynamoDBClient":
    """A client past the proxy."""
    patient = Config(read_timeout=60)
    return boto3.client(
        "dynamodb", endpoint_url=dynamodb_local_endpoint, region_name="us-east-1", config=patient
    )


@pytest.fixture(scope="module")
def worlds(straight_client: "DynamoDBClient") -> Callable[[Way, float], World]:
    """One for each way; a test takes what others have not asked about."""
    return cache(lambda way, read_seconds: World(straight_client, read_seconds=read_seconds))


@pytest.fixture
def world(
    way: Way,
    fault: Fault,
    proxy: Proxy,
    worlds: Callable[[Way, float], World],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    """What is needed to ask, in a way, with a fault to come. In the end every ledger is checked."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", proxy.url)
    for module in (
        "batch_writer",
        "sweep",
    ):  # one after the other, so that it is certain who is tried how often
        monkeypatch.setattr(f"ledger_core.rewards.{module}.TRANSACTIONS_MAX", 1)
    world = worlds(way, fault.read_seconds)
    yield world
    world.check()


def test_every_call_in_the_source_has_its_faults() -> None:
    """No function calls DynamoDB that is not in the table of calls."""
    assert {way.call for way in WAYS} == set(API_NAMES)


@every_call_and_fault
def test_fault_on_the_wire_counts_once(
    proxy: Proxy, world: World, way: Way, fault: Fault, record_property: Callable[[str, int], None]
) -> None:
    """Whatever happens to a call on its way, if it passes the answer is right, and what is asked for is done once."""
    number = world.number()
    proxy.rule()
    way.given(world, number)
    proxy.rule(*rules(way, fault, times=fault.times))
    assert of(way.told, world.ask(way.ask, number)) == way.told
    if fault.is_fast:
        assert world.calls == way.tried(1 + fault.times)
    assert proxy.fired() == way.passes + fault.times
    record_property("faults", fault.times)
    again = way.again or way.told
    assert of(again, world.ask(way.ask, number)) == again


@every_call_and_fault
def test_fault_that_lasts_is_told_and_the_same_request_settles_it(
    proxy: Proxy, world: World, way: Way, fault: Fault, record_property: Callable[[str, int], None]
) -> None:
    """Who is told to come back does so under the same nonce: then it is done, if it was not done before."""
    number = world.number()
    proxy.rule()
    way.given(world, number)
    proxy.rule(*rules(way, fault))
    tries = fault.tries
    late = {**way.late, "code": fault.code} if "state" in way.late else way.late
    assert (
        of(late, world.ask(way.ask, number, seconds=seconds_until(way.position, tries=tries)))
        == late
    )
    assert world.calls == way.tried(tries)[: way.position + tries]
    record_property("faults", tries)
    proxy.rule()
    again = way.again or way.told
    settled = again if fault.commits and API_NAMES[way.call] == WRITE else way.told
    assert of(settled, world.ask(way.ask, number)) == settled
    assert of(again, world.ask(way.ask, number)) == again


def test_storm_of_faults_breaks_no_invariant(
    proxy: Proxy,
    straight_client: "DynamoDBClient",
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, int], None],
) -> None:
    """Clients who race for the same owners and nonces, and a sweep, under all faults: every invariant holds after."""
    seed = new_seed()
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", proxy.url)
    create_tables(straight_client, ledger_tables())
    config = SWEEP_CONFIG.merge(Config(read_timeout=0.8))
    storm = Storm(
        seed,
        requests=STORM_REQUESTS,
        new_store=lambda: create_account_store(create_client(config)),
        clients=6,
    )
    proxy.rule(*storm_rules(Random(seed)))
    storm.blow()
    faults = proxy.fired()
    proxy.rule()
    store = create_account_store(straight_client)
    storm.settle(store)
    books = [Book.of(store, owner_id) for owner_id in OWNERS]
    found = [one for book in books for one in violations(book, storm.answers)]
    assert not found, (f"SEED={seed}", *map(str, found))
    stored = [entry for book in books for entry in book.entries]
    assert all(entry in stored for entry in storm.seen), (
        f"SEED={seed}: somebody saw what is not there"
    )
    rewarded = [[entry.nonce for entry in book.entries].count(REWARD.nonce) for book in books]
    assert rewarded == [min(book.head.entry_count, 1) for book in books], f"SEED={seed}"
    outcomes = Counter(one.outcome for one in storm.answers)
    assert min(faults, outcomes[Outcome.ACCEPTED]) > STORM_REQUESTS / 10, f"SEED={seed}: {outcomes}"
    for outcome in Outcome:
        record_property(
            "replayed" if outcome is Outcome.DUPLICATE else str(outcome), outcomes[outcome]
        )
    record_property("requests", STORM_REQUESTS)
    record_property("faults", faults)


def storm_rules(chance: Random) -> list[dict[str, Any]]:
    """Each fault of each call, now and then."""
    return [
        {
            "operation": name,
            "sequence": {"fail": chance.randint(1, 3), "pass": chance.randint(20, 60)},
            **fault.rule,
        }
        for name in sorted(set(API_NAMES.values()))
        for fault in FAULTS.values()
        if fault.of is None or name in fault.of
    ]


def rules(way: Way, fault: Fault, **times: int) -> list[dict[str, Any]]:
    """What the proxy is to do: let some calls pass, and not the next ones."""
    operation = {"operation": API_NAMES[way.call]}
    passing = [{**operation, "times": way.passes, "latency": 0}] if way.passes else []
    return [*passing, {**operation, **fault.rule, **times}]


def of(expected: Told, told: Told) -> Told:
    """What is told of what is expected to be told."""
    return {name: told.get(name) for name in expected}
