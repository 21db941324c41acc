"""The record of runs: what came of each segment, so that somebody knows when a run is complete, and what it came to.

One item per run in a table of its own. It holds reports: nothing of the ledger depends on it.
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
"""How long each request is tried again."""

KEPT = timedelta(days=400)
"""Then DynamoDB may drop the record of a run."""
RUNS_BEFORE_MAX = 10
"""Runs of one period that are looked at, the latest first."""
SEGMENT_PREFIX = "segment:"

# What came of a segment is what was told first.
FINISH_SEGMENT = "SET #segment = if_not_exists(#segment, :tally), segment_count = :n, expires_at = :expires_at"

_SYSTEM_RANDOM = SystemRandom()


def _budget() -> RetryBudget:
    return RetryBudget(time.monotonic() + RUNS_SECONDS, time.monotonic, time.sleep, _SYSTEM_RANDOM.random)


class Runs:
    """Reads and writes the records through a boto3 DynamoDB client, which must not retry on its own.

    `nonce` is the reward's, and names the period. Every method raises UnavailableError when DynamoDB did not answer in
    time, and StoreError when it refused.

    Args:
        client: of DynamoDB.
        table: where the records are.
        budget: makes what tries a request again.
    """

    def __init__(self, client: "DynamoDBClient", table: str, *, budget: Callable[[], RetryBudget] = _budget) -> None:
        self._client = client
        self._table = table
        self._budget = budget
        self._clock = SystemClock()

    def finish(self, nonce: str, segment: Segment) -> Tally | None:
        """Record what came of a finished segment; what came of the run if it is complete and not `told`, None if not.

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
        return None if "told" in before else _total({name: tally, **before, "segment_count": count})

    def told(self, nonce: str, segment: Segment) -> None:
        """Note that somebody was told what came of the run of this segment.

        Who records the last segment and dies before this is not the last one to tell: the message of it comes again.
        """
        self._update(
            nonce, segment, UpdateExpression="SET told = :yes", ExpressionAttributeValues={":yes": {"BOOL": True}}
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
