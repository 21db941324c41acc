"""SQS and Lambda around the scheduled function, on moto's SQS: deliver, deliver again, kill."""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache, partial
from time import monotonic
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from functions.daily_reward.events import SegmentQueue
from functions.daily_reward.function import RewardFunction
from functions.daily_reward.runs import Runs
from functions.example_app.operations import ExampleAppOperations
from infra.dynamodb import create_tables
from ledger_core.account import Account, AccountChange
from ledger_core.dynamodb import WRITES_MAX, SweepStore
from ledger_core.operations import BaseLedgerOperations
from tests.invariants import Book, check
from tests.support import NOON, change_of, operation

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_sqs import SQSClient

RECEIVES_MAX = 5


class KilledError(BaseException):
    """The process is killed. No code catches this."""


class Mortal:
    """A client whose process is killed at a request. The clients of a life count together."""

    def __init__(self, client: Any, life: "Life") -> None:
        self._client = client
        self._life = life

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._client, name)
        if name == "exceptions" or not callable(attribute):
            return attribute
        return self._life.watched(attribute)


@dataclass
class Life:
    """The life of a process, which ends at its n-th request.

    Attributes:
        requests: the number of the last request; None if the process is not killed.
        after: whether the last request is answered; else it is not even sent.
        sent: counts the requests.
        ended: whether the process is killed.
    """

    requests: int | None = None
    after: bool = True
    sent: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    ended: bool = False

    def watched(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(**arguments: Any) -> Any:
            last = next(self.sent) == self.requests
            if self.ended or (last and not self.after):
                self.ended = True
                raise KilledError
            answer = call(**arguments)
            if last:
                self.ended = True
            if self.ended:
                raise KilledError
            return answer

        return watched


@dataclass
class Context:
    """Lambda's context of a call."""

    seconds: float = 60.0
    aws_request_id: str = "invocation"

    def get_remaining_time_in_millis(self) -> float:
        return self.seconds * 1000


@dataclass(eq=False)
class Cloud:
    """The tables, the queues, and the environments of the function that a test starts."""

    dynamodb: "DynamoDBClient"
    sqs: "SQSClient"
    tables: dict[str, str]
    operations: type[BaseLedgerOperations] = ExampleAppOperations
    clock: Callable[[], datetime] = field(default_factory=lambda: clock_from(NOON))
    """The function's clock, which begins on the day of the tests."""

    def __post_init__(self) -> None:
        self.dead_url = self.sqs.create_queue(QueueName="dead")["QueueUrl"]
        attributes = self.sqs.get_queue_attributes(
            QueueUrl=self.dead_url, AttributeNames=["QueueArn"]
        )["Attributes"]
        redrive = {
            "deadLetterTargetArn": attributes["QueueArn"],
            "maxReceiveCount": str(RECEIVES_MAX),
        }
        # A message that is not deleted comes again at once.
        self.url = self.sqs.create_queue(
            QueueName="rewards",
            Attributes={"VisibilityTimeout": "0", "RedrivePolicy": json.dumps(redrive)},
        )["QueueUrl"]

    def function(self, life: Life | None = None) -> RewardFunction:
        """A new environment of the function; `life` says when it is killed."""
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

    @cache  # noqa: B019  # a cloud lasts as long as its test
    def create_runs(self) -> None:
        create_tables(self.dynamodb, {"LEDGER_RUNS_TABLE": self.tables["LEDGER_RUNS_TABLE"]})

    def store(self, client: "DynamoDBClient | None" = None) -> SweepStore:
        return SweepStore(
            client or self.dynamodb,
            entries_table=self.tables["LEDGER_ENTRIES_TABLE"],
            accounts_table=self.tables["LEDGER_ACCOUNTS_TABLE"],
        )

    def records(self) -> list[dict[str, Any]]:
        """Up to ten messages, as Lambda receives them."""
        answer = self.sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10)
        return [
            {
                "messageId": message["MessageId"],
                "body": message["Body"],
                "receiptHandle": message["ReceiptHandle"],
            }
            for message in answer.get("Messages", [])
        ]

    def deliver(self, function: RewardFunction, *, seconds: float = 60.0) -> bool:
        """Deliver a batch of messages, and delete those that did not fail.

        Returns:
            False if the queue is empty.
        """
        records = self.records()
        if not records:
            return False
        failed = function({"Records": records}, Context(seconds))["batchItemFailures"]
        for record in records:
            if {"itemIdentifier": record["messageId"]} not in failed:
                # Another worker may have deleted the message. moto raises; SQS does not.
                with suppress(self.sqs.exceptions.ReceiptHandleIsInvalid):
                    self._delete(self.url, record["receiptHandle"])
        return True

    def run(
        self,
        period: str,
        *,
        segments: int = 2,
        function: RewardFunction | None = None,
        **event: Any,
    ) -> None:
        """Begin a sweep and run it to its end."""
        function = function or self.function()
        function({"period": period, "segments": segments, "force": True, **event}, Context())
        self.drain(function)

    def drain(self, function: RewardFunction | None = None, *, seconds: float = 60.0) -> None:
        function = function or self.function()
        while self.deliver(function, seconds=seconds):
            pass

    def dead_letters(self) -> list[dict[str, Any]]:
        """What is among the dead letters; it stays there."""
        answer = self.sqs.receive_message(
            QueueUrl=self.dead_url, MaxNumberOfMessages=10, VisibilityTimeout=0
        )
        return [json.loads(message["Body"]) for message in answer.get("Messages", [])]

    def redrive(self) -> None:
        """Put the dead letters back on the queue, as an operator does."""
        answer = self.sqs.receive_message(QueueUrl=self.dead_url, MaxNumberOfMessages=10)
        for message in answer.get("Messages", []):
            self.sqs.send_message(QueueUrl=self.url, MessageBody=message["Body"])
            self._delete(self.dead_url, message["ReceiptHandle"])

    def _delete(self, url: str, receipt_handle: str) -> None:
        self.sqs.delete_message(QueueUrl=url, ReceiptHandle=receipt_handle)

    def seed(self, owners: int, *, first: int = 0) -> list[str]:
        """Create owners who have an entry and 3 credits each."""
        owner_ids = [f"owner-{number}" for number in range(first, first + owners)]
        for position in range(0, owners, WRITES_MAX):
            batch = owner_ids[position : position + WRITES_MAX]
            changes = [_signup(owner_id) for owner_id in batch]
            assert self.store().transact(changes, token=str(uuid4())) == []
        return owner_ids

    def check(self, owner_ids: Iterable[str], periods: Iterable[str], *, others: int = 1) -> None:
        """Each owner has one reward for each period, `others` other entries, and a valid ledger."""
        nonces = sorted(f"ledger:daily-reward:{period}" for period in periods)
        for owner_id in owner_ids:
            book = Book.of(self.store(), owner_id)
            check(book)
            rewards = [entry for entry in book.entries if entry.operation == "DAILY_REWARD"]
            assert sorted(entry.nonce for entry in rewards) == nonces, owner_id
            assert len(book.entries) == len(nonces) + others


def _signup(owner_id: str) -> AccountChange:
    """The change that posts an owner's first entry."""
    account = Account(owner_id=owner_id)
    entry = account.next_entry(operation(owner_id=owner_id), amount=3, now=NOON)
    return change_of(account, entry)


def clock_from(begun: datetime) -> Callable[[], datetime]:
    """A clock that starts now at `begun`."""
    since = monotonic()
    return lambda: begun + timedelta(seconds=monotonic() - since)


@contextmanager
def patched(client: Any, **calls: Callable[..., Any]) -> Iterator[None]:
    """Replace calls of a client until the end of the block.

    Each replacement receives the real call as its first argument.
    """
    for name, call in calls.items():
        setattr(client, name, partial(call, getattr(client, name)))
    try:
        yield
    finally:
        for name in calls:
            delattr(client, name)
