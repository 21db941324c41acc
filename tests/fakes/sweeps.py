"""Sweeps of a reward, and the failures that they meet."""

from collections.abc import Callable, Container
from typing import Any

from botocore.exceptions import ClientError

from functions.example_app.operations import ExampleAppOperations
from ledger_core.periods import Period
from ledger_core.rewards import Reward, Segment, Sweep
from tests.fakes.cloud import Cloud
from tests.support import NOON

DAY = Period.parse("2026-11-22")
REWARD = Reward.of(ExampleAppOperations, "DAILY_REWARD", DAY)
BUSY = {"Code": "TransactionConflict", "Message": "ongoing"}


def swept(cloud: Cloud, reward: Reward = REWARD, *, segments: int = 1, **options: Any) -> Segment:
    """Sweep all segments without pauses, and return the last segment."""
    for segment in Segment.all_of(reward, segments, NOON):
        sweep = Sweep(cloud.store(), reward, sleep=lambda _: None, **options)
        after = sweep.run(segment, seconds=60)
    return after


def counts(segment: Segment) -> tuple[int, int, int, int]:
    tally = segment.tally
    return tally.granted, tally.already, tally.skipped, tally.failed


def cancellation(reasons: list[dict[str, Any]]) -> ClientError:
    error: Any = {
        "Error": {"Code": "TransactionCanceledException", "Message": "m"},
        "CancellationReasons": reasons,
    }
    return ClientError(error, "TransactWriteItems")


def owners_of(arguments: dict[str, Any]) -> list[str]:
    """The owners whose accounts a transaction updates."""
    return [
        item["Update"]["Key"]["account"]["S"]
        for item in arguments["TransactItems"]
        if "Update" in item
    ]


def spoil(cloud: Cloud, owner_id: str, attribute: str, value: dict[str, Any]) -> None:
    """Set an attribute of an account without the ledger."""
    cloud.dynamodb.update_item(
        TableName=cloud.tables["LEDGER_ACCOUNTS_TABLE"],
        Key={"account": {"S": owner_id}},
        UpdateExpression="SET #a = :v",
        ExpressionAttributeNames={"#a": attribute},
        ExpressionAttributeValues={":v": value},
    )


def conflicting(hot: Container[str]) -> Callable[..., Any]:
    """A `transact_write_items` that DynamoDB cancels if it writes to an owner of `hot`."""

    def write(real: Callable[..., Any], **arguments: Any) -> Any:
        batch = owners_of(arguments)
        if not any(owner_id in hot for owner_id in batch):
            return real(**arguments)
        reasons: list[dict[str, Any]] = []
        for owner_id in batch:
            reasons.append({"Code": "None"})  # the entry
            reasons.append(BUSY if owner_id in hot else {"Code": "None"})  # the account
        raise cancellation(reasons)

    return write
