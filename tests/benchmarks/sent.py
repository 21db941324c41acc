"""Counts what a client sends to DynamoDB, and adds DynamoDB's conflicts, which no fake has."""

import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import urllib3
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders

from tests.support import wire

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

__all__ = ["Sent", "conflicts"]

TRANSACTIONS = "before-send.dynamodb.TransactWriteItems"
CONFLICT = {"Code": "TransactionConflict", "Message": "Transaction is ongoing for the item"}
NO_REASON = {"Code": "None"}
NAMES = {"Put": "puts", "Update": "balance updates"}


class Sent:
    """Counts the requests and writes that a client sends from now on."""

    def __init__(self, client: "DynamoDBClient") -> None:
        self._requests = wire(client)
        self._writes: list[str] = []
        client.meta.events.register(TRANSACTIONS, self._add_writes)

    def take(self) -> Counter[str]:
        """The requests and the writes in their transactions since the last call."""
        counts = Counter(NAMES[kind] for kind in self._writes)
        counts["requests"] += len(self._requests)
        self._requests.clear()
        self._writes.clear()
        return counts

    def _add_writes(self, request: Any, **_: Any) -> None:
        self._writes += _kinds(request)


@contextmanager
def conflicts(client: "DynamoDBClient", is_next: Callable[[], bool]) -> Iterator[None]:
    """Until the end of the block, cancel the transactions that `is_next` picks by a conflict."""

    def cancel(request: Any, **_: Any) -> AWSResponse | None:
        if not is_next():
            return None
        reasons = [CONFLICT if kind == "Update" else NO_REASON for kind in _kinds(request)]
        codes = ", ".join(reason["Code"] for reason in reasons)
        body = {
            "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
            "Message": (
                "Transaction cancelled, please refer cancellation reasons for specific reasons "
                f"[{codes}]"
            ),
            "CancellationReasons": reasons,
        }
        raw = urllib3.HTTPResponse(io.BytesIO(json.dumps(body).encode()), preload_content=False)
        return AWSResponse(request.url, 400, HTTPHeaders(), raw)

    events: Any = client.meta.events  # the stubs allow no handler that answers
    events.register(TRANSACTIONS, cancel)
    try:
        yield
    finally:
        events.unregister(TRANSACTIONS, cancel)


def _kinds(request: Any) -> list[str]:
    """The kind of each write in a transaction: Put, Update."""
    return [kind for item in json.loads(request.body)["TransactItems"] for kind in item]
