"""Settings are complete and valid, or the start fails with a readable line."""

import os
import subprocess
import sys

import pytest

from ledger_core.errors import ConfigurationError
from ledger_core.settings import AuthMode, RewardSettings, Settings

SAM_LOCAL = {
    "AWS_LAMBDA_FUNCTION_NAME": "api",
    "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
    "AWS_SAM_LOCAL": "true",
}
TABLES = {"LEDGER_ENTRIES_TABLE": "entries", "LEDGER_ACCOUNTS_TABLE": "accounts"}


def test_auth_is_jwt_by_default() -> None:
    """Without `LEDGER_AUTH`, callers need a token."""
    settings = Settings.from_environment(TABLES)
    assert settings == Settings(
        entries_table="entries", accounts_table="accounts", auth=AuthMode.JWT
    )


def test_auth_may_be_none_on_a_local_machine() -> None:
    """`LEDGER_AUTH=none` is accepted by a server and by `sam local`."""
    for where in ({}, SAM_LOCAL):
        settings = Settings.from_environment({**TABLES, "LEDGER_AUTH": "none", **where})
        assert settings.auth is AuthMode.NONE


@pytest.mark.parametrize(
    "key",
    [
        "1234abcd-12ab-34cd-56ef-1234567890ab",
        "mrk-1234abcd12ab34cd56ef1234567890ab",
        "arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "/home/ada/.local/data/receipts.pem",
    ],
)
def test_receipts_are_signed_if_a_key_is_named(key: str) -> None:
    """The setting names a KMS key or a local file; if it is absent or empty, there is no key."""
    assert Settings.from_environment({**TABLES, "LEDGER_RECEIPT_KEY": key}).receipt_key == key
    assert Settings.from_environment({**TABLES, "LEDGER_RECEIPT_KEY": ""}).receipt_key is None
    assert Settings.from_environment(TABLES).receipt_key is None


@pytest.mark.parametrize(
    ("value", "path"),
    [("", ""), ("/", ""), ("prod", "/prod"), ("/prod/", "/prod"), ("/v1/led-ger", "/v1/led-ger")],
)
def test_base_path_may_be_written_in_several_ways(value: str, path: str) -> None:
    """Slashes at the ends of a base path make no difference."""
    assert Settings.from_environment({**TABLES, "LEDGER_BASE_PATH": value}).base_path == path


def test_origins_are_those_between_the_commas() -> None:
    """Origins are separated by commas; blanks and empty parts are ignored."""
    value = " https://app.example.com,http://localhost:3000 ,,http://[::1]:3000"
    origins = ("https://app.example.com", "http://localhost:3000", "http://[::1]:3000")
    settings = Settings.from_environment({**TABLES, "LEDGER_ALLOWED_ORIGINS": value})
    assert settings.allowed_origins == origins
    settings = Settings.from_environment({**TABLES, "LEDGER_ALLOWED_ORIGINS": "*"})
    assert settings.allowed_origins == ("*",)
    assert Settings.from_environment(TABLES).allowed_origins == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"LEDGER_BASE_PATH": "/prod//v1"}, "LEDGER_BASE_PATH must be a path of letters"),
        ({"LEDGER_BASE_PATH": "/{stage}"}, "LEDGER_BASE_PATH must be a path of letters"),
        ({"LEDGER_BASE_PATH": "https://example.com"}, "LEDGER_BASE_PATH must be a path of letters"),
        (
            {"LEDGER_ALLOWED_ORIGINS": "https://a.example/"},
            "LEDGER_ALLOWED_ORIGINS must be origins",
        ),
        ({"LEDGER_ALLOWED_ORIGINS": "https://a.example,b.example"}, "without a path: 'b.example'"),
        ({"LEDGER_ALLOWED_ORIGINS": "null"}, "LEDGER_ALLOWED_ORIGINS must be origins"),
        (
            {"LEDGER_RECEIPT_KEY": "alias/receipts"},
            "LEDGER_RECEIPT_KEY must be a KMS key's id or ARN: 'alias/receipts'",
        ),
        (
            {"LEDGER_RECEIPT_KEY": "key.pem", "AWS_LAMBDA_FUNCTION_NAME": "api"},
            "in a file is for local runs only",
        ),
        ({"LEDGER_ENTRIES_TABLE": ""}, "LEDGER_ENTRIES_TABLE is not set"),
        ({"LEDGER_ACCOUNTS_TABLE": ""}, "LEDGER_ACCOUNTS_TABLE is not set"),
        ({"LEDGER_ENTRIES_TABLE": "same table!"}, "LEDGER_ENTRIES_TABLE is no name"),
        (
            {"LEDGER_ENTRIES_TABLE": "accounts"},
            "LEDGER_ENTRIES_TABLE and LEDGER_ACCOUNTS_TABLE must be two tables$",
        ),
        ({"LEDGER_AUTH": "off"}, "LEDGER_AUTH must be one of jwt, none: 'off'"),
        ({"LEDGER_AUTH": "none", "AWS_LAMBDA_FUNCTION_NAME": "api"}, "refused inside Lambda"),
        ({"LEDGER_AUTH": "none", **SAM_LOCAL, "AWS_SAM_LOCAL": ""}, "refused inside Lambda"),
        (
            {"LEDGER_AUTH": "none", **SAM_LOCAL, "AWS_LAMBDA_FUNCTION_VERSION": "7"},
            "refused inside Lambda",
        ),
    ],
)
def test_wrong_setting_is_named(changes: dict[str, str], message: str) -> None:
    """The error names the variable and what it must be."""
    with pytest.raises(ConfigurationError, match=message):
        Settings.from_environment({**TABLES, **changes})


@pytest.mark.slow
@pytest.mark.parametrize("module", ["functions.example_app.app", "functions.daily_reward.app"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"LEDGER_ENTRIES_TABLE": ""},
            "ledger: LEDGER_ENTRIES_TABLE is not set: give it the name of the DynamoDB table",
        ),
        (
            {"AWS_REGION": "", "AWS_CONFIG_FILE": os.devnull},
            "ledger: cannot reach DynamoDB: You must specify a region.",
        ),
        (
            {"AWS_ENDPOINT_URL_DYNAMODB": "nonsense"},
            "ledger: cannot reach DynamoDB: Invalid endpoint: nonsense",
        ),
    ],
)
def test_app_fails_at_start_with_one_line(
    module: str, changes: dict[str, str], message: str
) -> None:
    """With a wrong setting, the import of an app ends the process with a line that says why."""
    command = [sys.executable, "-c", f"import {module}"]
    ended = subprocess.run(
        command, env={**os.environ, **changes}, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr.strip()) == (1, message)


REWARDS = {
    "LEDGER_REWARDS_QUEUE_URL": "https://sqs.eu-central-1.amazonaws.com/1/rewards",
    "LEDGER_RUNS_TABLE": "runs",
}


def test_scheduled_function_has_its_own_settings() -> None:
    """The scheduled function needs the queue and the table of runs."""
    settings = RewardSettings.from_environment(REWARDS)
    assert settings == RewardSettings(
        queue_url=REWARDS["LEDGER_REWARDS_QUEUE_URL"], runs_table="runs"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"LEDGER_REWARDS_QUEUE_URL": ""},
            "LEDGER_REWARDS_QUEUE_URL must be the URL of an SQS queue: ''",
        ),
        (
            {"LEDGER_REWARDS_QUEUE_URL": "queue"},
            "LEDGER_REWARDS_QUEUE_URL must be the URL of an SQS queue: 'queue'",
        ),
        ({"LEDGER_RUNS_TABLE": ""}, "LEDGER_RUNS_TABLE is not set"),
        ({"LEDGER_RUNS_TABLE": "a table"}, "LEDGER_RUNS_TABLE is no name"),
    ],
)
def test_wrong_setting_of_the_scheduled_function_is_named(
    changes: dict[str, str], message: str
) -> None:
    """The error names the variable and what it must be."""
    with pytest.raises(ConfigurationError, match=message):
        RewardSettings.from_environment({**REWARDS, **changes})


def test_queue_may_be_local_and_must_be_named() -> None:
    """A local queue has a URL of plain HTTP; without a URL, the error shows an empty value."""
    local = {**REWARDS, "LEDGER_REWARDS_QUEUE_URL": "http://127.0.0.1:9324/1/rewards"}
    assert RewardSettings.from_environment(local).queue_url == local["LEDGER_REWARDS_QUEUE_URL"]
    message = r"LEDGER_REWARDS_QUEUE_URL must be the URL of an SQS queue: ''$"
    with pytest.raises(ConfigurationError, match=message):
        RewardSettings.from_environment({"LEDGER_RUNS_TABLE": "runs"})
