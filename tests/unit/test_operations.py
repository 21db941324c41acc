"""An app's declaration of its operations, and its errors at import."""

import subprocess
import sys
from collections.abc import Mapping
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any

import pytest

from functions.example_app.operations import ExampleAppOperations, ExampleAppOperationType
from ledger_core import (
    BaseLedgerOperations,
    InvalidRequestError,
    LedgerOperationType,
    OperationConfig,
)
from ledger_core.errors import ConfigurationError
from ledger_core.fields import AMOUNT_MAX, APP_LENGTH_MAX, UNIT_LENGTH_MAX
from ledger_core.operations import every_owner


class Game(StrEnum):
    LEVEL_UP = "LEVEL_UP"
    CREDIT_ADD = "CREDIT_ADD"
    LOWER = "level_up"
    DIGIT = "1UP"
    LONG = "A" * 65
    LONGEST = "A" * 64


class NotText(Enum):
    LEVEL_UP = "LEVEL_UP"


def declare(**attributes: Any) -> type[BaseLedgerOperations]:
    return type("GameOperations", (BaseLedgerOperations,), attributes)


def test_shared_operations() -> None:
    """A shared operation has an amount, and may have bounds and be self-service."""
    assert {
        str(name): (config.amount, config.magnitude_max is not None, config.self_service)
        for name, config in BaseLedgerOperations.get_operation_config().items()
    } == {
        "DAILY_REWARD": (1, False, False),
        "SIGNUP_CREDIT": (3, False, False),
        "CREDIT_SPEND": (-1, True, True),
        "CREDIT_ADD": (10, True, False),
    }


def test_example_app_adds_its_own() -> None:
    """An app has the shared operations and its own."""
    configs = ExampleAppOperations.get_operation_config()
    assert list(configs) == [*LedgerOperationType, *ExampleAppOperationType]
    assert configs[ExampleAppOperationType.CONTENT_CREATION].amount == -5
    assert configs[ExampleAppOperationType.CONTENT_ACCESS].amount == 0


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"BASE_CONFIG": {}}, "drops or redefines"),
        (
            {
                "BASE_CONFIG": {
                    **BaseLedgerOperations.BASE_CONFIG,
                    Game.LEVEL_UP: OperationConfig(amount=1),
                }
            },
            "drops or",
        ),
        ({"get_operation_config": classmethod(lambda cls: cls.APP_CONFIG)}, "drops or redefines"),
        (
            {"APP_CONFIG": {LedgerOperationType.CREDIT_ADD: OperationConfig(amount=1)}},
            "CREDIT_ADD is a shared operation",
        ),
        (
            {"APP_CONFIG": {Game.CREDIT_ADD: OperationConfig(amount=1)}},
            "CREDIT_ADD is a shared operation",
        ),
        (
            {"APP_CONFIG": {Game.LOWER: OperationConfig(amount=1)}},
            "level_up must be UPPER_SNAKE_CASE",
        ),
        ({"APP_CONFIG": {Game.DIGIT: OperationConfig(amount=1)}}, "1UP must be UPPER_SNAKE_CASE"),
        (
            {"APP_CONFIG": {Game.LONG: OperationConfig(amount=1)}},
            "must be UPPER_SNAKE_CASE, 1 to 64",
        ),
        ({"APP_CONFIG": {"LEVEL_UP": OperationConfig(amount=1)}}, "must be a member of a StrEnum"),
        (
            {"APP_CONFIG": {NotText.LEVEL_UP: OperationConfig(amount=1)}},
            "must be a member of a StrEnum",
        ),
        (
            {"APP_CONFIG": {Game.LEVEL_UP: 5}},
            r"must be an OperationConfig, as in OperationConfig\(amount=-5\)",
        ),
        ({"APP_CONFIG": [Game.LEVEL_UP]}, "APP_CONFIG must map"),
        (
            {"SCHEDULED": [LedgerOperationType.DAILY_REWARD]},
            "SCHEDULED must map operations to who is eligible",
        ),
        (
            {"SCHEDULED": {LedgerOperationType.DAILY_REWARD: 1}},
            "SCHEDULED must map operations to who is eligible",
        ),
        (
            {"SCHEDULED": {Game.LEVEL_UP: every_owner}},
            "SCHEDULED names what is no operation: LEVEL_UP",
        ),
        *(
            ({"APP": name}, "APP must be lower-case letters, digits and hyphens")
            for name in (
                "",
                "Game",
                "1up",
                "-game",
                "gam\u00e9",
                "a" * 33,
                "game\n",
                "self",
                "ledger",
                7,
            )
        ),
    ],
)
def test_bad_declaration_fails_when_the_class_is_made(
    attributes: Mapping[str, Any], message: str
) -> None:
    """The error names the class and the operation, and says what to do."""
    with pytest.raises(ConfigurationError, match=f"GameOperations.*{message}"):
        declare(**attributes)


def test_longest_name_is_accepted() -> None:
    """64 characters are within the limit."""
    operations = declare(APP_CONFIG={Game.LONGEST: OperationConfig(amount=1)})
    assert Game.LONGEST in operations.get_operation_config()


@pytest.mark.parametrize("name", ["g", "game-2", "a" * APP_LENGTH_MAX])
def test_name_of_an_app(name: str) -> None:
    """An app may have a name of small letters, digits and hyphens."""
    assert name == declare(APP=name).APP
    assert declare().APP is None


@pytest.mark.parametrize("unit", ["G", "GEMS_2", "G" * UNIT_LENGTH_MAX])
def test_unit_of_an_operation(unit: str) -> None:
    """A unit is a name in capitals; CREDIT by default."""
    assert OperationConfig(amount=1, unit=unit).unit == unit
    assert OperationConfig(amount=1).unit == "CREDIT"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        *(
            ({"amount": 1, "unit": unit}, "unit must be UPPER_SNAKE_CASE")
            for unit in ("", "gems", "1GEM", "_GEM", "GEM-1", "G" * 17, "GEMS\n", None)
        ),
        ({"amount": 1.0}, "amount must be an integer"),
        ({"amount": True}, "amount must be an integer"),
        ({"amount": AMOUNT_MAX + 1}, "amount must be an integer from"),
        ({"amount": -AMOUNT_MAX - 1}, "amount must be an integer from"),
        ({"amount": -1, "self_service": 1}, "self_service must be True or False"),
        ({"amount": 1, "self_service": True}, "cannot grant itself"),
        ({"amount": 1, "magnitude_min": 1}, "go together"),
        ({"amount": 1, "magnitude_max": 1}, "go together"),
        ({"amount": 5, "magnitude_min": 6, "magnitude_max": 9}, "magnitude_min <= |amount|"),
        ({"amount": -5, "magnitude_min": 1, "magnitude_max": 4}, "magnitude_min <= |amount|"),
        ({"amount": 0, "magnitude_min": 0, "magnitude_max": 4}, "1 <= magnitude_min"),
        ({"amount": 1, "magnitude_min": 1, "magnitude_max": AMOUNT_MAX + 1}, str(AMOUNT_MAX)),
        ({"amount": 1, "magnitude_min": True, "magnitude_max": 4}, "integers"),
    ],
)
def test_bad_config_is_refused(config: Mapping[str, Any], message: str) -> None:
    """The error of an invalid config says what to change."""
    with pytest.raises(ConfigurationError) as refusal:
        OperationConfig(**config)
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("magnitude", "amount"), [(None, -5), (2, -2), (9, -9), (1, None), (10, None)]
)  # fmt: skip
def test_magnitude_is_within_bounds_and_gets_the_sign_of_the_config(
    magnitude: int | None, amount: int | None
) -> None:
    """A caller chooses a magnitude within the bounds, or gets the configured amount."""
    config = OperationConfig(amount=-5, magnitude_min=2, magnitude_max=9)
    if amount is None:
        with pytest.raises(InvalidRequestError, match="from 2 to 9"):
            config.signed_amount(magnitude)
    else:
        assert config.signed_amount(magnitude) == amount


def test_fixed_amount_takes_no_magnitude() -> None:
    """If the amount is fixed, any magnitude of the caller is refused."""
    with pytest.raises(InvalidRequestError, match="fixed"):
        OperationConfig(amount=3).signed_amount(3)


@pytest.mark.slow
def test_type_checker_catches_a_misspelt_operation(tmp_path: Path) -> None:
    """mypy rejects a misspelt operation and a plain string."""
    source = tmp_path / "app.py"
    source.write_text(
        "from functions.example_app.operations import ExampleAppOperationType as Operation\n"
        "from ledger_core import OperationRequest\n"
        "OperationRequest(owner_id='ada', operation=Operation.CONTENT_CREATION, nonce='n')\n"
        "OperationRequest(owner_id='ada', operation=Operation.CONTENT_CREATON, nonce='n')\n"
        "OperationRequest(owner_id='ada', operation='CONTENT_CREATION', nonce='n')\n"
    )
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", str(source)]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    assert "app.py:3" not in found
    misspelt = '"type[ExampleAppOperationType]" has no attribute "CONTENT_CREATON"'
    assert f"app.py:4: error: {misspelt}" in found
    plain = 'Argument "operation" to "OperationRequest" has incompatible type "str"'
    assert f"app.py:5: error: {plain}" in found
