"""Plain boto3: a transaction puts the entry and moves the balance; a read gets the new balance."""

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import boto3
from fastapi import FastAPI, HTTPException

from tests.benchmarks.peers.contract import EntryRequest, PostedEntry, entry_key

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import PutTypeDef, UpdateTypeDef

__all__ = ["app"]

ENTRIES, BALANCES = os.environ["LEDGER_ENTRIES_TABLE"], os.environ["LEDGER_ACCOUNTS_TABLE"]

client = boto3.client("dynamodb")
app = FastAPI()


@app.post("/ledger/entry")
def post_entry(request: EntryRequest) -> PostedEntry:
    """Post an operation."""
    amount, now = request.signed_amount, datetime.now(UTC)
    entry = {
        "entry_key": {"S": entry_key(request)},
        "account": {"S": request.owner_id},
        "owner_id": {"S": request.owner_id},
        "operation": {"S": request.operation.value},
        "nonce": {"S": request.nonce},
        "amount": {"N": str(amount)},
        "created_at": {"S": now.isoformat()},
    }
    key = {"account": {"S": request.owner_id}}
    update: UpdateTypeDef = {
        "TableName": BALANCES,
        "Key": key,
        "UpdateExpression": "SET balance = if_not_exists(balance, :zero) + :amount",
        "ExpressionAttributeValues": {":amount": {"N": str(amount)}, ":zero": {"N": "0"}},
    }
    if amount < 0:
        update = {
            **update,
            "UpdateExpression": "SET balance = balance + :amount",
            "ConditionExpression": "balance >= :needed",
            "ExpressionAttributeValues": {
                ":amount": {"N": str(amount)},
                ":needed": {"N": str(-amount)},
            },
        }
    put: PutTypeDef = {
        "TableName": ENTRIES,
        "Item": entry,
        "ConditionExpression": "attribute_not_exists(entry_key)",
    }
    try:
        client.transact_write_items(TransactItems=[{"Put": put}, {"Update": update}])
    except client.exceptions.TransactionCanceledException as error:
        put_failed, update_failed = (one["Code"] for one in error.response["CancellationReasons"])
        if put_failed == "ConditionalCheckFailed":
            raise HTTPException(409, "the nonce was used") from error
        if update_failed == "ConditionalCheckFailed":
            raise HTTPException(402, "the balance is too low") from error
        raise HTTPException(503, "try again") from error
    item = client.get_item(TableName=BALANCES, Key=key, ConsistentRead=True)["Item"]
    return PostedEntry(
        **request.model_dump(exclude={"amount"}),
        amount=amount,
        balance=int(item["balance"]["N"]),
        created_at=now,
    )
