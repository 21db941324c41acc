"""DynamoDB's documented contract in memory, for the requests that a ledger makes.

A transaction has two phases, as in DynamoDB: `prepare` checks its conditions and takes its items,
`commit` writes and releases them. A request for a taken item meets a conflict. An index and
eventually consistent reads follow when the simulation says so. A call as of a boto3 client does
all at once, as DynamoDB Local does.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any
from zlib import crc32

from botocore.exceptions import ClientError

from tests.simulator.expressions import Item, holds, updated
from tests.support import CONFIRMED

__all__ = ["TOKEN_SECONDS", "ModelDynamoDB", "Transaction", "client_error", "of_single_write"]

TOKEN_SECONDS = 600.0
"""How long a ClientRequestToken is remembered after its transaction was done."""
TRANSACTION_ITEMS_MAX = 100

Key = tuple[str, str]
"""A table and the value of its key."""


@dataclass
class Transaction:
    """A prepared transaction: what it will write, unless its token was committed before."""

    writes: dict[Key, Item] = field(default_factory=dict)
    token: str | None = None
    request: Sequence[Any] = ()
    done_at: float | None = None


class ModelDynamoDB:
    """Tables with a string for a key each, one of them with an index.

    Args:
        tables: the name of each table's key.
        index: of which table there is an index, by which key and in which order.
        now: seconds; tokens age by it.
    """

    def __init__(
        self,
        tables: Mapping[str, str],
        *,
        index: tuple[str, str, str],
        now: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._keys = tables
        self._index_table, self._index_key, self._index_order = index
        self.now = now
        self.items: dict[Key, Item] = {}
        self.indexed: dict[str, Item] = {}
        self.unindexed: list[tuple[str, float]] = []
        """Keys of items that the index does not show yet, and when it may."""
        self._previous: dict[Key, tuple[Item, float]] = {}
        self._taken: dict[Key, Transaction] = {}
        self._tokens: dict[str, Transaction] = {}

    # The requests, done at once

    def transact_write_items(self, **arguments: Any) -> dict[str, Any]:
        self.commit(self.prepare(**arguments))
        self.follow()
        return dict(CONFIRMED)

    def put_item(self, **arguments: Any) -> dict[str, Any]:
        return self._write_one({"Put": arguments})

    def update_item(self, **arguments: Any) -> dict[str, Any]:
        return self._write_one({"Update": arguments})

    def get_item(
        self,
        *,
        TableName: str,
        Key: Item,
        ConsistentRead: bool = False,
        stale: bool = False,
        **_: Any,
    ) -> dict[str, Any]:
        place = self._place(TableName, Key)
        item = self.items.get(place)
        if stale and not ConsistentRead and place in self._previous:
            item = self._previous[place][0]
        return {**CONFIRMED, "Item": dict(item)} if item else dict(CONFIRMED)

    def transact_get_items(self, *, TransactItems: Sequence[Any], **_: Any) -> dict[str, Any]:
        places = [self._place(one["Get"]["TableName"], one["Get"]["Key"]) for one in TransactItems]
        if any(place in self._taken for place in places):
            raise _cancelled(
                [_conflict() if place in self._taken else {"Code": "None"} for place in places]
            )
        answers = []
        for one, place in zip(TransactItems, places, strict=True):
            item = self.items.get(place)
            if item and (wanted := one["Get"].get("ProjectionExpression")):
                item = {name: item[name] for name in wanted.split(", ") if name in item}
            answers.append({"Item": dict(item)} if item is not None else {})
        return {**CONFIRMED, "Responses": answers}

    def query(
        self,
        *,
        TableName: str,
        IndexName: str,
        KeyConditionExpression: str,
        ExpressionAttributeValues: Item,
        ExpressionAttributeNames: Mapping[str, str] | None = None,
        FilterExpression: str | None = None,
        ScanIndexForward: bool = True,
        Limit: int | None = None,
        ExclusiveStartKey: Item | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        names = ExpressionAttributeNames or {}
        found = [
            item
            for item in self.indexed.values()
            if holds(KeyConditionExpression, item, ExpressionAttributeValues, {})
        ]
        found.sort(key=self._position, reverse=not ScanIndexForward)
        if ExclusiveStartKey:
            start = self._position(ExclusiveStartKey)
            found = [
                item
                for item in found
                if (
                    self._position(item) > start
                    if ScanIndexForward
                    else self._position(item) < start
                )
            ]
        evaluated = found[:Limit]
        answer: dict[str, Any] = {
            **CONFIRMED,
            "Items": [
                dict(item)
                for item in evaluated
                if holds(FilterExpression, item, ExpressionAttributeValues, names)
            ],
        }
        if Limit and len(evaluated) == Limit:
            last = evaluated[-1]
            answer["LastEvaluatedKey"] = {
                name: last[name]
                for name in (self._keys[TableName], self._index_key, self._index_order)
            }
        return answer

    def scan(
        self,
        *,
        TableName: str,
        Segment: int = 0,
        TotalSegments: int = 1,
        Limit: int | None = None,
        ExclusiveStartKey: Item | None = None,
        FilterExpression: str | None = None,
        ExpressionAttributeValues: Item | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        def order(value: str) -> tuple[int, str]:
            return crc32(value.encode()), value

        key = self._keys[TableName]
        start = order(ExclusiveStartKey[key]["S"]) if ExclusiveStartKey else (-1, "")
        values = sorted((value for table, value in self.items if table == TableName), key=order)
        found = [
            one for one in values if order(one)[0] % TotalSegments == Segment and order(one) > start
        ][:Limit]
        items = (self.items[TableName, value] for value in found)
        matching = (
            item
            for item in items
            if holds(FilterExpression, item, ExpressionAttributeValues or {}, {})
        )
        answer: dict[str, Any] = {**CONFIRMED, "Items": [dict(item) for item in matching]}
        if Limit and len(found) == Limit:
            answer["LastEvaluatedKey"] = {key: {"S": found[-1]}}
        return answer

    # The phases of a transaction

    def prepare(
        self,
        *,
        TransactItems: Sequence[Any],
        ClientRequestToken: str | None = None,
        busy: Mapping[int, str] | None = None,
        **_: Any,
    ) -> Transaction:
        """Check the conditions and take the items; `busy` has DynamoDB's trouble by position.

        Raises:
            ClientError: it is cancelled, and nothing is taken.
        """
        if known := self._known(ClientRequestToken):
            if known.request != TransactItems:
                raise client_error("IdempotentParameterMismatchException")
            if known.done_at is None:
                raise client_error("TransactionInProgressException")
            return Transaction(done_at=known.done_at)
        pairs = [next(iter(one.items())) for one in TransactItems]
        places = [self._place_of(kind, write) for kind, write in pairs]
        if len(set(places)) < len(places) or not 0 < len(places) <= TRANSACTION_ITEMS_MAX:
            raise client_error("ValidationException")
        reasons = [
            self._reason(place, write) for place, (_, write) in zip(places, pairs, strict=True)
        ]
        for position, code in (busy or {}).items():
            reasons[position] = {"Code": code, "Message": "as the simulation has it"}
        if any(reason["Code"] != "None" for reason in reasons):
            raise _cancelled(reasons)
        transaction = Transaction(token=ClientRequestToken, request=TransactItems)
        for place, (kind, write) in zip(places, pairs, strict=True):
            transaction.writes[place] = self._after(kind, write, place)
            self._taken[place] = transaction
        if ClientRequestToken:
            self._tokens[ClientRequestToken] = transaction
        return transaction

    def commit(self, transaction: Transaction, *, lag_seconds: float = 0.0) -> None:
        """Write the transaction once, and release its items. The index may follow later."""
        for place, item in transaction.writes.items():
            self._previous[place] = (self.items.get(place, {}), self.now())
            self.items[place] = item
            del self._taken[place]
            if place[0] == self._index_table:
                self.unindexed.append((place[1], self.now() + lag_seconds))
        if transaction.done_at is None:
            transaction.done_at = self.now()

    def follow(self, *, to_the_end: bool = False) -> None:
        """Let the index show what it may by now, or all there is."""
        late = []
        for key, visible_at in self.unindexed:
            if visible_at > self.now() and not to_the_end:
                late.append((key, visible_at))
            else:
                self.indexed[key] = self.items[self._index_table, key]
        self.unindexed = late

    def changed_at(self, table: str, key: Item) -> float:
        """When an item was last written; long ago if never."""
        return self._previous.get(self._place(table, key), ({}, -inf))[1]

    def _write_one(self, one: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return self.transact_write_items(TransactItems=[one])
        except ClientError as error:
            raise of_single_write(error) from None

    def _known(self, token: str | None) -> Transaction | None:
        known = self._tokens.get(token or "")
        if known and known.done_at is not None and self.now() - known.done_at >= TOKEN_SECONDS:
            return None
        return known

    def _reason(self, place: Key, write: Mapping[str, Any]) -> dict[str, Any]:
        if place in self._taken:
            return _conflict()
        item = self.items.get(place)
        values, names = (
            write.get("ExpressionAttributeValues", {}),
            write.get("ExpressionAttributeNames", {}),
        )
        if holds(write.get("ConditionExpression"), item or {}, values, names):
            return {"Code": "None"}
        reason: dict[str, Any] = {
            "Code": "ConditionalCheckFailed",
            "Message": "The conditional request failed",
        }
        if item and write.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD":
            reason["Item"] = dict(item)
        return reason

    def _after(self, kind: str, write: Mapping[str, Any], place: Key) -> Item:
        if kind == "Put":
            return dict(write["Item"])
        before = self.items.get(place, write["Key"])
        values, names = (
            write.get("ExpressionAttributeValues", {}),
            write.get("ExpressionAttributeNames", {}),
        )
        return updated(write["UpdateExpression"], before, values, names)

    def _place_of(self, kind: str, write: Mapping[str, Any]) -> Key:
        if kind not in {"Put", "Update"}:
            raise ValueError(kind)
        return self._place(write["TableName"], write["Item" if kind == "Put" else "Key"])

    def _place(self, table: str, item: Item) -> Key:
        return table, item[self._keys[table]]["S"]

    def _position(self, item: Item) -> tuple[str, str]:
        return item[self._index_order]["S"], item[self._keys[self._index_table]]["S"]


def client_error(
    code: str, *, reasons: Iterable[Mapping[str, Any]] = (), status: int = 400
) -> ClientError:
    """An error as boto3 raises it."""
    response: Any = {
        "Error": {"Code": code, "Message": "as the model of DynamoDB has it"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    if reasons := list(reasons):
        response["CancellationReasons"] = reasons
    return ClientError(response, "request")


def of_single_write(error: ClientError) -> ClientError:
    """What the cancellation of a transaction would be if its one write had been sent by itself."""
    (reason,) = error.response["CancellationReasons"]
    return client_error(f"{reason['Code']}Exception")


def _cancelled(reasons: Sequence[Mapping[str, Any]]) -> ClientError:
    return client_error("TransactionCanceledException", reasons=reasons)


def _conflict() -> dict[str, Any]:
    return {"Code": "TransactionConflict", "Message": "Transaction is ongoing for the item"}
