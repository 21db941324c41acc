"""Faults on the wire between boto3 and DynamoDB Local, on every call: the answer and the ledger."""

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
from tests.e2e.world import SOURCES, Result, World, calls_in, seconds_until
from tests.invariants import Book, Outcome, violations
from tests.support import DEEP, new_seed

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

STORM_REQUESTS = 2000 if DEEP else 150
WRITE = "TransactWriteItems"
TRANSACTIONS = (WRITE, "TransactGetItems")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault of a call.

    Attributes:
        rule: the rule of the proxy.
        code: the code of the answer when the fault lasts.
        calls: the calls that can have the fault; None for all calls.
        commits: whether DynamoDB writes in spite of the fault.
        times: how often the fault happens when it passes.
        tries: how often a call is made when the fault lasts.
        read_seconds: how long the client waits for an answer.
    """

    rule: Mapping[str, Any]
    code: str = "unavailable"
    calls: Sequence[str] | None = None
    commits: bool = False
    times: int = 2
    tries: int = 3
    read_seconds: float = 60.0

    @property
    def is_fast(self) -> bool:
        """Whether the client waits so long that no slow call looks lost."""
        return self.read_seconds > 1

    def can_hit(self, call: str) -> bool:
        """Whether a call of DynamoDB can have the fault."""
        return self.calls is None or call in self.calls


def cancelled(reason: str) -> dict[str, Any]:
    reasons = [{"Code": reason, "Message": "ongoing"}, {"Code": "None"}]
    return {
        "code": "TransactionCanceledException",
        "message": (
            "Transaction cancelled, please refer cancellation reasons for specific reasons "
            f"[{reason}, None]"
        ),
        "fields": {"CancellationReasons": reasons},
    }


SIGNS = ["x-amzn-requestid", "x-amz-crc32"]
"""The headers that show that an answer is DynamoDB's and complete."""
FAULTS = {
    "answer lost": Fault(rule={"response": {"abort_bytes": 0}}, commits=True),
    "answer cut off": Fault(rule={"response": {"abort_frac": 0.5}}, commits=True),
    "never sent": Fault(rule={"reset": True}),
    # Answers 200 that are not DynamoDB's. The request may be written, or may not have arrived.
    "200, and no body": Fault(
        rule={"response": {"truncate_bytes": 0, "strip_headers": SIGNS}}, commits=True
    ),
    "200, and half a body": Fault(
        rule={"response": {"truncate_frac": 0.5, "strip_headers": SIGNS}}, commits=True
    ),
    "200, and another body": Fault(rule={"response": {"corrupt_bytes": 9}}, commits=True),
    "200 of another": Fault(rule={"error": {"code": "Welcome", "status": 200}}),
    # Only once, because it takes the whole time that the client waits.
    "held": Fault(rule={"timeout_ms": 1000}, times=1, tries=1, read_seconds=0.4),
    "throttled": Fault(rule={"error": {"code": "ThrottlingException"}}),
    "failed": Fault(rule={"error": {"code": "InternalServerError", "status": 500}}),
    "conflict": Fault(
        rule={"error": cancelled("TransactionConflict")}, code="contention", calls=TRANSACTIONS
    ),
    "in progress": Fault(
        rule={"error": {"code": "TransactionInProgressException"}}, calls=(WRITE,)
    ),
}
API_NAMES = calls_in(SOURCES, boto3.client("dynamodb", region_name="us-east-1"))
FIRST_WAYS = list({way.call: way for way in reversed(WAYS)}.values())
"""The first way to each call."""
FAULTS_OF_ANY_WAY = ("answer lost",)
"""The only faults that the other ways have, unless PROVE is set."""
FAULTS_IF_DEEP = ("200, and half a body",)
"""Faults that are much like another, so they are tried only if PROVE is set."""


def is_case(way: Way, name: str) -> bool:
    """Whether a way is tried with a fault."""
    if not FAULTS[name].can_hit(API_NAMES[way.call]):
        return False
    if DEEP:
        return True
    return name not in FAULTS_IF_DEEP and (way in FIRST_WAYS or name in FAULTS_OF_ANY_WAY)


CASES = [
    pytest.param(way, fault, id=f"{way.name}: {name}")
    for way in WAYS
    for name, fault in FAULTS.items()
    if is_case(way, name)
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
    """A client without the proxy."""
    config = Config(read_timeout=60)
    return boto3.client(
        "dynamodb", endpoint_url=dynamodb_local_endpoint, region_name="us-east-1", config=config
    )


@pytest.fixture(scope="module")
def worlds(straight_client: "DynamoDBClient") -> Callable[[Way, float], World]:
    """A world for each way. Each test takes an owner that no other test used."""
    return cache(lambda way, read_seconds: World(straight_client, read_seconds=read_seconds))


@pytest.fixture
def world(
    way: Way,
    fault: Fault,
    proxy: Proxy,
    worlds: Callable[[Way, float], World],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    """The world of a way and a fault. In the end every ledger is checked."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", proxy.url)
    # One transaction at a time, so that the number of tries of each is certain.
    for module in ("batch_writer", "sweep"):
        monkeypatch.setattr(f"ledger_core.rewards.{module}.TRANSACTIONS_MAX", 1)
    world = worlds(way, fault.read_seconds)
    yield world
    world.check()


def test_every_call_in_the_source_has_its_faults() -> None:
    """Each function that calls DynamoDB is in the table of calls."""
    assert {way.call for way in WAYS} == set(API_NAMES)


@every_call_and_fault
def test_fault_on_the_wire_counts_once(
    proxy: Proxy, world: World, way: Way, fault: Fault, record_property: Callable[[str, int], None]
) -> None:
    """When a fault passes, the answer is right, and the request takes effect once."""
    number = world.number()
    proxy.rule()
    way.prepare(world, number)
    proxy.rule(*rules(way, fault, times=fault.times))
    assert part_of(way.result, world.ask(way.ask, number)) == way.result
    if fault.is_fast:
        assert world.calls == way.tried(1 + fault.times)
    assert proxy.fired() == way.passes + fault.times
    record_property("faults", fault.times)
    again = way.repeated or way.result
    assert part_of(again, world.ask(way.ask, number)) == again  # the ledger has it once


@every_call_and_fault
def test_lasting_fault_is_an_error_and_the_same_request_settles_it(
    proxy: Proxy, world: World, way: Way, fault: Fault, record_property: Callable[[str, int], None]
) -> None:
    """When a fault lasts, the answer is an error. The same request later takes effect once."""
    number = world.number()
    proxy.rule()
    way.prepare(world, number)
    proxy.rule(*rules(way, fault))
    tries = fault.tries
    failure = dict(way.failure)
    if "state" in failure:
        failure["code"] = fault.code
    seconds = seconds_until(way.position, tries=tries)
    assert part_of(failure, world.ask(way.ask, number, seconds=seconds)) == failure
    assert world.calls == way.tried(tries)[: way.position + tries]
    record_property("faults", tries)
    proxy.rule()
    again = way.repeated or way.result
    settled = again if fault.commits and API_NAMES[way.call] == WRITE else way.result
    assert part_of(settled, world.ask(way.ask, number)) == settled
    assert part_of(again, world.ask(way.ask, number)) == again


def test_storm_of_faults_breaks_no_invariant(
    proxy: Proxy,
    straight_client: "DynamoDBClient",
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, int], None],
) -> None:
    """Clients race for the same owners and nonces under all faults: all invariants hold."""
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
    found = [violation for book in books for violation in violations(book, storm.answers)]
    assert not found, (f"SEED={seed}", *map(str, found))
    stored = [entry for book in books for entry in book.entries]
    unstored = [entry for entry in storm.seen if entry not in stored]
    assert not unstored, f"SEED={seed}: a client read an entry that is not stored"
    rewarded = [[entry.nonce for entry in book.entries].count(REWARD.nonce) for book in books]
    assert rewarded == [min(book.head.entry_count, 1) for book in books], f"SEED={seed}"
    outcomes = Counter(answer.outcome for answer in storm.answers)
    assert min(faults, outcomes[Outcome.ACCEPTED]) > STORM_REQUESTS / 10, f"SEED={seed}: {outcomes}"
    for outcome in Outcome:
        name = "replayed" if outcome is Outcome.DUPLICATE else str(outcome)
        record_property(name, outcomes[outcome])
    record_property("requests", STORM_REQUESTS)
    record_property("faults", faults)


def storm_rules(chance: Random) -> list[dict[str, Any]]:
    """Rules for each fault of each call, a few of many times."""
    return [
        {
            "operation": name,
            "sequence": {"fail": chance.randint(1, 3), "pass": chance.randint(20, 60)},
            **fault.rule,
        }
        for name in sorted(set(API_NAMES.values()))
        for fault in FAULTS.values()
        if fault.can_hit(name)
    ]


def rules(way: Way, fault: Fault, **times: int) -> list[dict[str, Any]]:
    """The rules of a fault: let the first calls pass, and break the next."""
    operation = {"operation": API_NAMES[way.call]}
    passing = [{**operation, "times": way.passes, "latency": 0}] if way.passes else []
    return [*passing, {**operation, **fault.rule, **times}]


def part_of(expected: Result, result: Result) -> Result:
    """The fields of a result that a test expects."""
    return {name: result.get(name) for name in expected}
