"""Long ledgers, made quickly: most of their entries are put 25 to a request, which no role on AWS may do."""

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
"""Items that BatchWriteItem takes."""
STEP = 5_000
"""Entries that are in memory at a time."""
THREADS = 4
CONFIG = CLIENT_CONFIG.merge(
    Config(read_timeout=60, retries={"mode": "standard", "total_max_attempts": 5})
)
"""With time for a DynamoDB Local that has much to do."""


class Seeded(NamedTuple):
    """An owner's ledger: how many entries it has, and when the one in the middle was posted."""

    owner_id: str
    entries: int
    middle: datetime


def seed(owner_id: str, entries: int) -> Seeded:
    """Write a ledger of at least two entries of one credit each, to the tables that the environment names.

    The first and the last entry are the store's to write, with the balance's row.
    """
    store, chain = create_store(), _chain(owner_id, entries)
    first = next(chain)
    begun = change_of(Account(owner_id=owner_id), first)
    store.transact([begun], token=str(uuid4()))
    write = partial(_write, create_client(CONFIG), load_settings().entries_table)
    with ThreadPoolExecutor(THREADS) as threads:
        between = islice(chain, entries - 2)
        while step := list(islice(between, STEP)):
            list(
                threads.map(
                    write, (step[start : start + BATCH] for start in range(0, len(step), BATCH))
                )
            )
    last = next(chain)
    store.transact(
        [AccountChange((last,), begun.after, begun.after.after(last))], token=str(uuid4())
    )
    if store.account(owner_id, consistent=True).head != Head.at(last):
        raise RuntimeError(f"the ledger of {owner_id} does not end with its last entry")
    return Seeded(owner_id, entries, SEEDED_AT + entries // 2 * TIME_STEP_MIN)


def _chain(owner_id: str, entries: int) -> Iterator[LedgerEntry]:
    head = Account(owner_id=owner_id)
    for number in range(entries):
        entry = head.next_entry(add(1, f"{number:036}", owner_id=owner_id), amount=1, now=SEEDED_AT)
        yield entry
        head = account_after(entry)


def _write(client: "DynamoDBClient", table: str, entries: list[LedgerEntry]) -> None:
    answer = client.batch_write_item(
        RequestItems={table: [{"PutRequest": {"Item": entry_item(entry)}} for entry in entries]}
    )
    if answer["UnprocessedItems"]:
        raise RuntimeError("DynamoDB Local did not take the whole batch")
