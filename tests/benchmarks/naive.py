"""A naive ledger on the same tables: read the nonce, read the balance, put, update."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from functions.example_app.operations import ExampleAppOperations
from ledger_core.dynamodb.decode import entry_from
from ledger_core.dynamodb.expressions import entry_item, key_of_account
from ledger_core.errors import DuplicateNonceError, InsufficientBalanceError
from ledger_core.fields import format_time
from ledger_core.keys import entry_key
from ledger_core.models import LedgerEntry, OperationRequest
from ledger_core.wiring import create_store, load_settings
from tests.support import item_from

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

__all__ = ["NaiveLedger"]

MOVE_BALANCE = (
    "SET balance = if_not_exists(balance, :zero) + :amount, "
    "entry_count = if_not_exists(entry_count, :zero) + :one, head_hash = :hash, "
    "created_at = if_not_exists(created_at, :now), updated_at = :now, active_at = :now"
)


class NaiveLedger:
    """A ledger whose writes have no condition, so it is right only if no other process writes."""

    def __init__(self, client: "DynamoDBClient") -> None:
        self._client = client
        self._settings = load_settings()
        self._store = create_store(client)
        self._configs = ExampleAppOperations.get_operation_config()

    def process(self, request: OperationRequest) -> LedgerEntry:
        """Post an operation. It raises the same errors as the processor."""
        amount = self._configs[request.operation].signed_amount(request.amount)
        used = self._client.get_item(
            TableName=self._settings.entries_table,
            Key={"entry_key": {"S": entry_key(request.owner_id, request.nonce)}},
            ConsistentRead=True,
            ReturnConsumedCapacity="TOTAL",
        )
        if "Item" in used:
            stored = entry_from(used["Item"])
            raise DuplicateNonceError(entry=stored, replay=stored.answers(request, amount=amount))
        head = self._store.account(request.owner_id, consistent=True)
        if head.balance + amount < 0:
            raise InsufficientBalanceError(balance=head.balance, required=-amount)
        entry = head.next_entry(request, amount=amount, now=datetime.now(UTC))
        self._client.put_item(TableName=self._settings.entries_table, Item=entry_item(entry))
        values = {
            ":zero": 0,
            ":one": 1,
            ":amount": amount,
            ":hash": entry.hash,
            ":now": format_time(entry.created_at),
        }
        self._client.update_item(
            TableName=self._settings.accounts_table,
            Key=key_of_account(request.owner_id),
            UpdateExpression=MOVE_BALANCE,
            ExpressionAttributeValues=item_from(values),
        )
        return entry
