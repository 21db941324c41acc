"""The only place where settings, AWS's clients and an app's operations meet."""

import os
import sys
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ledger_core.dynamodb import (
    CLIENT_CONFIG,
    SWEEP_CONFIG,
    ClientConfig,
    KmsKey,
    LedgerStore,
    PemKey,
    ReceiptKey,
    SweepStore,
    create_dynamodb_client,
    create_kms_client,
    create_sqs_client,
)
from ledger_core.errors import ConfigurationError
from ledger_core.operations import BaseLedgerOperations
from ledger_core.posting import OperationProcessor
from ledger_core.settings import RewardSettings, Settings

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_sqs import SQSClient

__all__ = [
    "create_account_store",
    "create_client",
    "create_processor",
    "create_queue_client",
    "create_receipt_key",
    "create_store",
    "load_reward_settings",
    "load_settings",
]

T = TypeVar("T")


def create_client(config: ClientConfig = CLIENT_CONFIG) -> "DynamoDBClient":
    """A client for where AWS's own variables point. Exits with one line when they point nowhere."""
    return _or_exit(partial(create_dynamodb_client, config))


def create_queue_client(queue_url: str) -> "SQSClient":
    """A client of SQS, at the host of the queue. Exits with one line when there can be no such
    client."""
    return _or_exit(partial(create_sqs_client, queue_url))


def create_store(client: "DynamoDBClient | None" = None) -> LedgerStore:
    """The store that the environment names; `client` is for tests and local runs."""
    settings = load_settings()
    return LedgerStore(
        client or create_client(),
        entries_table=settings.entries_table,
        accounts_table=settings.accounts_table,
    )


def create_account_store(client: "DynamoDBClient | None" = None) -> SweepStore:
    """The same store, for sweeps."""
    settings = load_settings()
    return SweepStore(
        client or create_client(SWEEP_CONFIG),
        entries_table=settings.entries_table,
        accounts_table=settings.accounts_table,
    )


def create_processor(
    operations: type[BaseLedgerOperations],
    client: "DynamoDBClient | None" = None,
    *,
    clock: Callable[[], datetime] | None = None,
) -> OperationProcessor:
    """The processor of an app's operations over that store; a `clock` of one's own is held against
    no other."""
    return OperationProcessor(create_store(client), operations, clock=clock)


def create_receipt_key(name: str | None = None) -> ReceiptKey | None:
    """The key of that name, or the one that the environment names, which signs receipts; None if it
    names none."""
    settings = load_settings()
    name = name or settings.receipt_key
    if not name:
        return None
    if name.endswith(".pem"):
        return PemKey(Path(name), settings.service)
    return KmsKey(create_kms_client, name, settings.service)


def load_settings() -> Settings:
    """The settings of the environment, read once. Exits with one line if a setting is wrong."""
    return _or_exit(partial(_settings_of, frozenset(os.environ.items())))


def load_reward_settings() -> RewardSettings:
    """Those that the scheduled function needs beside them."""
    return _or_exit(partial(RewardSettings.from_environment, os.environ))


@lru_cache(maxsize=1)
def _settings_of(environment: frozenset[tuple[str, str]]) -> Settings:
    """The settings of one environment: a test changes it, a process does not."""
    return Settings.from_environment(dict(environment))


def _or_exit(create: Callable[[], T]) -> T:
    try:
        return create()
    except ConfigurationError as error:
        sys.exit(f"ledger: {error}")
