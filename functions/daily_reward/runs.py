"""The record of runs. It says when all segments of a run are finished, and what their total is.

A run is one item in a table of its own. The ledger does not depend on that table.
"""

from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from ledger_core.dynamodb import SystemClock, dynamodb_request
from ledger_core.fields import format_time
from ledger_core.posting import RetryBudget
from ledger_core.rewards import Segment, Tally

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

__all__ = ["RUNS_SECONDS", "Runs"]

RUNS_SECONDS = 2.0
"""How long a request is tried again."""

KEPT = timedelta(days=400)
"""After this time DynamoDB may delete the record of a run."""
RUNS_BEFORE_MAX = 10
"""How many runs of one period are read, the latest first."""
SEGMENT_PREFIX = "segment:"

# A segment that is recorded twice keeps its first result.
FINISH_SEGMENT = (
    "SET #segment = if_not_exists(#segment, :tally), segment_count = :n, expires_at = :expires_at"
)


class Runs:
    """Reads and writes the records through a boto3 DynamoDB client that does not retry by itself.

    `nonce` is the reward's nonce, which names the period. Every method raises UnavailableError if
    DynamoDB does not answer in time, and StoreError if DynamoDB refuses the request.

    Args:
        client: the client of DynamoDB.
        table: the name of the table.
        budget: makes the retry budget of a request.
    """

    def __init__(
        self,
        client: "DynamoDBClient",
        table: str,
        *,
        budget: Callable[[], RetryBudget] = lambda: RetryBudget.lasting(RUNS_SECONDS),
    ) -> None:
        self._client = client
        self._table = table
        self._budget = budget
        self._clock = SystemClock()

    def finish(self, nonce: str, segment: Segment) -> Tally | None:
        """Record the result of a finished segment.

        A segment that is finished twice, because its message came twice, counts once.

        Returns:
            The result of the run if the run is complete and not yet reported, else None.
        """
        name = f"{SEGMENT_PREFIX}{segment.segment}"
        tally = {"S": segment.tally.model_dump_json()}
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
        if "reported" in before:
            return None
        return _total({name: tally, **before, "segment_count": count})

    def mark_reported(self, nonce: str, segment: Segment) -> None:
        """Note that the result of this segment's run is logged.

        If a worker records the last segment and dies before this call, the message comes again and
        the result is logged again.
        """
        self._update(
            nonce,
            segment,
            UpdateExpression="SET reported = :yes",
            ExpressionAttributeValues={":yes": {"BOOL": True}},
        )

    def rewarded(self, nonce: str) -> int | None:
        """How many owners had the reward after the last complete run of a nonce.

        Returns:
            None if no run of the nonce is complete.
        """
        for item in self._budget().call(partial(self._latest, nonce)):
            if total := _total(item):
                return total.rewarded
        return None

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
    """The sum of all segments of a run; None if a segment is missing."""
    tallies = [value["S"] for name, value in item.items() if name.startswith(SEGMENT_PREFIX)]
    if len(tallies) < int(item["segment_count"]["N"]):
        return None
    total = Tally()
    for tally in tallies:
        total.add(Tally.model_validate_json(tally))
    return total
