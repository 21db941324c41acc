"""Creates long ledgers quickly: it puts 25 entries by a request, which no role on AWS may do."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

from botocore.config import Config

from ledger_core.account import Account, AccountChange, Head
from ledger_core.dynamodb import CLIENT_CONFIG
from ledger_core.dynamodb.expressions import entry_item
from ledger_core.fields import TIME_STEP_MIN
from ledger_core.models import LedgerEntry
from ledger_core.wiring import create_client, create_store, load_settings
from tests.support import account_after, add, change_of

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

__all__ = ["Seeded", "seed"]

SEEDED_AT = datetime(2026, 11, 17, 12, tzinfo=UTC)
BATCH = 25
"""The items of a BatchWriteItem."""
STEP = 5_000
"""The entries that are in memory at a time."""
THREADS = 4
CONFIG = CLIENT_CONFIG.merge(
    Config(read_timeout=60, retries={"mode": "standard", "total_max_attempts": 5})
)
"""Waits long enough for a busy DynamoDB Local."""


class Seeded(NamedTuple):
    """An owner's ledger: the number of its entries, and the time of the entry in the middle."""

    owner_id: str
    entries: int
    middle: datetime


def seed(owner_id: str, entries: int) -> Seeded:
    """Write a ledger of two or more entries of one credit to the tables of the environment.

    The store writes the first and the last entry, with the account.
    """
    store = create_store()
    chain = _entries(owner_id, entries)
    first = change_of(Account(owner_id=owner_id), next(chain))
    store.transact([first], token=str(uuid4()))
    write = partial(_write, create_client(CONFIG), load_settings().entries_table)
    with ThreadPoolExecutor(THREADS) as threads:
        between = islice(chain, entries - 2)
        while step := list(islice(between, STEP)):
            batches = [step[start : start + BATCH] for start in range(0, len(step), BATCH)]
            list(threads.map(write, batches))
    last = next(chain)
    change = AccountChange((last,), first.after, first.after.after(last))
    store.transact([change], token=str(uuid4()))
    if store.account(owner_id, consistent=True).head != Head.at(last):
        raise RuntimeError(f"the ledger of {owner_id} does not end with its last entry")
    return Seeded(owner_id, entries, SEEDED_AT + entries // 2 * TIME_STEP_MIN)


def _entries(owner_id: str, entries: int) -> Iterator[LedgerEntry]:
    account = Account(owner_id=owner_id)
    for number in range(entries):
        request = add(1, f"{number:036}", owner_id=owner_id)
        entry = account.next_entry(request, amount=1, now=SEEDED_AT)
        yield entry
        account = account_after(entry)


def _write(client: "DynamoDBClient", table: str, entries: list[LedgerEntry]) -> None:
    items = [entry_item(entry) for entry in entries]
    answer = client.batch_write_item(
        RequestItems={table: [{"PutRequest": {"Item": item}} for item in items]}
    )
    if answer["UnprocessedItems"]:
        raise RuntimeError("DynamoDB Local did not take the whole batch")
