"""Sweeps of one reward, and what gets in their way."""

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
    """The last segment after a sweep of all; pauses are not waited for."""
    for segment in Segment.all_of(reward, segments, NOON):
        done = Sweep(cloud.store(), reward, sleep=lambda _: None, **options).run(
            segment, seconds=60
        )
    return done


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
    """To whom a transaction writes."""
    return [
        one["Update"]["Key"]["account"]["S"]
        for one in arguments["TransactItems"]
        if "Update" in one
    ]


def spoil(cloud: Cloud, owner_id: str, attribute: str, value: dict[str, Any]) -> None:
    """Write past the ledger."""
    cloud.dynamodb.update_item(
        TableName=cloud.tables["LEDGER_ACCOUNTS_TABLE"],
        Key={"account": {"S": owner_id}},
        UpdateExpression="SET #a = :v",
        ExpressionAttributeNames={"#a": attribute},
        ExpressionAttributeValues={":v": value},
    )


def conflicting(hot: Container[str]) -> Callable[..., Any]:
    """Writes, of which those to some owners meet a conflict."""

    def write(real: Callable[..., Any], **arguments: Any) -> Any:
        batch = owners_of(arguments)
        if not any(owner_id in hot for owner_id in batch):
            return real(**arguments)
        raise cancellation(
            [BUSY if one in hot and part else {"Code": "None"} for one in batch for part in (0, 1)]
        )

    return write
