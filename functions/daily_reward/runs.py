"""The record of runs: what came of each segment, so that somebody knows when a run is complete, and what it came to.

One item per run in a table of its own. It holds reports: nothing of the ledger depends on it.
"""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ledger_core.models import format_time
from ledger_core.rewards import Segment, Tally

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

__all__ = ["Runs"]

KEPT = timedelta(days=400)
"""Then DynamoDB may drop the record of a run."""
RUNS_BEFORE_MAX = 10
"""Runs of one period that are looked at, the latest first."""
SEGMENT_PREFIX = "segment:"

# What came of a segment is what was told first.
FINISH_SEGMENT = "SET #segment = if_not_exists(#segment, :tally), segment_count = :n, expires_at = :expires_at"


class Runs:
    """Reads and writes the records through a boto3 DynamoDB client. `nonce` is the reward's, and names the period."""

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._client = client
        self._table = table

    def finish(self, nonce: str, segment: Segment) -> Tally | None:
        """Record what came of a finished segment; what came of the run if that made it complete, None if not.

        A segment that is finished twice, because a message came twice, counts the first time only.
        """
        name = f"{SEGMENT_PREFIX}{segment.segment}"
        tally = segment.tally.model_dump_json()
        expires_at = int((segment.started_at + KEPT).timestamp())
        before = self._client.update_item(
            TableName=self._table,
            Key={"nonce": {"S": nonce}, "started_at": {"S": format_time(segment.started_at)}},
            UpdateExpression=FINISH_SEGMENT,
            ExpressionAttributeNames={"#segment": name},
            ExpressionAttributeValues={
                ":tally": {"S": tally},
                ":n": {"N": str(segment.segments)},
                ":expires_at": {"N": str(expires_at)},
            },
            ReturnValues="ALL_OLD",
        ).get("Attributes", {})
        if before.get(name, {"S": tally})["S"] != tally:  # the same one is our own, of a try that was not answered
            return None
        return _total({**before, name: {"S": tally}, "segment_count": {"N": str(segment.segments)}})

    def rewarded(self, nonce: str) -> int | None:
        """How many owners had the reward after the last complete run under a nonce; None if there was none."""
        found = self._client.query(
            TableName=self._table,
            KeyConditionExpression="nonce = :nonce",
            ExpressionAttributeValues={":nonce": {"S": nonce}},
            ScanIndexForward=False,
            Limit=RUNS_BEFORE_MAX,
        )["Items"]
        return next((total.rewarded for total in map(_total, found) if total), None)


def _total(item: dict[str, Any]) -> Tally | None:
    """The sum of all segments of a run, if they are all there."""
    tallies = [value["S"] for name, value in item.items() if name.startswith(SEGMENT_PREFIX)]
    if len(tallies) < int(item["segment_count"]["N"]):
        return None
    total = Tally()
    for tally in tallies:
        total.add(Tally.model_validate_json(tally))
    return total
