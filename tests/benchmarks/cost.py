"""What a million of each thing costs on AWS at list price: arithmetic upon what is measured here, and upon assumptions
that are named as such."""

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
WRITE_SECONDS, READ_SECONDS = 0.005, 0.003
"""Assumed: how long a function waits for a TransactWriteItems and for a GetItem."""
LAMBDA_LINES_BYTES = 700
"""Assumed: what Lambda itself logs of an invocation, at its start and as its report."""
OWNER_ID, NONCE = (str(UUID(int=number)) for number in (2**127, 2**126))
REMAINING_MILLISECONDS = 15_000


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request to the API, by what is charged for."""

    read_units: float
    write_units: float
    cpu_seconds: float
    waiting_seconds: float
    log_bytes: float

    def seconds(self, memory: int) -> float:
        """How long it takes a function of so many megabytes, which may use a CPU for a part of the time only."""
        return (
            self.cpu_seconds * max(1.0, prices.LAMBDA_CPU_MEGABYTES / memory) + self.waiting_seconds
        )

    def lambda_dollars(self, memory: int) -> float:
        """What Lambda charges."""
        step = prices.LAMBDA_BILLED_SECONDS_STEP
        gigabyte_seconds = ceil(self.seconds(memory) / step) * step * memory / 1024
        return prices.LAMBDA_REQUEST_DOLLARS + gigabyte_seconds * prices.LAMBDA_GB_SECOND_DOLLARS

    @property
    def dynamodb_dollars(self) -> float:
        """What DynamoDB charges, on demand."""
        return (
            self.read_units * prices.READ_UNIT_DOLLARS
            + self.write_units * prices.WRITE_UNIT_DOLLARS
        )

    @property
    def log_dollars(self) -> float:
        """What CloudWatch Logs charges."""
        return self.log_bytes / prices.GIGABYTE * prices.LOG_GB_DOLLARS

    def dollars(self, memory: int) -> float:
        """All of it, with what API Gateway charges."""
        others = self.dynamodb_dollars + self.log_dollars + prices.API_REQUEST_DOLLARS
        return self.lambda_dollars(memory) + others


class Sizes(NamedTuple):
    """Bytes of what one entry leaves behind, and the write units that it took."""

    entry: int
    balance: int
    log_line: int
    write_units: int


def run() -> Part:
    """Measure sizes and CPU time, and compute."""
    sizes, cpu_seconds = _sizes(), handler_cpu_seconds()
    access_log = template()["Resources"]["HttpApiStage"]["Properties"]["AccessLogSettings"][
        "Format"
    ]
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
        "list prices in us-east-1 as of November 2026, no free tier. Assumed: Lambda's CPU is as fast as this one, and "
        f"all there at {prices.LAMBDA_CPU_MEGABYTES:,} MB; DynamoDB takes {WRITE_SECONDS * 1e3:g} ms to write and "
        f"{READ_SECONDS * 1e3:g} ms to read; a balance is as much work as an entry. Left out: custom metrics and "
        "alarms, which do not grow with requests; traces; traffic out",
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
        lasting = f"{memory:,} MB, {request.seconds(memory) * 1e3:.1f} ms"
        yield Row(f"{what}: Lambda of {lasting}", _million(request.lambda_dollars(memory)))
    for memory in MEMORY_SIZES:
        yield Row(f"{what}: in all, with {memory:,} MB", _million(request.dollars(memory)))


def _million(dollars: float) -> str:
    return f"${dollars * prices.MILLION:,.3f}"


def _sizes() -> Sizes:
    """Of the second entry of an owner, posted through the handler."""
    with dynamodb_local() as endpoint:
        os.environ["AWS_ENDPOINT_URL_DYNAMODB"] = endpoint
        client, settings = create_client(), load_settings()
        create_tables(client, os.environ)
        api, lines = LambdaApi(create_handler(create_app(client))), StringIO()
        api.context = SimpleNamespace(
            aws_request_id=NONCE, get_remaining_time_in_millis=lambda: REMAINING_MILLISECONDS
        )
        with redirect_stdout(lines):
            for nonce in ("first", NONCE):
                api(
                    "POST",
                    "/ledger/entry",
                    {"owner_id": OWNER_ID, "operation": "SIGNUP_CREDIT", "nonce": nonce},
                )
        keys = {"entry_key": {"S": entry_key(OWNER_ID, NONCE)}}, key_of_account(OWNER_ID)
        tables = (settings.entries_table, settings.accounts_table)
        entry, balance = (
            client.get_item(TableName=table, Key=key)["Item"]
            for table, key in zip(tables, keys, strict=True)
        )
    *_, line = lines.getvalue().splitlines()
    units = write_units_of_entry(entry) + write_units_of_balance(balance, balance)
    return Sizes(item_bytes(entry), item_bytes(balance), len(line.encode()), units)
