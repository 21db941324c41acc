"""The record of runs: the result of each segment, so that it is known when a run is complete and what its result is.

Each run is one item in a table of its own. The ledger itself depends on nothing in it.
"""

import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from random import SystemRandom
from typing import TYPE_CHECKING, Any

from ledger_core.dynamodb import SystemClock, dynamodb_request
from ledger_core.fields import format_time
from ledger_core.posting import RetryBudget
from ledger_core.rewards import Segment, Tally

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

__all__ = ["RUNS_SECONDS", "Runs"]

RUNS_SECONDS = 2.0
"""How long a request may be tried again."""

KEPT = timedelta(days=400)
"""Then DynamoDB may drop the record of a run."""
RUNS_BEFORE_MAX = 10
"""Runs of one period that are read, the latest first."""
SEGMENT_PREFIX = "segment:"

# The first result of a segment that is recorded is the one that counts.
FINISH_SEGMENT = (
    "SET #segment = if_not_exists(#segment, :tally), segment_count = :n, expires_at = :expires_at"
)

_SYSTEM_RANDOM = SystemRandom()


def _budget() -> RetryBudget:
    return RetryBudget(
        time.monotonic() + RUNS_SECONDS, time.monotonic, time.sleep, _SYSTEM_RANDOM.random
    )


class Runs:
    """Reads and writes the records through a boto3 DynamoDB client, which must not retry on its own.

    `nonce` is the reward's, and names the period. Every method raises UnavailableError when DynamoDB did not answer in
    time, and StoreError when it refused.

    Args:
        client: of DynamoDB.
        table: where the records are.
        budget: makes what tries a request again.
    """

    def __init__(
        self, client: "DynamoDBClient", table: str, *, budget: Callable[[], RetryBudget] = _budget
    ) -> None:
        self._client = client
        self._table = table
        self._budget = budget
        self._clock = SystemClock()

    def finish(self, nonce: str, segment: Segment) -> Tally | None:
        """Record the result of a finished segment; return that of its run if it is complete and not reported yet.

        A segment that is finished twice, because a message came twice, counts the first time only.
        """
        name, tally = f"{SEGMENT_PREFIX}{segment.segment}", {"S": segment.tally.model_dump_json()}
        count = {"N": str(segment.segments)}
        expires_at = {"N": str(int((segment.started_at + KEPT).timestamp()))}
        before = self._update(
            nonce,
            segment,
            UpdateExpression=FINISH_SEGMENT,
            ExpressionAttributeNames={"#segment": name},
            ExpressionAttributeValues={":tally": tally, ":n": count, ":expires_at": expires_at},
            ReturnValues="ALL_OLD",
        ).get("Attributes", {})
        return (
            None
            if "reported" in before
            else _total({name: tally, **before, "segment_count": count})
        )

    def mark_reported(self, nonce: str, segment: Segment) -> None:
        """Note that the result of this segment's run is logged.

        A worker that records the last segment and dies before this call logs it again: its message comes again.
        """
        self._update(
            nonce,
            segment,
            UpdateExpression="SET reported = :yes",
            ExpressionAttributeValues={":yes": {"BOOL": True}},
        )

    def rewarded(self, nonce: str) -> int | None:
        """How many owners had the reward after the last complete run under a nonce; None if there was none."""
        found = self._budget().call(partial(self._latest, nonce))
        return next((total.rewarded for total in map(_total, found) if total), None)

    def _update(self, nonce: str, segment: Segment, **arguments: Any) -> Mapping[str, Any]:
        key = {"nonce": {"S": nonce}, "started_at": {"S": format_time(segment.started_at)}}
        return self._budget().call(partial(self._update_once, key, arguments))

    def _update_once(self, key: dict[str, Any], arguments: dict[str, Any]) -> Mapping[str, Any]:
        with dynamodb_request(self._clock) as request:
            response = self._client.update_item(
                TableName=self._table, Key=key, ReturnConsumedCapacity="TOTAL", **arguments
            )
            request.wrote(response)
            return response

    def _latest(self, nonce: str) -> list[dict[str, Any]]:
        with dynamodb_request(self._clock) as request:
            response = self._client.query(
                TableName=self._table,
                KeyConditionExpression="nonce = :nonce",
                ExpressionAttributeValues={":nonce": {"S": nonce}},
                ScanIndexForward=False,
                Limit=RUNS_BEFORE_MAX,
                ReturnConsumedCapacity="TOTAL",
            )
            request.read(response)
            return response["Items"]


def _total(item: dict[str, Any]) -> Tally | None:
    """The sum of all segments of a run, if they are all there."""
    tallies = [value["S"] for name, value in item.items() if name.startswith(SEGMENT_PREFIX)]
    if len(tallies) < int(item["segment_count"]["N"]):
        return None
    total = Tally()
    for tally in tallies:
        total.add(Tally.model_validate_json(tally))
    return total
