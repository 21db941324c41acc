"""What SQS and Lambda do to the scheduled function, on moto's SQS: deliver, deliver again, kill."""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from time import monotonic
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from functions.daily_reward.events import SegmentQueue
from functions.daily_reward.function import RewardFunction
from functions.daily_reward.runs import Runs
from functions.example_app.operations import ExampleAppOperations
from infra.dynamodb import create_tables
from ledger_core.account import Account
from ledger_core.dynamodb import WRITES_MAX, SweepStore
from ledger_core.operations import BaseLedgerOperations
from tests.invariants import Book, check
from tests.support import NOON, change_of, operation

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_sqs import SQSClient

RECEIVES_MAX = 5


class KilledError(BaseException):
    """The process is gone: nothing catches this."""


class Mortal:
    """A client whose requests, counted together with those of others, end the process at one of them."""

    def __init__(self, client: Any, life: "Life") -> None:
        self._client = client
        self._life = life

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._client, name)
        return (
            self._life.watched(attribute)
            if callable(attribute) and name != "exceptions"
            else attribute
        )


@dataclass
class Life:
    """Ends at the n-th request: before it is sent, or after it was answered; None: lasts."""

    requests: int | None = None
    after: bool = True
    sent: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    over: bool = False

    def watched(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(**arguments: Any) -> Any:
            last = next(self.sent) == self.requests
            if self.over or (last and not self.after):
                self.over = True
                raise KilledError
            answer = call(**arguments)
            if last:
                self.over = True
            if self.over:
                raise KilledError
            return answer

        return watched


@dataclass
class Context:
    """What Lambda tells of an invocation."""

    seconds: float = 60.0
    aws_request_id: str = "invocation"

    def get_remaining_time_in_millis(self) -> float:
        return self.seconds * 1000


@dataclass(eq=False)
class Cloud:
    """The tables, the queues, and as many environments of the function as somebody starts."""

    dynamodb: "DynamoDBClient"
    sqs: "SQSClient"
    tables: dict[str, str]
    operations: type[BaseLedgerOperations] = ExampleAppOperations
    clock: Callable[[], datetime] = field(default_factory=lambda: clock_from(NOON))
    """The function's: the day of the tests, whenever they run."""

    def __post_init__(self) -> None:
        self.dead_url = self.sqs.create_queue(QueueName="dead")["QueueUrl"]
        attributes = self.sqs.get_queue_attributes(
            QueueUrl=self.dead_url, AttributeNames=["QueueArn"]
        )["Attributes"]
        redrive = {
            "deadLetterTargetArn": attributes["QueueArn"],
            "maxReceiveCount": str(RECEIVES_MAX),
        }
        # A message that is not deleted is there again at once.
        self.url = self.sqs.create_queue(
            QueueName="rewards",
            Attributes={"VisibilityTimeout": "0", "RedrivePolicy": json.dumps(redrive)},
        )["QueueUrl"]

    def function(self, life: Life | None = None) -> RewardFunction:
        """A new environment of the function, which remembers nothing; `life` says when it ends."""
        self.create_runs()
        dynamodb: Any = Mortal(self.dynamodb, life) if life else self.dynamodb
        sqs: Any = Mortal(self.sqs, life) if life else self.sqs
        return RewardFunction(
            self.operations,
            self.store(dynamodb),
            SegmentQueue(sqs, self.url),
            Runs(dynamodb, self.tables["LEDGER_RUNS_TABLE"]),
            clock=self.clock,
        )

    @cache  # noqa: B019  # once for each cloud, which lasts as long as its test
    def create_runs(self) -> None:
        create_tables(self.dynamodb, {"LEDGER_RUNS_TABLE": self.tables["LEDGER_RUNS_TABLE"]})

    def store(self, client: "DynamoDBClient | None" = None) -> SweepStore:
        return SweepStore(
            client or self.dynamodb,
            entries_table=self.tables["LEDGER_ENTRIES_TABLE"],
            accounts_table=self.tables["LEDGER_ACCOUNTS_TABLE"],
        )

    def records(self) -> list[dict[str, Any]]:
        """Up to ten messages, as Lambda is given them."""
        messages = self.sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10).get(
            "Messages", []
        )
        return [
            {
                "messageId": one["MessageId"],
                "body": one["Body"],
                "receiptHandle": one["ReceiptHandle"],
            }
            for one in messages
        ]

    def deliver(self, function: RewardFunction, *, seconds: float = 60.0) -> bool:
        """Hand over one batch of messages, and delete those that were seen to; False when there are none."""
        records = self.records()
        if not records:
            return False
        failed = function({"Records": records}, Context(seconds))["batchItemFailures"]
        for record in records:
            if {"itemIdentifier": record["messageId"]} not in failed:
                # Another worker may have had the message too, and deleted it first. SQS answers that with success.
                with suppress(self.sqs.exceptions.ReceiptHandleIsInvalid):
                    self.sqs.delete_message(
                        QueueUrl=self.url, ReceiptHandle=record["receiptHandle"]
                    )
        return True

    def run(
        self,
        period: str,
        *,
        segments: int = 2,
        function: RewardFunction | None = None,
        **event: Any,
    ) -> None:
        """Begin a sweep and see it to its end."""
        function = function or self.function()
        function({"period": period, "segments": segments, "force": True, **event}, Context())
        self.drain(function)

    def drain(self, function: RewardFunction | None = None, *, seconds: float = 60.0) -> None:
        function = function or self.function()
        while self.deliver(function, seconds=seconds):
            pass

    def dead_letters(self) -> list[dict[str, Any]]:
        """What is among the dead letters; it stays there."""
        found = self.sqs.receive_message(
            QueueUrl=self.dead_url, MaxNumberOfMessages=10, VisibilityTimeout=0
        )
        return [json.loads(one["Body"]) for one in found.get("Messages", [])]

    def redrive(self) -> None:
        """Put the dead letters back on the queue, as an operator does."""
        for one in self.sqs.receive_message(QueueUrl=self.dead_url, MaxNumberOfMessages=10).get(
            "Messages", []
        ):
            self.sqs.send_message(QueueUrl=self.url, MessageBody=one["Body"])
            self.sqs.delete_message(QueueUrl=self.dead_url, ReceiptHandle=one["ReceiptHandle"])

    def seed(self, owners: int, *, first: int = 0) -> list[str]:
        """Owners who have one entry and 3 credits each."""
        owner_ids = [f"owner-{number}" for number in range(first, first + owners)]
        for position in range(0, owners, WRITES_MAX):
            heads = [
                Account(owner_id=owner_id)
                for owner_id in owner_ids[position : position + WRITES_MAX]
            ]
            entries = [
                one.next_entry(operation(owner_id=one.owner_id), amount=3, now=NOON)
                for one in heads
            ]
            changes = [change_of(head, entry) for entry, head in zip(entries, heads, strict=True)]
            assert self.store().transact(changes, token=str(uuid4())) == []
        return owner_ids

    def check(self, owner_ids: Iterable[str], periods: Iterable[str], *, others: int = 1) -> None:
        """Every owner has exactly one reward for each period, `others` entries beside them, and a valid ledger."""
        nonces = sorted(f"ledger:daily-reward:{period}" for period in periods)
        for owner_id in owner_ids:
            book = Book.of(self.store(), owner_id)
            check(book)
            assert (
                sorted(one.nonce for one in book.entries if one.operation == "DAILY_REWARD")
                == nonces
            ), owner_id
            assert len(book.entries) == len(nonces) + others


def clock_from(begun: datetime) -> Callable[[], datetime]:
    """A clock that says `begun` now, and goes on from there."""
    since = monotonic()
    return lambda: begun + timedelta(seconds=monotonic() - since)


@contextmanager
def patched(client: Any, **calls: Callable[..., Any]) -> Iterator[None]:
    """A client some of whose calls are others; each is given the real one first."""
    real = {name: getattr(client, name) for name in calls}
    for name, call in calls.items():
        setattr(
            client, name, lambda call=call, name=name, **arguments: call(real[name], **arguments)
        )
    try:
        yield
    finally:
        for name in calls:
            delattr(client, name)
