"""The scheduled function: it starts a sweep of all owners, then works on the sweep's segments."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from functions.daily_reward.events import SegmentQueue, SweepEvent
from functions.daily_reward.runs import Runs
from ledger_core.dynamodb import SweepStore
from ledger_core.errors import LedgerError, UnavailableError
from ledger_core.observability import MetricLines
from ledger_core.operations import BaseLedgerOperations
from ledger_core.periods import Period
from ledger_core.rewards import Reward, Segment, Sweep, Tally
from ledger_core.wiring import (
    create_account_store,
    create_client,
    create_queue_client,
    load_reward_settings,
)

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_sqs import SQSClient

__all__ = ["STOP_SECONDS", "RewardFunction", "create_function"]

STOP_SECONDS = 15.0
"""The end of the function's time: for open requests, and to put the rest back on the queue."""
OWNERS_SECONDS_MIN = 0.001
"""The shortest time by which owners are divided, so that no rate divides by zero."""

logger = logging.getLogger(__name__)


class RewardFunction:
    """Starts sweeps, and works on their segments.

    Args:
        operations: the app's operations; `SCHEDULED` says which may be posted, and to which owners.
        store: the store of the accounts.
        queue: the queue of the segments.
        runs: the record of the segments' results.
        clock: the current time, in UTC.
    """

    def __init__(
        self,
        operations: type[BaseLedgerOperations],
        store: SweepStore,
        queue: SegmentQueue,
        runs: Runs,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._operations = operations
        self._store = store
        self._queue = queue
        self._runs = runs
        self._clock = clock
        self._lines = MetricLines()

    def __call__(self, event: Any, context: Any) -> dict[str, Any]:
        """Handle what Lambda sends: the records of the queue, or the event of the schedule.

        Raises:
            LedgerError: the event is invalid, or the call failed. Lambda tries again, and then
                moves the event to the dead-letter queue.
        """
        if isinstance(event, Mapping) and "Records" in event:
            return self._work(event["Records"], context)
        return self._start(SweepEvent.read(event))

    def _start(self, event: SweepEvent) -> dict[str, Any]:
        """Put all segments of a sweep on the queue.

        A second call for the same period costs reads and grants nothing twice.
        """
        period = event.sought_period()
        event.check_period(period, self._clock())
        reward = Reward.of(self._operations, event.operation, period)
        for segment in Segment.all_of(reward, event.segments, self._clock()):
            self._queue.send(segment)
        sweep = {
            "operation": event.operation,
            "period": str(reward.period),
            "segments": event.segments,
        }
        self._lines.write({"sweep": "begun", **sweep}, {"RewardsRunsBegun": 1}, by="operation")
        return sweep

    def _work(self, records: Sequence[Mapping[str, Any]], context: Any) -> dict[str, Any]:
        """Handle each record, and return the failed ones.

        SQS delivers a failed record again, and after some failures moves it to the dead letters.
        """
        failed = []
        for record in records:
            try:
                self._sweep(self._queue.read(record), context)
            except Exception:
                logger.exception("message %s failed", record["messageId"])
                failed.append({"itemIdentifier": record["messageId"]})
        return {"batchItemFailures": failed}

    def _sweep(self, segment: Segment, context: Any) -> None:
        """Work on a segment until the time is up, and put the rest on the queue."""
        reward = Reward.of(self._operations, segment.operation, Period.parse(segment.period))
        seconds = context.get_remaining_time_in_millis() / 1000 - STOP_SECONDS
        after = Sweep(self._store, reward).run(segment, seconds=seconds)
        if not after.finished:
            if after.place == segment.place:
                raise UnavailableError("The segment got no further.")
            self._queue.send(after)
        self._log_segment(segment, after, getattr(context, "aws_request_id", None))
        if after.finished:
            self._finish(reward, after)

    def _finish(self, reward: Reward, segment: Segment) -> None:
        """Record a finished segment; log its run if this was the last one."""
        total = self._runs.finish(reward.nonce, segment)
        if total is None:
            return
        self._log_run(reward, segment, total)
        try:
            self._runs.mark_reported(reward.nonce, segment)
        except LedgerError:
            logger.exception("this run may be logged again")

    def _log_segment(
        self, before: Segment, after: Segment, function_request_id: str | None
    ) -> None:
        """Log a segment: its totals so far in the line, this worker's part in the metrics."""
        done = {name: value - getattr(before.tally, name) for name, value in after.tally}
        owners = after.tally.owners - before.tally.owners
        line = {
            "sweep": "finished" if after.finished else "continued",
            "function_request_id": function_request_id,
            "operation": after.operation,
            "period": after.period,
            "segment": after.segment,
            "segments": after.segments,
            "postponed": len(after.postponed),
            **_rounded(after.tally),
        }
        metrics = {
            "RewardsGranted": done["granted"],
            "RewardsFailed": done["failed"],
            "RewardsRequests": done["dynamodb_requests"],
            "RewardsReadUnits": done["read_units"],
            "RewardsWriteUnits": done["write_units"],
            "RewardsPerSecond": owners / max(done["seconds"], OWNERS_SECONDS_MIN),
            "RewardsRunTime": (self._clock() - after.started_at).total_seconds(),
        }
        self._lines.write(line, metrics, by="operation")

    def _log_run(self, reward: Reward, last: Segment, total: Tally) -> None:
        """Log a complete run, and how much it differs from the run of the period before."""
        seconds = (self._clock() - last.started_at).total_seconds()
        before = self._rewarded_before(reward)
        line = {
            "sweep": "complete",
            "operation": last.operation,
            "period": last.period,
            "segments": last.segments,
            **_rounded(total),
            "rewarded": total.rewarded,
            "rewarded_before": before,
            "run_seconds": round(seconds, 3),
            "owners_per_second": round(total.owners / max(seconds, OWNERS_SECONDS_MIN), 1),
        }
        metrics: dict[str, float] = {"RewardsRunsComplete": 1}
        if before:
            metrics["RewardsDeviation"] = abs(total.rewarded - before) * 100 / before
        self._lines.write(line, metrics, by="operation")

    def _rewarded_before(self, reward: Reward) -> int | None:
        """The owners of the run of the period before; None if there is no run or the read fails."""
        try:
            return self._runs.rewarded(replace(reward, period=reward.period.before()).nonce)
        except Exception:
            logger.exception("the run of the period before could not be read")
            return None


def create_function(
    operations: type[BaseLedgerOperations],
    dynamodb: "DynamoDBClient | None" = None,
    sqs: "SQSClient | None" = None,
) -> RewardFunction:
    """The function on the tables and the queue that the environment names.

    Args:
        operations: the app's operations.
        dynamodb: for tests; by default a new client.
        sqs: for tests; by default a new client.
    """
    settings = load_reward_settings()
    return RewardFunction(
        operations,
        create_account_store(dynamodb),
        SegmentQueue(sqs or create_queue_client(settings.queue_url), settings.queue_url),
        Runs(dynamodb or create_client(), settings.runs_table),
    )


def _rounded(tally: Tally) -> dict[str, float]:
    return {name: round(value, 3) for name, value in tally}
