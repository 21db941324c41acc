"""The only place where settings, the DynamoDB client and an app's operations meet."""

import os
import sys
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from ledger_core.errors import ConfigurationError
from ledger_core.operations import BaseLedgerOperations
from ledger_core.processor import OperationProcessor
from ledger_core.settings import CONNECT_SECONDS_MAX, CONNECTIONS_MAX, READ_SECONDS_MAX, Settings
from ledger_core.store import LedgerStore

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

__all__ = ["create_client", "create_processor", "create_store", "load_settings"]

CLIENT_CONFIG = Config(
    connect_timeout=CONNECT_SECONDS_MAX,
    read_timeout=READ_SECONDS_MAX,
    max_pool_connections=CONNECTIONS_MAX,
    # The processor tries again itself, within the caller's time and under the same token.
    retries={"mode": "standard", "total_max_attempts": 1},
)


def create_client() -> "DynamoDBClient":
    """A client for wherever AWS's own variables point. Exits with one line when they point nowhere."""
    try:
        return boto3.client("dynamodb", region_name=os.environ.get("AWS_REGION") or None, config=CLIENT_CONFIG)
    except (BotoCoreError, ValueError) as error:
        sys.exit(f"ledger: cannot reach DynamoDB: {error}")


def create_store(client: "DynamoDBClient | None" = None) -> LedgerStore:
    """The store that the environment names; `client` is for tests and local runs."""
    settings = load_settings()
    return LedgerStore(
        client or create_client(), entries_table=settings.entries_table, balances_table=settings.balances_table
    )


def create_processor(
    operations: type[BaseLedgerOperations], client: "DynamoDBClient | None" = None
) -> OperationProcessor:
    """The processor of an app's operations over that store."""
    return OperationProcessor(create_store(client), operations)


def load_settings() -> Settings:
    """The settings of the environment. Exits with one line when one is missing or wrong."""
    try:
        return Settings.from_environment(os.environ)
    except ConfigurationError as error:
        sys.exit(f"ledger: {error}")
