"""boto3 and DynamoDB with the ledger's transactions alone: no HTTP, no rules.

The transactions are computed beforehand. A thread writes all transactions of an owner, because
they need their order.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

from functions.example_app.operations import ExampleAppOperations
from ledger_core.account import Account
from ledger_core.dynamodb.expressions import transact_items
from ledger_core.operations import LedgerOperationType
from ledger_core.wiring import load_settings
from tests.benchmarks.load import Load
from tests.support import ROOT, change_of, operation

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

__all__ = ["written"]

Transaction = list[Any]


def written(loads: Iterable[Load], environment: Mapping[str, str]) -> list[float]:
    """The seconds of each load, which a new process writes to the tables of the environment."""
    command = [sys.executable, "-m", "tests.benchmarks.raw", json.dumps([*loads])]
    program = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=ROOT, env=environment)
    seconds: list[float] = json.loads(program.stdout)
    return seconds


def _seconds(client: "DynamoDBClient", owners: list[list[Transaction]], threads: int) -> float:
    def write(first: int) -> None:
        mine = owners[first::threads]
        for step in range(max(map(len, mine), default=0)):
            for transactions in mine:
                if step < len(transactions):
                    client.transact_write_items(TransactItems=transactions[step])

    with ThreadPoolExecutor(threads) as pool:
        begun = time.perf_counter()
        list(pool.map(write, range(threads)))
        return time.perf_counter() - begun


class _Accounts:
    """The owners' accounts after all transactions so far."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}
        self._operations = ExampleAppOperations.get_operation_config()
        self._settings = load_settings()

    def transactions(self, load: Load) -> list[list[Transaction]]:
        """The transactions of a load: those of each owner, in order."""
        by_owner: defaultdict[str, list[Transaction]] = defaultdict(list)
        for body in load.bodies():
            owner_id = str(body["owner_id"])
            name = LedgerOperationType(str(body["operation"]))
            request = operation(
                name, str(body["nonce"]), owner_id=owner_id, amount=int(body["amount"])
            )
            amount = self._operations[name].signed_amount(request.amount)
            account = self._accounts.get(owner_id) or Account(owner_id=owner_id)
            entry = account.next_entry(request, amount=amount, now=datetime.now(UTC))
            items = transact_items(
                change_of(account, entry),
                entries_table=self._settings.entries_table,
                accounts_table=self._settings.accounts_table,
            )
            by_owner[owner_id].append(items)
            self._accounts[owner_id] = account.after(entry)
        return list(by_owner.values())


def _main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.raw", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("loads", type=json.loads, help="the fields of each Load, as JSON")
    loads = [Load(*fields) for fields in parser.parse_args().loads]
    pool = Config(max_pool_connections=max(load.connections for load in loads))
    client = boto3.client("dynamodb", region_name=os.environ["AWS_REGION"], config=pool)
    accounts = _Accounts()
    seconds = [_seconds(client, accounts.transactions(load), load.connections) for load in loads]
    print(json.dumps(seconds))


if __name__ == "__main__":
    _main()
