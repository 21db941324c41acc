"""The requests that a call sends to DynamoDB, and the capacity units that they take."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ledger_core.dynamodb.decode import units_from
from ledger_core.dynamodb.expressions import key_of_account
from ledger_core.dynamodb.store import INDEX_BY_ACCOUNT
from ledger_core.wiring import load_settings
from tests.benchmarks.units import write_units_of_balance, write_units_of_entry
from tests.support import wire

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

__all__ = ["Meter", "Taken"]

READS = frozenset({"GetItem", "Query", "TransactGetItems"})
Item = Mapping[str, Any]


class Taken(NamedTuple):
    """The requests of a call, by name, and the units of the reads and of the stored writes.

    DynamoDB also charges for a write that a condition stops, but does not say how much.
    """

    requests: tuple[str, ...]
    read_units: float
    write_units: int

    def __str__(self) -> str:
        return f"{len(self.requests)} / {self.read_units:g} / {self.write_units}"


class Meter:
    """Counts the requests of a client, without its own."""

    def __init__(self, client: "DynamoDBClient") -> None:
        self._client = client
        self._settings = load_settings()
        self._requests = wire(client)
        self._read_units: list[float] = []
        client.meta.events.register("after-call.dynamodb", self._on_answer)

    def of(self, owner_id: str, call: Callable[[], object]) -> Taken:
        """The cost of a call that writes only to this owner.

        The write units are computed from the items that are stored afterwards.
        """
        before = self._balance(owner_id)
        self._requests.clear()
        self._read_units.clear()
        call()
        requests = tuple(self._requests)
        read_units = sum(self._read_units)
        after = self._balance(owner_id)
        entries = self._entries_since(owner_id, before)
        transactional = "TransactWriteItems" in requests
        units = [write_units_of_entry(entry, transactional=transactional) for entry in entries]
        if after != before:
            units.append(write_units_of_balance(before, after, transactional=transactional))
        return Taken(requests, read_units, sum(units))

    def _on_answer(self, parsed: Mapping[str, Any], model: Any, **_: Any) -> None:
        if model.name in READS and "ConsumedCapacity" in parsed:
            self._read_units.append(units_from(parsed))

    def _balance(self, owner_id: str) -> Item:
        key = key_of_account(owner_id)
        table = self._settings.accounts_table
        return self._client.get_item(TableName=table, Key=key, ConsistentRead=True).get("Item", {})

    def _entries_since(self, owner_id: str, balance: Item) -> list[Item]:
        answer = self._client.query(
            TableName=self._settings.entries_table,
            IndexName=INDEX_BY_ACCOUNT,
            KeyConditionExpression="account = :account AND created_at > :since",
            ExpressionAttributeValues={
                ":account": {"S": owner_id},
                ":since": balance.get("updated_at", {"S": "0"}),
            },
        )
        return [*answer["Items"]]
