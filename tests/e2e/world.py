"""A ledger behind a proxy: what is asked of it, by HTTP or by a sweep, and which calls of DynamoDB that takes.

Time passes there with every call and when somebody waits, so that it is certain how often something is tried.
"""

import ast
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from botocore.config import Config

from functions.daily_reward.runs import Runs
from functions.example_app.operations import ExampleAppOperations
from infra.dynamodb import TABLES, create_tables
from ledger_core import LedgerError, OperationRequest
from ledger_core.account import Account
from ledger_core.dynamodb import CLIENT_CONFIG, SWEEP_CONFIG, SweepStore
from ledger_core.http import LedgerRouter, create_api, create_handler
from ledger_core.periods import Period
from ledger_core.posting import OperationProcessor, RetryBudget
from ledger_core.posting.retry import PAUSE_SECONDS_BASE
from ledger_core.rewards import Reward, Segment, Sweep
from ledger_core.settings import CONNECT_SECONDS_MAX, READ_SECONDS_MAX, AuthMode
from ledger_core.wiring import create_client
from tests.invariants import Answer, Book, Outcome, check
from tests.support import NOON, ROOT, LambdaApi, change_of, operation
from tests.support import Answer as HttpAnswer

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

SOURCES = [
    path
    for folder in ("ledger_core", "functions")
    for path in sorted(ROOT.glob(f"{folder}/**/*.py"))
]
CALL_SECONDS = 0.007
SECONDS = 10.0
"""What a request has unless a fault is to outlast it."""
CREDITS = 3

Told = Mapping[str, Any]


def calls_in(sources: list[Path], client: Any) -> dict[str, str]:
    """Each function that calls DynamoDB, as `module.function`, and DynamoDB's name of the call."""
    names = {"get_paginator": "any", "get_waiter": "any", **client.meta.method_to_api_mapping}
    found: dict[str, str] = {}
    for path in sources:
        functions = [
            node
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.FunctionDef)
        ]
        for function in functions:
            for node in ast.walk(function):
                if isinstance(node, ast.Attribute) and node.attr in names:
                    place = f"{path.stem}.{function.name}"
                    assert found.setdefault(place, names[node.attr]) == names[node.attr], (
                        f"{place} makes two calls"
                    )
    return found


def seconds_until(calls: int, *, tries: int) -> float:
    """How long a request has, if after so many calls the next is to be made so many times, and nothing after it."""
    pauses = sum(PAUSE_SECONDS_BASE * (1 << number) for number in range(tries - 1))
    return CALL_SECONDS * (calls + tries - 0.5) + pauses


def all_of(answer: HttpAnswer) -> Told:
    """What an HTTP answer tells, in one."""
    return {
        **answer.body,
        "status": answer.status,
        "retry-after": answer.headers.get("retry-after"),
    }


class World:
    """Tables of its own and what uses them; clients that are made now go where the environment points.

    Args:
        client: one that goes past the proxy, to prepare and to check.
        read_seconds: how long the others wait for an answer.
    """

    def __init__(self, client: "DynamoDBClient", *, read_seconds: float) -> None:
        self.calls: list[str] = []
        self.seconds = SECONDS
        self._now = 0.0
        self._number = 0
        self._answers: dict[str, list[Answer]] = {}
        self._touched: set[str] = set()
        tables = {name: f"{name}-{uuid4()}" for name in TABLES.values()}
        create_tables(client, tables)
        waiting = Config(read_timeout=read_seconds)
        names = {
            "entries_table": tables["LEDGER_ENTRIES_TABLE"],
            "accounts_table": tables["LEDGER_ACCOUNTS_TABLE"],
        }
        self.store = SweepStore(client, **names)
        self._store = SweepStore(self._watched(SWEEP_CONFIG.merge(waiting)), **names)
        processor = OperationProcessor(self._store, ExampleAppOperations, **self._time())
        self._api = LambdaApi(
            create_handler(create_api("App", LedgerRouter(processor), auth=AuthMode.NONE))
        )
        self._api.context = self
        client, patience = (
            self._watched(CLIENT_CONFIG.merge(waiting)),
            lambda: processor.budget(self.seconds),
        )
        self.runs = Runs(client, tables["LEDGER_RUNS_TABLE"], budget=patience)

    def get_remaining_time_in_millis(self) -> float:
        """What Lambda tells a request of the function's time."""
        return (self.seconds + CONNECT_SECONDS_MAX + READ_SECONDS_MAX) * 1000

    def number(self) -> int:
        """What nothing was asked about so far."""
        self._number += 1
        return self._number

    def owner(self, number: int) -> str:
        """An owner who has some credits; the first time, the ledger's process has not met them."""
        owner_id = f"owner-{number}"
        self._touched.add(owner_id)
        if owner_id not in self._answers:
            request, head = operation(owner_id=owner_id), Account(owner_id=owner_id)
            entry = head.next_entry(request, amount=CREDITS, now=NOON)
            assert self.store.transact([change_of(head, entry)], token=uuid4().hex) == []
            self._answers[owner_id] = [
                Answer(request=request, outcome=Outcome.ACCEPTED, entry=entry)
            ]
        return owner_id

    def post(self, request: OperationRequest) -> Told:
        """Post it by HTTP; the answer is kept."""
        begun = time.monotonic()
        told = self._api(
            "POST", "/ledger/entry", request.model_dump(mode="json", exclude_none=True)
        )
        answer = Answer.of_http(
            request, told.status, told.body, begun=begun, ended=time.monotonic()
        )
        self._answers[request.owner_id].append(answer)
        return all_of(told)

    def get(self, path: str, **query: str) -> Told:
        """Ask for something by HTTP."""
        return all_of(self._api("GET", path, query=query))

    def table_ids(self, number: int) -> Told:
        """What the table has of an owner, as an audit asks when the index does not show it."""
        budget = RetryBudget(self._now + self.seconds, **self._time())
        ids, _ = budget.call(partial(self._store.table_ids, f"owner-{number}"))
        return {"ids": ids}

    def sweep(self, day: str, **place: Any) -> Told:
        """Reward all owners, or those that an earlier sweep put off."""
        reward = Reward.of(ExampleAppOperations, "DAILY_REWARD", Period.parse(day))
        (segment,) = Segment.all_of(reward, 1, NOON)
        segment = segment.model_copy(update=place)
        after = Sweep(self._store, reward, **self._time()).run(segment, seconds=self.seconds)
        return {
            "finished": after.finished,
            "granted": after.tally.granted,
            "already": after.tally.already,
        }

    def ask(
        self, question: Callable[["World", int], Told], number: int, *, seconds: float = SECONDS
    ) -> Told:
        """What is told to who asks this, by HTTP or by the code of what is raised; `calls` has what it took."""
        self.seconds, self._now = seconds, 0.0
        self.calls.clear()
        try:
            return question(self, number)
        except LedgerError as error:
            return {"code": error.code, "state": error.state}
        finally:
            self.seconds = SECONDS

    def check(self) -> None:
        """Every invariant holds of the ledgers that were touched since, and of all that was ever told of them."""
        while self._touched:
            owner_id = self._touched.pop()
            check(Book.of(self.store, owner_id), self._answers[owner_id])

    def _time(self) -> dict[str, Any]:
        return {"monotonic": lambda: self._now, "sleep": self._pass, "random": lambda: 1.0}

    def _pass(self, seconds: float) -> None:
        self._now += seconds

    def _watched(self, config: Config) -> "DynamoDBClient":
        """A client that notes which function of the source makes each of its calls."""
        files = {str(path): path.stem for path in SOURCES}

        def note(**_: Any) -> None:
            frame = sys._getframe()
            while frame.f_code.co_filename not in files:
                assert frame.f_back is not None
                frame = frame.f_back
            self.calls.append(f"{files[frame.f_code.co_filename]}.{frame.f_code.co_name}")
            self._pass(CALL_SECONDS)

        client = create_client(config)
        client.meta.events.register("before-send.dynamodb", note)
        return client
