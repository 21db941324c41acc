"""What the scheduled function is sent, and what it sends itself: the schedule's event, and segments on a queue."""

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
    """The schedule's input: what to post, for which period, in how many segments.

    `period` is `day`, `week` or `month`: the one in which `time`, when the schedule was due, lies in `time_zone`. Or it
    is a certain one, as `2026-11-22`, `2026-W47` or `2026-11`, to run that again. One that is later than today,
    or ended more than DAYS_PAST_MAX days ago, by the calendar of `time_zone`, takes `"force": true`.
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
        """The event that Lambda was given.

        Raises:
            InvalidRequestError: it is not an event of the schedule; the message says what is wrong.
        """
        try:
            return cls.model_validate(event)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()
            )
            raise InvalidRequestError(f"invalid schedule event: {problems}") from None

    def sought_period(self) -> Period:
        """The period to post for.

        Raises:
            InvalidRequestError: the event does not say which.
        """
        if self.period not in list(PeriodKind):
            return Period.parse(self.period)
        if self.time is None:
            raise InvalidRequestError(
                f"time: is missing; the {self.period} is that of the scheduled time, never of this machine's clock"
            )
        return Period.at(PeriodKind(self.period), self.time, self.time_zone)

    def check_period(self, period: Period, now: datetime) -> None:
        """See that nobody has mistyped the period.

        Raises:
            InvalidRequestError: it is later than today or long over, and the event does not say `force`.
        """
        if not self.force and (doubt := period.doubt(now, self.time_zone)):
            raise InvalidRequestError(
                f'period: {doubt}; with "force": true it is granted all the same'
            )


class SegmentQueue:
    """The SQS queue on which segments wait for a worker. Each message has all that one needs to go on."""

    def __init__(self, client: "SQSClient", url: str) -> None:
        self._client = client
        self._url = url

    def send(self, segment: Segment) -> None:
        """Put a segment on the queue. It does no harm to send it twice.

        Raises:
            UnavailableError: the answer is not SQS's, so the segment may not be on the queue.
        """
        sent = self._client.send_message(QueueUrl=self._url, MessageBody=segment.model_dump_json())
        if not sent.get("MessageId"):  # a proxy may answer 200 to a request that it never handed on
            raise UnavailableError("The answer has no message id: it is not SQS's.")

    @staticmethod
    def read(record: Mapping[str, Any]) -> Segment:
        """The segment of a record that Lambda was given.

        Raises:
            InvalidRequestError: it holds none.
        """
        try:
            return Segment.model_validate_json(record["body"])
        except (KeyError, ValidationError) as error:
            raise InvalidRequestError(f"invalid segment message: {type(error).__name__}") from None
