"""The ledger's server beside servers that teams write for the same endpoint, and beside boto3 without any server.

Each is one process. What a load costs it is the CPU time of that process with all its threads, so that it does not
matter what DynamoDB, the load and the rest of the machine take.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from infra.dynamodb import CACHE, create_tables, dynamodb_local
from infra.processes import free_port, running
from ledger_core.wiring import create_client
from tests.benchmarks import raw
from tests.benchmarks.load import Load, put_on
from tests.benchmarks.peers.postgresql import postgresql
from tests.benchmarks.report import Part, Row, count, ratio, ratio_of_medians
from tests.support import ROOT

__all__ = ["Cost", "cost_of", "peer", "run", "serving", "with_new_tables"]

CPU_MAX = 0.45
THROUGHPUT_MIN = 0.85
ROUNDS = 3
CONNECTIONS = 32
ENTRIES = 320
WARM_UP_ENTRIES = 320
"""With which a server and its owners begin: nobody is new when it is measured."""
OWNERS = {"one owner": 1, "320 owners": 320}
OURS, BASE, RAW = "the ledger", "plain boto3", "boto3 without a server"
PEERS = {
    BASE: "plain",
    "check, then write": "check_then_write",
    "PynamoDB": "pynamodb_models",
    "SQLAlchemy and asyncpg": "sqlalchemy_asyncpg",
    "a function in PostgreSQL": "sql_function",
}
UVICORN = (
    "--host",
    "127.0.0.1",
    "--log-level",
    "warning",
    "--ws",
    "none",
    "--timeout-graceful-shutdown",
    "5",
)
"""As in infra.run."""
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
KEEP_PID = 'echo $$ > "$0"; exec "$@"'


class Cost(NamedTuple):
    """What a load took."""

    seconds: float
    cpu_seconds: float = 0.0
    refused: int = 0
    """Answers other than 200."""


Costs = dict[str, list[Cost]]
"""By load, one of each round."""


def run() -> Part:
    """Every server, and boto3 without one, in turn."""
    costs: dict[str, Costs] = {name: {load: [] for load in OWNERS} for name in (OURS, RAW, *PEERS)}
    with (
        dynamodb_local() as endpoint,
        postgresql() as database,
        tempfile.TemporaryDirectory() as data,
    ):
        os.environ.update(AWS_ENDPOINT_URL_DYNAMODB=endpoint, DATABASE_URL=database)
        os.environ["AWS_DEFAULT_REGION"] = os.environ["AWS_REGION"]
        _costs_of(
            peer("plain"), "warm-up"
        )  # of DynamoDB Local, whose code Java has not compiled yet
        for number in range(ROUNDS):
            for name in costs:
                run_name = f"round-{number}-{name}".replace(" ", "-").replace(",", "")
                if name == RAW:
                    found = _raw_costs(run_name)
                else:
                    found = _costs_of(_ours(data) if name == OURS else peer(PEERS[name]), run_name)
                for load, cost in found.items():
                    costs[name][load].append(cost)
    return Part(
        "One server process",
        f"{CONNECTIONS} connections post {ENTRIES} spends of owners that the server knows; ratios of medians, for "
        f"entries/s medians of ratios, of {ROUNDS} rounds in turn; CPU time as a ratio to that of {BASE}",
        [
            row
            for load in OWNERS
            for row in _rows(load, {name: costs[name][load] for name in costs})
        ],
    )


def peer(module: str) -> list[str]:
    """How a peer is started; its port is to follow."""
    return [
        sys.executable,
        "-m",
        "uvicorn",
        f"tests.benchmarks.peers.{module}:app",
        *UVICORN,
        "--port",
    ]


def _ours(data: str) -> list[str]:
    endpoint = os.environ["AWS_ENDPOINT_URL_DYNAMODB"]
    measured = ["--log", "json", "--one-cpu"]
    return [
        sys.executable,
        "-m",
        "infra.run",
        "--data",
        data,
        "--endpoint",
        endpoint,
        *measured,
        "--port",
    ]


@contextlib.contextmanager
def with_new_tables(name: str) -> Iterator[Mapping[str, str]]:
    """Tables of their own until the end of the block; gives the environment that names them."""
    tables = {f"LEDGER_{kind}_TABLE": f"{name}-{kind.lower()}" for kind in ("ENTRIES", "ACCOUNTS")}
    client = create_client()
    create_tables(client, tables)
    yield {**os.environ, **tables}
    for table in tables.values():
        client.delete_table(TableName=table)


@contextlib.contextmanager
def serving(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[tuple[int, int]]:
    """Run a server until the end of the block; gives its port and the id of its process."""
    port, log = free_port(), CACHE / "benchmarks.log"
    with tempfile.NamedTemporaryFile("r") as pid:
        kept = ["sh", "-c", KEEP_PID, pid.name, *command, str(port)]
        with running(
            " ".join(command[2:4]), kept, port=port, log=log, folder=ROOT, environment=environment
        ):
            yield port, int(pid.read())


def cost_of(load: Load, port: int, pid: int) -> Cost:
    """Put a load on a server, and take its time."""
    begun = _cpu_seconds(pid)
    answered = put_on(port, load)
    refused = load.entries - answered.statuses.get(200, 0)
    return Cost(answered.seconds, _cpu_seconds(pid) - begun, refused)


def _costs_of(command: Sequence[str], run_name: str) -> dict[str, Cost]:
    costs = {}
    with with_new_tables(run_name) as environment, serving(command, environment) as (port, pid):
        for name, owners in OWNERS.items():
            warm_up, load = _loads(f"{run_name}-{owners}", owners, CONNECTIONS)
            put_on(port, warm_up)
            costs[name] = cost_of(load, port, pid)
    return costs


def _raw_costs(run_name: str) -> dict[str, Cost]:
    """One owner's transactions have to be one after the other, so they are in one thread."""
    with with_new_tables(run_name) as environment:
        pairs = [
            _loads(f"{run_name}-{owners}", owners, min(owners, CONNECTIONS))
            for owners in OWNERS.values()
        ]
        seconds = raw.written([load for pair in pairs for load in pair], environment)
    return dict(zip(OWNERS, map(Cost, seconds[1::2]), strict=True))


def _loads(name: str, owners: int, connections: int) -> tuple[Load, Load]:
    warm_up = Load(name, WARM_UP_ENTRIES, owners, connections, funding=True)
    return warm_up, Load(name, ENTRIES, owners, connections)


def _cpu_seconds(pid: int) -> float:
    """User and system time of a process, with all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / TICKS_PER_SECOND


def _rows(load: str, costs: Mapping[str, Sequence[Cost]]) -> Iterator[Row]:
    def cpu(name: str) -> list[float]:
        return [cost.cpu_seconds for cost in costs[name]]

    yield ratio(
        f"{load}: CPU time an entry, {OURS}",
        ratio_of_medians(cpu(OURS), cpu(BASE)),
        at_most=CPU_MAX,
    )
    for name in PEERS:
        yield ratio(f"{load}: CPU time an entry, {name}", ratio_of_medians(cpu(name), cpu(BASE)))
    pace = median(
        bare.seconds / ours.seconds for bare, ours in zip(costs[RAW], costs[OURS], strict=True)
    )
    yield ratio(f"{load}: entries/s of {OURS}, to {RAW}", pace, at_least=THROUGHPUT_MIN)
    refused = sum(cost.refused for name in costs for cost in costs[name])
    yield count(f"{load}: answers other than 200, of all", refused, exactly=0)
