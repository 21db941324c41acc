"""The events of the scheduled function: the schedule's input, and the segments on its queue."""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError

from ledger_core.errors import InvalidRequestError, UnavailableError
from ledger_core.fields import Instant
from ledger_core.operations import LedgerOperationType
from ledger_core.periods import Period, PeriodKind
from ledger_core.rewards import SEGMENTS_MAX, Segment

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

__all__ = ["SegmentQueue", "SweepEvent"]


class SweepEvent(BaseModel):
    """The schedule's input: the operation to post, the period, and the number of segments.

    `period` is `day`, `week` or `month`: then the period is the one in which `time`, the scheduled
    time, lies in `time_zone`. To run a period again, name it: `2026-11-22`, `2026-W47` or
    `2026-11`. A period that is later than today, or that ended more than DAYS_PAST_MAX days ago by
    the calendar of `time_zone`, needs `"force": true`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    operation: str = LedgerOperationType.DAILY_REWARD
    period: str = PeriodKind.DAY
    segments: Annotated[int, Field(ge=1, le=SEGMENTS_MAX, strict=True)] = 16
    time: Instant | None = None
    time_zone: str = "UTC"
    force: StrictBool = False

    @classmethod
    def read(cls, event: Any) -> "SweepEvent":
        """Validate an event that Lambda received.

        Raises:
            InvalidRequestError: it is not a schedule event; the message names each wrong field.
        """
        try:
            return cls.model_validate(event)
        except ValidationError as error:
            problems = [
                f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
                for problem in error.errors()
            ]
            raise InvalidRequestError(f"invalid schedule event: {'; '.join(problems)}") from None

    def sought_period(self) -> Period:
        """The period to post for.

        Raises:
            InvalidRequestError: the period is not a period, or it needs a `time` that is missing.
        """
        if self.period not in list(PeriodKind):
            return Period.parse(self.period)
        if self.time is None:
            raise InvalidRequestError(
                f"time: is missing; send the scheduled time, which decides the {self.period}"
            )
        return Period.at(PeriodKind(self.period), self.time, self.time_zone)

    def check_period(self, period: Period, now: datetime) -> None:
        """Reject a period that is probably a typing error.

        Raises:
            InvalidRequestError: it is later than today or long over, and `force` is not set.
        """
        if self.force:
            return
        if doubt := period.doubt(now, self.time_zone):
            raise InvalidRequestError(f'period: {doubt}; set "force": true to grant it anyway')


class SegmentQueue:
    """The SQS queue on which segments wait for a worker. A message holds a whole segment."""

    def __init__(self, client: "SQSClient", url: str) -> None:
        self._client = client
        self._url = url

    def send(self, segment: Segment) -> None:
        """Put a segment on the queue. A segment that is sent twice is granted once.

        Raises:
            UnavailableError: the answer is not SQS's, so the segment may not be on the queue.
        """
        answer = self._client.send_message(
            QueueUrl=self._url, MessageBody=segment.model_dump_json()
        )
        # A proxy may answer 200 to a request that it did not forward.
        if not answer.get("MessageId"):
            raise UnavailableError("The answer has no message id: it is not SQS's.")

    @staticmethod
    def read(record: Mapping[str, Any]) -> Segment:
        """The segment of a record that Lambda received.

        Raises:
            InvalidRequestError: the record does not hold a segment.
        """
        try:
            return Segment.model_validate_json(record["body"])
        except (KeyError, ValidationError) as error:
            raise InvalidRequestError(f"invalid segment message: {type(error).__name__}") from None
