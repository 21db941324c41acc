"""The benchmarks' sizes and units, compared with those of DynamoDB Local."""

from typing import TYPE_CHECKING, Any

import pytest

from ledger_core.account import Account
from ledger_core.dynamodb.expressions import entry_item, key_of_account
from tests.benchmarks.units import item_bytes, write_units_of_balance, write_units_of_entry
from tests.support import NOON, operation

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


@pytest.mark.parametrize(
    "attributes", [{}, {"n": {"N": "-1234567"}}, {"m": {"M": {"ü": {"S": "é"}, "l": {"M": {}}}}}]
)
def test_size_is_dynamodb_s(real_client: "DynamoDBClient", attributes: dict[str, Any]) -> None:
    """An item of 1,024 bytes takes one write unit; a further byte takes a second unit."""
    real_client.create_table(
        TableName="sizes",
        AttributeDefinitions=[{"AttributeName": "k", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "k", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )
    try:
        for size, units in ((1024, 1.0), (1025, 2.0)):
            item: dict[str, Any] = {"k": {"S": "key"}, "pad": {"S": ""}, **attributes}
            item["pad"]["S"] = "x" * (size - item_bytes(item))
            assert item_bytes(item) == size
            put = real_client.put_item(TableName="sizes", Item=item, ReturnConsumedCapacity="TOTAL")
            assert put["ConsumedCapacity"]["CapacityUnits"] == units
    finally:
        real_client.delete_table(TableName="sizes")


def test_entry_below_a_kilobyte_takes_five_units_with_its_balance() -> None:
    """2 and 2 in the transaction, 1 for the index; an entry above a kilobyte takes 3 more."""
    account = Account(owner_id="ada")
    small, large = (
        account.next_entry(operation(metadata={"note": "x" * size}), amount=3, now=NOON)
        for size in (100, 800)
    )
    row = {**key_of_account("ada"), "balance": {"N": "3"}}
    assert write_units_of_entry(entry_item(small)) + write_units_of_balance({}, row) == 5
    assert write_units_of_entry(entry_item(large)) + write_units_of_balance(row, row) == 8
