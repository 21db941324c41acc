"""A ledger behind a proxy: requests by HTTP or by a sweep, and the calls of DynamoDB they take.

Time passes only by calls and pauses, so the number of tries of a call is certain.
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
"""The time of a request, unless a fault must last longer."""
CREDITS = 3

Result = Mapping[str, Any]


def calls_in(sources: list[Path], client: Any) -> dict[str, str]:
    """Each function that calls DynamoDB, as `module.function`, and DynamoDB's name of the call."""
    names = {"get_paginator": "any", "get_waiter": "any", **client.meta.method_to_api_mapping}
    calls: dict[str, str] = {}
    for path in sources:
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, ast.FunctionDef):
                continue
            place = f"{path.stem}.{function.name}"
            for node in ast.walk(function):
                if isinstance(node, ast.Attribute) and node.attr in names:
                    name = names[node.attr]
                    assert calls.setdefault(place, name) == name, f"{place} makes two calls"
    return calls


def seconds_until(calls: int, *, tries: int) -> float:
    """The time in which a request makes some calls, tries the next one so often, and then fails."""
    pauses = sum(PAUSE_SECONDS_BASE * (1 << number) for number in range(tries - 1))
    return CALL_SECONDS * (calls + tries - 0.5) + pauses


def fields_of(answer: HttpAnswer) -> Result:
    """The body, the status and the time to wait of an HTTP answer, in one table."""
    return {
        **answer.body,
        "status": answer.status,
        "retry-after": answer.headers.get("retry-after"),
    }


class World:
    """A ledger with its own tables. Its clients use the endpoint that the environment names.

    Args:
        client: a client without the proxy, to prepare and to check.
        read_seconds: how long the ledger's clients wait for an answer.
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
        self.runs = Runs(
            self._watched(CLIENT_CONFIG.merge(waiting)),
            tables["LEDGER_RUNS_TABLE"],
            budget=lambda: processor.budget(self.seconds),
        )

    def get_remaining_time_in_millis(self) -> float:
        """The time of the function, as Lambda's context gives it."""
        return (self.seconds + CONNECT_SECONDS_MAX + READ_SECONDS_MAX) * 1000

    def number(self) -> int:
        """A number of an owner that no request was about."""
        self._number += 1
        return self._number

    def owner(self, number: int) -> str:
        """Create an owner with some credits, without the ledger's process, if there is none."""
        owner_id = f"owner-{number}"
        self._touched.add(owner_id)
        if owner_id not in self._answers:
            request = operation(owner_id=owner_id)
            account = Account(owner_id=owner_id)
            entry = account.next_entry(request, amount=CREDITS, now=NOON)
            assert self.store.transact([change_of(account, entry)], token=uuid4().hex) == []
            answer = Answer(request=request, outcome=Outcome.ACCEPTED, entry=entry)
            self._answers[owner_id] = [answer]
        return owner_id

    def post(self, request: OperationRequest) -> Result:
        """Post a request by HTTP, and keep the answer."""
        body = request.model_dump(mode="json", exclude_none=True)
        begun = time.monotonic()
        http = self._api("POST", "/ledger/entry", body)
        ended = time.monotonic()
        answer = Answer.of_http(request, http.status, http.body, begun=begun, ended=ended)
        self._answers[request.owner_id].append(answer)
        return fields_of(http)

    def get(self, path: str, **query: str) -> Result:
        """Send a GET request by HTTP."""
        return fields_of(self._api("GET", path, query=query))

    def table_ids(self, number: int) -> Result:
        """The ids of an owner in the table, which an audit reads if the index misses an entry."""
        budget = RetryBudget.lasting(self.seconds, **self._time())
        ids, _ = budget.call(partial(self._store.table_ids, f"owner-{number}"))
        return {"ids": ids}

    def sweep(self, day: str, **place: Any) -> Result:
        """Reward all owners, or those that an earlier sweep postponed."""
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
        self, question: Callable[["World", int], Result], number: int, *, seconds: float = SECONDS
    ) -> Result:
        """The result of a request, or its error's code; `calls` has the calls that it took."""
        self.seconds = seconds
        self._now = 0.0
        self.calls.clear()
        try:
            return question(self, number)
        except LedgerError as error:
            return {"code": error.code, "state": error.state}
        finally:
            self.seconds = SECONDS

    def check(self) -> None:
        """Check the ledgers that were used since the last check, with all answers about them."""
        while self._touched:
            owner_id = self._touched.pop()
            check(Book.of(self.store, owner_id), self._answers[owner_id])

    def _time(self) -> dict[str, Any]:
        return {"monotonic": lambda: self._now, "sleep": self._pass, "random": lambda: 1.0}

    def _pass(self, seconds: float) -> None:
        self._now += seconds

    def _watched(self, config: Config) -> "DynamoDBClient":
        """A client that records which function of the source makes each call."""
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
