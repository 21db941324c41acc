"""Settings: complete and right, or one readable line at the start."""

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


def test_auth_is_jwt_unless_said_otherwise() -> None:
    """Deny by default: without LEDGER_AUTH callers need a token."""
    settings = Settings.from_environment(TABLES)
    assert settings == Settings(
        entries_table="entries", accounts_table="accounts", auth=AuthMode.JWT
    )


def test_no_auth_is_for_this_machine_only() -> None:
    """LEDGER_AUTH=none is taken from a server, and from `sam local`."""
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
    """By a KMS key, or on this machine by one in a file; without a name, or an empty one, by none."""
    assert Settings.from_environment({**TABLES, "LEDGER_RECEIPT_KEY": key}).receipt_key == key
    assert Settings.from_environment({**TABLES, "LEDGER_RECEIPT_KEY": ""}).receipt_key is None
    assert Settings.from_environment(TABLES).receipt_key is None


@pytest.mark.parametrize(
    ("said", "path"),
    [("", ""), ("/", ""), ("prod", "/prod"), ("/prod/", "/prod"), ("/v1/led-ger", "/v1/led-ger")],
)
def test_base_path_may_be_written_in_several_ways(said: str, path: str) -> None:
    """With a slash at either end or without, it is the same."""
    assert Settings.from_environment({**TABLES, "LEDGER_BASE_PATH": said}).base_path == path


def test_origins_are_those_between_the_commas() -> None:
    """None unless there are some; blanks are none of them."""
    said = " https://app.example.com,http://localhost:3000 ,,http://[::1]:3000"
    origins = ("https://app.example.com", "http://localhost:3000", "http://[::1]:3000")
    assert (
        Settings.from_environment({**TABLES, "LEDGER_ALLOWED_ORIGINS": said}).allowed_origins
        == origins
    )
    assert Settings.from_environment({**TABLES, "LEDGER_ALLOWED_ORIGINS": "*"}).allowed_origins == (
        "*",
    )
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
    """Each mistake has its own message."""
    with pytest.raises(ConfigurationError, match=message):
        Settings.from_environment({**TABLES, **changes})


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
    """A server or a function with a wrong setting ends at its import, and says why in one line."""
    command = [sys.executable, "-c", f"import {module}"]
    ended = subprocess.run(
        command, env={**os.environ, **changes}, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr.strip()) == (1, message)


REWARDS = {
    "LEDGER_REWARDS_QUEUE_URL": "https://sqs.eu-central-1.amazonaws.com/1/rewards",
    "LEDGER_RUNS_TABLE": "runs",
}


def test_scheduled_function_has_two_settings_more() -> None:
    """The queue and the table of runs; nothing else asks for them."""
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
    """One line that says which variable to mend."""
    with pytest.raises(ConfigurationError, match=message):
        RewardSettings.from_environment({**REWARDS, **changes})


def test_queue_may_be_on_this_machine_and_has_to_be_named() -> None:
    """A URL of plain HTTP is that of a fake; without any, the message says that it was empty."""
    local = {**REWARDS, "LEDGER_REWARDS_QUEUE_URL": "http://127.0.0.1:9324/1/rewards"}
    assert RewardSettings.from_environment(local).queue_url == local["LEDGER_REWARDS_QUEUE_URL"]
    with pytest.raises(
        ConfigurationError, match=r"LEDGER_REWARDS_QUEUE_URL must be the URL of an SQS queue: ''$"
    ):
        RewardSettings.from_environment({"LEDGER_RUNS_TABLE": "runs"})
