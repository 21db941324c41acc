"""The benchmarks of load count right, and a hot owner on one server stays within bounds."""

from collections import Counter
from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.benchmarks import raw
from tests.benchmarks.hot import Environment, Race, run_race
from tests.benchmarks.load import Load
from tests.benchmarks.server import cost_of, peer, serving, with_new_tables

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

WRITERS = 8
WRITERS_APART = 4
ENTRIES = 32
CONFLICTS = 0.25
SEED = 20261122


def counts_of(race: Race) -> Counter[str]:
    environments = [Environment() for _ in range(race.environments)]
    return run_race("test", race, environments, Random(SEED), entries=ENTRIES).counts


def test_hot_owner_on_one_server_takes_at_most_a_request_an_entry(
    real_client: "DynamoDBClient",
) -> None:
    """Eight threads with one processor and owner send at most a request an entry, without a 503."""
    counts = counts_of(Race(WRITERS, 1, 1))
    assert (counts["accepted"], counts["puts"], counts["ended in 503"]) == (ENTRIES, ENTRIES, 0)
    assert counts["balance updates"] == counts["requests"] <= ENTRIES


def test_what_environments_send_to_a_hot_owner_is_counted(real_client: "DynamoDBClient") -> None:
    """An attempt puts and updates, and is accepted or finds a stale account; a pause reads."""
    counts = counts_of(Race(WRITERS_APART, WRITERS_APART, 1))
    assert counts["accepted"] + counts["ended in 503"] == ENTRIES
    assert counts["puts"] == counts["balance updates"] >= counts["accepted"] + counts["stale heads"]
    assert counts["puts"] <= counts["requests"] <= counts["puts"] + counts["retries"]


def test_conflicts_are_met_and_overcome(real_client: "DynamoDBClient") -> None:
    """A transaction that a conflict cancels is sent again, and each entry is accepted."""
    counts = counts_of(Race(1, 1, 1, conflicts=CONFLICTS))
    assert (counts["accepted"], counts["ended in 503"], counts["stale heads"]) == (ENTRIES, 0, 0)
    assert counts["requests"] == ENTRIES + counts["retries"] > ENTRIES


def test_load_is_put_on_a_server_and_its_answers_are_counted(
    real_client: "DynamoDBClient", monkeypatch: pytest.MonkeyPatch
) -> None:
    """The benchmark counts refusals: a second run of the same load has only used nonces."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    load = Load("test", 8, 4, 4, funding=True)
    with (
        with_new_tables("test-load") as environment,
        serving(peer("plain"), environment) as (port, pid),
    ):
        assert cost_of(load, port, pid).refused == 0
        assert cost_of(load._replace(funding=False), port, pid).refused == 0
        assert cost_of(load, port, pid).refused == load.entries


def test_same_load_is_written_without_a_server(real_client: "DynamoDBClient") -> None:
    """DynamoDB accepts all transactions that are computed beforehand."""
    load = Load("test", 8, 4, 4, funding=True)
    with with_new_tables("test-raw") as environment:
        raw.written([load, load._replace(funding=False)], environment)
        table = environment["LEDGER_ENTRIES_TABLE"]
        stored = real_client.scan(TableName=table, Select="COUNT")["Count"]
        assert stored == 2 * load.entries
