"""Clients of DynamoDB, SQS and KMS, made by botocore alone; without the rest of boto3, functions
start faster."""

import os
from functools import cache
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from botocore.config import Config
from botocore.exceptions import BotoCoreError
from botocore.session import Session

from ledger_core.errors import ConfigurationError
from ledger_core.settings import (
    CONNECT_SECONDS_MAX,
    CONNECTIONS_MAX,
    READ_SECONDS_MAX,
    SWEEP_READ_SECONDS_MAX,
)

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_sqs import SQSClient

__all__ = [
    "CLIENT_CONFIG",
    "SWEEP_CONFIG",
    "ClientConfig",
    "create_dynamodb_client",
    "create_kms_client",
    "create_sqs_client",
    "session",
]

ClientConfig = Config
LOOPBACK = {"127.0.0.1", "::1", "localhost"}


@cache
def session() -> Session:
    """Botocore's, by which boto3 makes its clients too; without the rest of boto3, functions start
    faster."""
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


def create_dynamodb_client(config: Config = CLIENT_CONFIG) -> "DynamoDBClient":
    """A client for where AWS's own variables point.

    Raises:
        ConfigurationError: they point nowhere.
    """
    try:
        config = _straight(
            config,
            os.environ.get("AWS_ENDPOINT_URL_DYNAMODB") or os.environ.get("AWS_ENDPOINT_URL"),
        )
        client = cast(
            "DynamoDBClient", session().create_client("dynamodb", _region(), config=config)
        )
        client.meta.events.register("before-call.dynamodb", _name_host)
        return client
    except (BotoCoreError, ValueError) as error:
        raise ConfigurationError(f"cannot reach DynamoDB: {error}") from error


def create_sqs_client(queue_url: str) -> "SQSClient":
    """A client of SQS, at the host of the queue.

    Raises:
        ConfigurationError: the URL has no host, or no region is set.
    """
    host = urlsplit(queue_url)
    try:
        endpoint_url = f"{host.scheme}://{host.netloc}"
        config = _straight(QUEUE_CONFIG, endpoint_url)
        client = session().create_client("sqs", _region(), endpoint_url=endpoint_url, config=config)
        return cast("SQSClient", client)
    except (BotoCoreError, ValueError) as error:
        raise ConfigurationError(f"cannot reach SQS: {error}") from error


def create_kms_client() -> Any:
    """A client of KMS."""
    return session().create_client("kms", _region(), config=KMS_CONFIG)


def _straight(config: Config, endpoint_url: str | None) -> Config:
    """The same, but without proxies when the way leads to this machine."""
    is_here = endpoint_url and urlsplit(endpoint_url).hostname in LOOPBACK
    return config.merge(Config(proxies={})) if is_here else config


def _name_host(params: dict[str, Any], **_: Any) -> None:
    """Tell what a signature takes from the URL otherwise, and twice, by ways that are long."""
    params["headers"]["Host"] = urlsplit(params["url"]).netloc


def _region() -> str | None:
    return os.environ.get("AWS_REGION") or None
