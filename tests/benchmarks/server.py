"""The ledger's server against other servers for the same endpoint, and against boto3 alone.

Each server is one process. Its cost is the CPU time of that process with all its threads, so that
DynamoDB, the load and the rest of the machine do not count.
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
"""The entries before the measurement, so that no owner is new in it."""
OWNERS = {"one owner": 1, "320 owners": 320}
OURS = "the ledger"
BASE = "plain boto3"
RAW = "boto3 without a server"
PEERS = {
    BASE: "plain",
    "check, then write": "check_then_write",
    "PynamoDB": "pynamodb_models",
    "SQLAlchemy and asyncpg": "sqlalchemy_asyncpg",
    "a function in PostgreSQL": "sql_function",
}
UVICORN = (
    *("--host", "127.0.0.1"),
    *("--log-level", "warning"),
    *("--ws", "none"),
    *("--timeout-graceful-shutdown", "5"),
)
"""The options of infra.run."""
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
KEEP_PID = 'echo $$ > "$0"; exec "$@"'


class Cost(NamedTuple):
    """The cost of a load."""

    seconds: float
    cpu_seconds: float = 0.0
    refused: int = 0
    """Answers other than 200."""


Costs = dict[str, list[Cost]]
"""The costs of each load, one for each round."""


def run() -> Part:
    """Measure each server and boto3 alone, in turn."""
    costs: dict[str, Costs] = {name: {load: [] for load in OWNERS} for name in (OURS, RAW, *PEERS)}
    with (
        dynamodb_local() as endpoint,
        postgresql() as database,
        tempfile.TemporaryDirectory() as data,
    ):
        os.environ.update(AWS_ENDPOINT_URL_DYNAMODB=endpoint, DATABASE_URL=database)
        os.environ["AWS_DEFAULT_REGION"] = os.environ["AWS_REGION"]
        _costs_of(peer("plain"), "warm-up")  # Java compiles the code of DynamoDB Local
        for number in range(ROUNDS):
            for name in costs:
                run_name = f"round-{number}-{name}".replace(" ", "-").replace(",", "")
                for load, cost in _costs_by_load(name, run_name, data).items():
                    costs[name][load].append(cost)
    rows: list[Row] = []
    for load in OWNERS:
        rows += _rows(load, {name: costs[name][load] for name in costs})
    return Part(
        "One server process",
        f"{CONNECTIONS} connections post {ENTRIES} spends of owners that the server knows; ratios "
        f"of medians, for entries/s medians of ratios, of {ROUNDS} rounds in turn; CPU time as a "
        f"ratio to that of {BASE}",
        rows,
    )


def _costs_by_load(name: str, run_name: str, data: str) -> dict[str, Cost]:
    if name == RAW:
        return _raw_costs(run_name)
    if name == OURS:
        return _costs_of(_ours(data), run_name)
    return _costs_of(peer(PEERS[name]), run_name)


def peer(module: str) -> list[str]:
    """The command that starts a peer, without the port at its end."""
    app = f"tests.benchmarks.peers.{module}:app"
    return [sys.executable, "-m", "uvicorn", app, *UVICORN, "--port"]


def _ours(data: str) -> list[str]:
    endpoint = os.environ["AWS_ENDPOINT_URL_DYNAMODB"]
    store = ["--data", data, "--endpoint", endpoint]
    return [sys.executable, "-m", "infra.run", *store, "--log", "json", "--one-cpu", "--port"]


@contextlib.contextmanager
def with_new_tables(name: str) -> Iterator[Mapping[str, str]]:
    """Create new tables until the end of the block, and give the environment that names them."""
    tables = {f"LEDGER_{kind}_TABLE": f"{name}-{kind.lower()}" for kind in ("ENTRIES", "ACCOUNTS")}
    client = create_client()
    create_tables(client, tables)
    yield {**os.environ, **tables}
    for table in tables.values():
        client.delete_table(TableName=table)


@contextlib.contextmanager
def serving(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[tuple[int, int]]:
    """Run a server until the end of the block, and give its port and its process id."""
    port = free_port()
    with (
        tempfile.NamedTemporaryFile("r") as pid,
        running(
            " ".join(command[2:4]),
            ["sh", "-c", KEEP_PID, pid.name, *command, str(port)],
            port=port,
            log=CACHE / "benchmarks.log",
            folder=ROOT,
            environment=environment,
        ),
    ):
        yield port, int(pid.read())


def cost_of(load: Load, port: int, pid: int) -> Cost:
    """Put a load on a server, and measure its cost."""
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
    """The costs without a server. A thread writes all transactions of an owner, in order."""
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
    throughput = median(
        bare.seconds / ours.seconds for bare, ours in zip(costs[RAW], costs[OURS], strict=True)
    )
    yield ratio(f"{load}: entries/s of {OURS}, to {RAW}", throughput, at_least=THROUGHPUT_MIN)
    refused = sum(cost.refused for name in costs for cost in costs[name])
    yield count(f"{load}: answers other than 200, of all", refused, exactly=0)
