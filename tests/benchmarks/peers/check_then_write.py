"""boto3's resource: check the nonce, check the balance, put the entry, move the balance.

This is a naive ledger. Two requests at the same time may both pass the checks.
"""

import os
from datetime import UTC, datetime

import boto3
from fastapi import FastAPI, HTTPException

from tests.benchmarks.peers.contract import EntryRequest, PostedEntry, entry_key

__all__ = ["app"]

dynamodb = boto3.resource("dynamodb")
entries = dynamodb.Table(os.environ["LEDGER_ENTRIES_TABLE"])
balances = dynamodb.Table(os.environ["LEDGER_ACCOUNTS_TABLE"])
app = FastAPI()


@app.post("/ledger/entry")
def post_entry(request: EntryRequest) -> PostedEntry:
    """Post an operation."""
    amount, now = request.signed_amount, datetime.now(UTC)
    if "Item" in entries.get_item(Key={"entry_key": entry_key(request)}, ConsistentRead=True):
        raise HTTPException(409, "the nonce was used")
    found = balances.get_item(Key={"account": request.owner_id}, ConsistentRead=True).get(
        "Item", {"balance": 0}
    )
    if int(str(found["balance"])) + amount < 0:
        raise HTTPException(402, "the balance is too low")
    entries.put_item(
        Item={
            "entry_key": entry_key(request),
            "account": request.owner_id,
            "owner_id": request.owner_id,
            "operation": request.operation,
            "nonce": request.nonce,
            "amount": amount,
            "created_at": now.isoformat(),
        }
    )
    moved = balances.update_item(
        Key={"account": request.owner_id},
        UpdateExpression="ADD balance :amount",
        ExpressionAttributeValues={":amount": amount},
        ReturnValues="UPDATED_NEW",
    )
    balance = int(str(moved["Attributes"]["balance"]))
    return PostedEntry(
        **request.model_dump(exclude={"amount"}), amount=amount, balance=balance, created_at=now
    )
