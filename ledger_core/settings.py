"""What the environment decides: seven variables of ours, two more for rewards; all others are AWS's
own.

LEDGER_LOG, how a server logs, is in `ledger_core.observability`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from ledger_core.errors import ConfigurationError

__all__ = [
    "CONNECTIONS_MAX",
    "CONNECT_SECONDS_MAX",
    "READ_SECONDS_MAX",
    "SWEEP_READ_SECONDS_MAX",
    "AuthMode",
    "RewardSettings",
    "Settings",
]

CONNECT_SECONDS_MAX = 1.0
READ_SECONDS_MAX = 2.0
"""Together the longest that one call to DynamoDB takes."""
SWEEP_READ_SECONDS_MAX = 5.0
"""Instead of it in a sweep, whose transactions are fifty times as large, and where nobody waits."""
CONNECTIONS_MAX = 40
"""Calls to DynamoDB that a server has under way at once, each in a thread on a connection of its
own."""


RECEIPT_KEY = re.compile(
    r"[0-9a-f-]{36}|mrk-[0-9a-f]{32}|arn:[\w-]+:kms:[\w-]+:\d+:key/[\w-]+|.+\.pem"
)
BASE_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")
ORIGIN = re.compile(r"\*|https?://[a-z0-9.-]+(:\d{1,5})?|https?://\[[0-9a-f:]+\](:\d{1,5})?")
TABLE_NAME = re.compile(r"[A-Za-z0-9_.-]{3,255}|arn:\S+")


class AuthMode(StrEnum):
    """How callers are known: `jwt`, by the claims that the API's authorizer has checked; `none`,
    not at all."""

    JWT = "jwt"
    NONE = "none"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """LEDGER_ENTRIES_TABLE, LEDGER_ACCOUNTS_TABLE, LEDGER_AUTH (default `jwt`), LEDGER_SERVICE
    (default `ledger`); and LEDGER_RECEIPT_KEY, LEDGER_BASE_PATH, LEDGER_ALLOWED_ORIGINS, empty by
    default.

    The service is the name of this ledger, in metrics and as the issuer of receipts.

    The key is the id or the ARN of a KMS key, or a file on this machine whose name ends in .pem;
    the path comes before every other, as a stage's does; origins of pages that may call from a
    browser have commas between them.
    """

    entries_table: str
    accounts_table: str
    auth: AuthMode
    service: str = "ledger"
    receipt_key: str | None = None
    base_path: str = ""
    allowed_origins: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """The settings.

        Raises:
            ConfigurationError: one is missing or wrong; the message is one line and says which and
                what to do.
        """
        tables = [
            _table_name(environment, name)
            for name in ("LEDGER_ENTRIES_TABLE", "LEDGER_ACCOUNTS_TABLE")
        ]
        if tables[0] == tables[1]:
            raise ConfigurationError(
                "LEDGER_ENTRIES_TABLE and LEDGER_ACCOUNTS_TABLE must be two tables"
            )
        auth = environment.get("LEDGER_AUTH", AuthMode.JWT)
        if auth not in list(AuthMode):
            raise ConfigurationError(f"LEDGER_AUTH must be one of {', '.join(AuthMode)}: {auth!r}")
        # `sam local` runs on one machine what looks like Lambda from inside; what an alias calls is
        # never $LATEST.
        marks = (environment.get("AWS_SAM_LOCAL"), environment.get("AWS_LAMBDA_FUNCTION_VERSION"))
        in_lambda = "AWS_LAMBDA_FUNCTION_NAME" in environment and marks != ("true", "$LATEST")
        if auth == AuthMode.NONE and in_lambda:
            raise ConfigurationError(
                "LEDGER_AUTH=none is for local runs only and is refused inside Lambda"
            )
        receipt_key = environment.get("LEDGER_RECEIPT_KEY") or None
        if receipt_key and not RECEIPT_KEY.fullmatch(receipt_key):
            raise ConfigurationError(
                f"LEDGER_RECEIPT_KEY must be a KMS key's id or ARN: {receipt_key!r}"
            )
        if receipt_key and receipt_key.endswith(".pem") and in_lambda:
            raise ConfigurationError(
                "LEDGER_RECEIPT_KEY in a file is for local runs only and is refused inside Lambda"
            )
        return cls(
            entries_table=tables[0],
            accounts_table=tables[1],
            auth=AuthMode(auth),
            service=environment.get("LEDGER_SERVICE") or "ledger",
            receipt_key=receipt_key,
            base_path=_base_path(environment.get("LEDGER_BASE_PATH", "")),
            allowed_origins=_origins(environment.get("LEDGER_ALLOWED_ORIGINS", "")),
        )


@dataclass(frozen=True, kw_only=True)
class RewardSettings:
    """LEDGER_REWARDS_QUEUE_URL and LEDGER_RUNS_TABLE, which the scheduled function needs beside the
    others."""

    queue_url: str
    runs_table: str

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """The settings.

        Raises:
            ConfigurationError: one is missing or wrong; the message is one line and says which and
                what to do.
        """
        queue_url = environment.get("LEDGER_REWARDS_QUEUE_URL", "")
        if not queue_url.startswith(("https://", "http://")):
            raise ConfigurationError(
                f"LEDGER_REWARDS_QUEUE_URL must be the URL of an SQS queue: {queue_url!r}"
            )
        return cls(queue_url=queue_url, runs_table=_table_name(environment, "LEDGER_RUNS_TABLE"))


def _base_path(said: str) -> str:
    path = f"/{said.strip('/')}" if said.strip("/") else ""
    if not BASE_PATH.fullmatch(path):
        raise ConfigurationError(
            f"LEDGER_BASE_PATH must be a path of letters, digits and . _ ~ -, as /prod: {said!r}"
        )
    return path


def _origins(said: str) -> tuple[str, ...]:
    origins = tuple(origin.strip() for origin in said.split(",") if origin.strip())
    for origin in origins:
        if not ORIGIN.fullmatch(origin):
            raise ConfigurationError(
                "LEDGER_ALLOWED_ORIGINS must be origins as https://app.example.com, or *, "
                f"without a path: {origin!r}"
            )
    return origins


def _table_name(environment: Mapping[str, str], name: str) -> str:
    if not environment.get(name):
        raise ConfigurationError(f"{name} is not set: give it the name of the DynamoDB table")
    if not TABLE_NAME.fullmatch(environment[name]):
        raise ConfigurationError(
            f"{name} is no name that a DynamoDB table can have: {environment[name]!r}"
        )
    return environment[name]
