"""PynamoDB: two models, a transaction that writes both, and a read of the new balance."""

import os
from datetime import UTC, datetime

from fastapi import FastAPI, HTTPException
from pynamodb.attributes import NumberAttribute, UnicodeAttribute
from pynamodb.connection import Connection
from pynamodb.exceptions import TransactWriteError
from pynamodb.models import Model
from pynamodb.transactions import TransactWrite

from tests.benchmarks.peers.contract import EntryRequest, PostedEntry, entry_key

__all__ = ["app"]

REGION, HOST = os.environ["AWS_REGION"], os.environ.get("AWS_ENDPOINT_URL_DYNAMODB")


class Entry(Model):
    """One accepted operation."""

    class Meta:
        table_name, region, host = os.environ["LEDGER_ENTRIES_TABLE"], REGION, HOST

    entry_key = UnicodeAttribute(hash_key=True)
    account = UnicodeAttribute()
    owner_id = UnicodeAttribute()
    operation = UnicodeAttribute()
    nonce = UnicodeAttribute()
    amount = NumberAttribute()
    created_at = UnicodeAttribute()


class Balance(Model):
    """The balance of an owner."""

    class Meta:
        table_name, region, host = os.environ["LEDGER_ACCOUNTS_TABLE"], REGION, HOST

    account = UnicodeAttribute(hash_key=True)
    balance = NumberAttribute()


connection = Connection(region=REGION, host=HOST)
app = FastAPI()


@app.post("/ledger/entry")
def post_entry(request: EntryRequest) -> PostedEntry:
    """Post an operation."""
    amount, now = request.signed_amount, datetime.now(UTC)
    fields = {**request.model_dump(exclude={"amount"}), "amount": amount}
    entry = Entry(
        entry_key(request), account=request.owner_id, **fields, created_at=now.isoformat()
    )
    try:
        with TransactWrite(connection=connection) as transaction:
            transaction.save(entry, condition=Entry.entry_key.does_not_exist())
            transaction.update(
                Balance(request.owner_id),
                actions=[Balance.balance.add(amount)],
                condition=Balance.balance >= -amount if amount < 0 else None,
            )
    except TransactWriteError as error:
        put_failed, update_failed = (
            one.code if one else None for one in error.cancellation_reasons
        )
        if put_failed == "ConditionalCheckFailed":
            raise HTTPException(409, "the nonce was used") from error
        if update_failed == "ConditionalCheckFailed":
            raise HTTPException(402, "the balance is too low") from error
        raise HTTPException(503, "try again") from error
    balance = int(Balance.get(request.owner_id, consistent_read=True).balance)
    return PostedEntry(**fields, balance=balance, created_at=now)
