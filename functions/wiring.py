"""The only place where settings, AWS's clients and an app's operations meet."""

import os
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

from botocore.config import Config
from botocore.exceptions import BotoCoreError
from botocore.session import Session

from ledger_core.accounts import AccountStore
from ledger_core.errors import ConfigurationError
from ledger_core.keys import KmsKey, PemKey, ReceiptKey
from ledger_core.operations import BaseLedgerOperations
from ledger_core.processor import OperationProcessor
from ledger_core.settings import (
    CONNECT_SECONDS_MAX,
    CONNECTIONS_MAX,
    READ_SECONDS_MAX,
    SWEEP_READ_SECONDS_MAX,
    RewardSettings,
    Settings,
)
from ledger_core.store import LedgerStore

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_sqs import SQSClient
T = TypeVar("T")

__all__ = [
    "create_account_store",
    "create_client",
    "create_processor",
    "create_queue_client",
    "create_receipt_key",
    "create_store",
    "load_reward_settings",
    "load_settings",
    "session",
]


LOOPBACK = {"127.0.0.1", "::1", "localhost"}


@cache
def session() -> Session:
    """Botocore's, by which boto3 makes its clients too; without the rest of boto3, functions start faster."""
    return Session()


CLIENT_CONFIG = Config(
    connect_timeout=CONNECT_SECONDS_MAX,
    read_timeout=READ_SECONDS_MAX,
    max_pool_connections=CONNECTIONS_MAX,
    # The processor tries again itself, within the caller's time and under the same token.
    retries={"mode": "standard", "total_max_attempts": 1},
    # What DynamoDB checks as well.
    parameter_validation=False,
    # Made once; botocore would make it twice for each call, in a fifth of the call's CPU time.
    user_agent=session().user_agent(),
)
SWEEP_CONFIG = CLIENT_CONFIG.merge(Config(read_timeout=SWEEP_READ_SECONDS_MAX))
KMS_CONFIG = Config(
    connect_timeout=CONNECT_SECONDS_MAX,
    read_timeout=READ_SECONDS_MAX,
    # A request tries again itself, within its time.
    retries={"mode": "standard", "total_max_attempts": 1},
)
QUEUE_CONFIG = Config(
    connect_timeout=CONNECT_SECONDS_MAX,
    read_timeout=READ_SECONDS_MAX,
    retries={"mode": "standard", "total_max_attempts": 2},
)


def create_client(config: Config = CLIENT_CONFIG) -> "DynamoDBClient":
    """A client for wherever AWS's own variables point. Exits with one line when they point nowhere."""
    try:
        config = _straight(config, os.environ.get("AWS_ENDPOINT_URL_DYNAMODB") or os.environ.get("AWS_ENDPOINT_URL"))
        client = cast("DynamoDBClient", session().create_client("dynamodb", _region(), config=config))
        client.meta.events.register("before-call.dynamodb", _name_host)
        return client
    except (BotoCoreError, ValueError) as error:
        sys.exit(f"ledger: cannot reach DynamoDB: {error}")


def create_queue_client(queue_url: str) -> "SQSClient":
    """A client of SQS, at the host of the queue."""
    host = urlsplit(queue_url)
    try:
        endpoint_url = f"{host.scheme}://{host.netloc}"
        config = _straight(QUEUE_CONFIG, endpoint_url)
        client = session().create_client("sqs", _region(), endpoint_url=endpoint_url, config=config)
        return cast("SQSClient", client)
    except (BotoCoreError, ValueError) as error:
        sys.exit(f"ledger: cannot reach SQS: {error}")


def create_store(client: "DynamoDBClient | None" = None) -> LedgerStore:
    """The store that the environment names; `client` is for tests and local runs."""
    settings = load_settings()
    return LedgerStore(
        client or create_client(), entries_table=settings.entries_table, balances_table=settings.balances_table
    )


def create_account_store(client: "DynamoDBClient | None" = None) -> AccountStore:
    """The same store, for sweeps."""
    settings = load_settings()
    return AccountStore(
        client or create_client(SWEEP_CONFIG),
        entries_table=settings.entries_table,
        balances_table=settings.balances_table,
    )


def create_processor(
    operations: type[BaseLedgerOperations],
    client: "DynamoDBClient | None" = None,
    *,
    clock: Callable[[], datetime] | None = None,
) -> OperationProcessor:
    """The processor of an app's operations over that store; a `clock` of one's own is held against no other."""
    return OperationProcessor(create_store(client), operations, clock=clock)


def create_receipt_key(name: str | None = None) -> ReceiptKey | None:
    """The key of that name, or the one that the environment names, which signs receipts; None if it names none."""
    name = name or load_settings().receipt_key
    if not name:
        return None
    return PemKey(Path(name)) if name.endswith(".pem") else KmsKey(_create_kms_client, name)


def load_settings() -> Settings:
    """The settings of the environment. Exits with one line when one is missing or wrong."""
    return _loaded(Settings.from_environment)


def load_reward_settings() -> RewardSettings:
    """Those that the scheduled function needs beside them."""
    return _loaded(RewardSettings.from_environment)


def _straight(config: Config, endpoint_url: str | None) -> Config:
    """The same, but without proxies when the way leads to this machine."""
    is_here = endpoint_url and urlsplit(endpoint_url).hostname in LOOPBACK
    return config.merge(Config(proxies={})) if is_here else config


def _name_host(params: dict[str, Any], **_: Any) -> None:
    """Tell what a signature takes from the URL otherwise, and twice, by ways that are long."""
    params["headers"]["Host"] = urlsplit(params["url"]).netloc


def _create_kms_client() -> Any:
    return session().create_client("kms", _region(), config=KMS_CONFIG)


def _loaded(read: Callable[[Mapping[str, str]], T]) -> T:
    try:
        return read(os.environ)
    except ConfigurationError as error:
        sys.exit(f"ledger: {error}")


def _region() -> str | None:
    return os.environ.get("AWS_REGION") or None
