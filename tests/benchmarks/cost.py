"""The cost of a million requests on AWS at list prices, from measurements and named assumptions."""

import os
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from math import ceil
from types import SimpleNamespace
from typing import NamedTuple
from uuid import UUID

from functions.example_app.app import create_app
from infra.dynamodb import create_tables, dynamodb_local, template
from ledger_core.dynamodb.expressions import key_of_account
from ledger_core.http import create_handler
from ledger_core.keys import entry_key
from ledger_core.wiring import create_client, load_settings
from tests.benchmarks import limits, prices
from tests.benchmarks.cpu import handler_cpu_seconds
from tests.benchmarks.report import Part, Row
from tests.benchmarks.units import item_bytes, write_units_of_balance, write_units_of_entry
from tests.support import LambdaApi

__all__ = ["Request", "run"]

MEMORY_SIZES = (512, 1024)
WRITE_SECONDS = 0.005
"""Assumed: how long a function waits for a TransactWriteItems."""
READ_SECONDS = 0.003
"""Assumed: how long a function waits for a GetItem."""
LAMBDA_LINES_BYTES = 700
"""Assumed: the bytes that Lambda itself logs of a request, at its start and as its report."""
OWNER_ID = str(UUID(int=2**127))
NONCE = str(UUID(int=2**126))
REMAINING_MILLISECONDS = 15_000


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request to the API, by what AWS charges for."""

    read_units: float
    write_units: float
    cpu_seconds: float
    waiting_seconds: float
    log_bytes: float

    def seconds(self, memory: int) -> float:
        """The time of a function with some megabytes, which has a CPU for a part of the time."""
        cpu_factor = max(1.0, prices.LAMBDA_CPU_MEGABYTES / memory)
        return self.cpu_seconds * cpu_factor + self.waiting_seconds

    def lambda_dollars(self, memory: int) -> float:
        """The price of Lambda."""
        step = prices.LAMBDA_BILLED_SECONDS_STEP
        gigabyte_seconds = ceil(self.seconds(memory) / step) * step * memory / 1024
        return prices.LAMBDA_REQUEST_DOLLARS + gigabyte_seconds * prices.LAMBDA_GB_SECOND_DOLLARS

    @property
    def dynamodb_dollars(self) -> float:
        """The price of DynamoDB, on demand."""
        reads = self.read_units * prices.READ_UNIT_DOLLARS
        writes = self.write_units * prices.WRITE_UNIT_DOLLARS
        return reads + writes

    @property
    def log_dollars(self) -> float:
        """The price of CloudWatch Logs."""
        return self.log_bytes / prices.GIGABYTE * prices.LOG_GB_DOLLARS

    def dollars(self, memory: int) -> float:
        """The whole price, with that of API Gateway."""
        others = self.dynamodb_dollars + self.log_dollars + prices.API_REQUEST_DOLLARS
        return self.lambda_dollars(memory) + others


class Sizes(NamedTuple):
    """The bytes that an entry stores and logs, and the write units that it takes."""

    entry: int
    balance: int
    log_line: int
    write_units: int


def run() -> Part:
    """Measure sizes and CPU time, and compute the costs."""
    sizes = _sizes()
    cpu_seconds = handler_cpu_seconds()
    stage = template()["Resources"]["HttpApiStage"]["Properties"]
    access_log = stage["AccessLogSettings"]["Format"]
    entry = Request(
        read_units=0,
        write_units=sizes.write_units,
        cpu_seconds=cpu_seconds,
        waiting_seconds=WRITE_SECONDS,
        log_bytes=sizes.log_line + LAMBDA_LINES_BYTES + len(access_log),
    )
    balance = replace(entry, read_units=1, write_units=0, waiting_seconds=READ_SECONDS)
    memory = int(template()["Parameters"]["MemorySize"]["Default"])
    return Part(
        "Cost and limits",
        "list prices in us-east-1 as of November 2026, no free tier. Assumed: Lambda's CPU is as "
        f"fast as this one, and a whole CPU at {prices.LAMBDA_CPU_MEGABYTES:,} MB; DynamoDB takes "
        f"{WRITE_SECONDS * 1e3:g} ms to write and {READ_SECONDS * 1e3:g} ms to read; a balance is "
        "as much work as an entry. Left out: custom metrics and alarms, which do not grow with "
        "requests; traces; traffic out",
        [
            Row("an entry: CPU time of the handler", f"{cpu_seconds * 1e3:.2f} ms"),
            Row("an entry: bytes of the function's line in the log", f"{sizes.log_line:,}"),
            *_request_rows("a million entries", entry),
            *_request_rows("a million balances", balance),
            *limits.reward_rows(sizes.balance, memory),
            *limits.storage_rows(sizes.entry, sizes.balance),
            *limits.rate_rows(entry.seconds(memory), memory),
        ],
    )


def _request_rows(what: str, request: Request) -> Iterator[Row]:
    yield Row(f"{what}: DynamoDB", _million(request.dynamodb_dollars))
    yield Row(f"{what}: API Gateway", _million(prices.API_REQUEST_DOLLARS))
    yield Row(
        f"{what}: logs, {request.log_bytes:,.0f} bytes a request", _million(request.log_dollars)
    )
    for memory in MEMORY_SIZES:
        size = f"{memory:,} MB, {request.seconds(memory) * 1e3:.1f} ms"
        yield Row(f"{what}: Lambda of {size}", _million(request.lambda_dollars(memory)))
    for memory in MEMORY_SIZES:
        yield Row(f"{what}: in all, with {memory:,} MB", _million(request.dollars(memory)))


def _million(dollars: float) -> str:
    return f"${dollars * prices.MILLION:,.3f}"


def _sizes() -> Sizes:
    """The sizes of the second entry of an owner, posted through the handler."""
    with dynamodb_local() as endpoint:
        os.environ["AWS_ENDPOINT_URL_DYNAMODB"] = endpoint
        client = create_client()
        settings = load_settings()
        create_tables(client, os.environ)
        api = LambdaApi(create_handler(create_app(client)))
        lines = StringIO()
        api.context = SimpleNamespace(
            aws_request_id=NONCE, get_remaining_time_in_millis=lambda: REMAINING_MILLISECONDS
        )
        with redirect_stdout(lines):
            for nonce in ("first", NONCE):
                body = {"owner_id": OWNER_ID, "operation": "SIGNUP_CREDIT", "nonce": nonce}
                api("POST", "/ledger/entry", body)
        key = {"entry_key": {"S": entry_key(OWNER_ID, NONCE)}}
        entry = client.get_item(TableName=settings.entries_table, Key=key)["Item"]
        key = key_of_account(OWNER_ID)
        balance = client.get_item(TableName=settings.accounts_table, Key=key)["Item"]
    *_, line = lines.getvalue().splitlines()
    units = write_units_of_entry(entry) + write_units_of_balance(balance, balance)
    return Sizes(item_bytes(entry), item_bytes(balance), len(line.encode()), units)
