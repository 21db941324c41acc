"""What may be posted: the shared operations, and the base on which an app declares its own.

A wrong declaration fails when the class is created, which is when the app is imported, never at a
request.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any, ClassVar

from ledger_core.account import Account
from ledger_core.errors import ConfigurationError, InvalidRequestError
from ledger_core.fields import (
    AMOUNT_MAX,
    APP_LENGTH_MAX,
    APP_PATTERN,
    UNIT_LENGTH_MAX,
    UNIT_PATTERN,
)
from ledger_core.keys import CREDIT

__all__ = [
    "BaseLedgerOperations",
    "Eligible",
    "LedgerOperationType",
    "OperationConfig",
    "active_within",
    "every_owner",
]

OPERATION_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
"""Names are upper snake case, 1 to 64 characters."""

APP_NAME = re.compile(APP_PATTERN)
APP_NAMES_RESERVED = frozenset({"ledger", "self"})
UNIT = re.compile(UNIT_PATTERN)

Eligible = Callable[[Account, date], bool]
"""Whether an owner gets what a schedule posts for the period that begins on a day. It has at least
one entry."""


def every_owner(_account: Account, _first_day: date) -> bool:
    """An owner with an entry is eligible."""
    return True


def active_within(days: int) -> Eligible:
    """Eligible is who has had an entry, other than from a schedule, since so many days before the
    period (UTC)."""

    def active(account: Account, first_day: date) -> bool:
        return account.active_at is not None and account.active_at.date() >= first_day - timedelta(
            days=days
        )

    return active


class LedgerOperationType(StrEnum):
    """The operations that every app shares."""

    DAILY_REWARD = "DAILY_REWARD"
    SIGNUP_CREDIT = "SIGNUP_CREDIT"
    CREDIT_SPEND = "CREDIT_SPEND"
    CREDIT_ADD = "CREDIT_ADD"


@dataclass(frozen=True, kw_only=True)
class OperationConfig:
    """What one operation does.

    Args:
        amount: credits it adds (positive), takes (negative) or leaves (0); the sign is never the
            caller's choice.
        magnitude_min: the least credits a caller may ask for instead of `amount`; None where the
            amount is fixed.
        magnitude_max: the most credits a caller may ask for; given exactly when `magnitude_min` is.
        self_service: whether an owner may post it on its own ledger. Never for an operation that
            grants.
        unit: what it counts in, in capitals; an owner has one account for each unit.

    Raises:
        ConfigurationError: the combination makes no sense; the message says what to change.
    """

    amount: int
    magnitude_min: int | None = None
    magnitude_max: int | None = None
    self_service: bool = False
    unit: str = CREDIT

    def __post_init__(self) -> None:
        if type(self.amount) is not int or abs(self.amount) > AMOUNT_MAX:
            raise ConfigurationError(
                f"amount must be an integer from -{AMOUNT_MAX} to {AMOUNT_MAX}: {self.amount!r}"
            )
        if type(self.self_service) is not bool:
            raise ConfigurationError(f"self_service must be True or False: {self.self_service!r}")
        if self.self_service and self.amount > 0:
            raise ConfigurationError(
                "an owner cannot grant itself credits: self_service needs an amount of 0 or below"
            )
        if type(self.unit) is not str or not UNIT.fullmatch(self.unit):
            raise ConfigurationError(
                "unit must be UPPER_SNAKE_CASE, starting with a letter, "
                f"1 to {UNIT_LENGTH_MAX} characters: {self.unit!r}"
            )
        bounds = (self.magnitude_min, self.magnitude_max)
        if bounds == (None, None):
            return
        low, high = bounds
        if (
            type(low) is not int
            or type(high) is not int
            or not 1 <= low <= abs(self.amount) <= high <= AMOUNT_MAX
        ):
            raise ConfigurationError(
                "magnitude_min and magnitude_max go together, as integers with "
                f"1 <= magnitude_min <= |amount| <= magnitude_max <= {AMOUNT_MAX}: "
                f"{low!r}, {high!r}"
            )

    def signed_amount(self, magnitude: int | None) -> int:
        """The amount of an entry, in credits, for a caller who asked for `magnitude` (None: the
        configured amount).

        Raises:
            InvalidRequestError: the operation's amount is fixed, or the magnitude is out of its
                bounds.
        """
        if magnitude is None:
            return self.amount
        if self.magnitude_min is None or self.magnitude_max is None:
            raise InvalidRequestError("amount: this operation's amount is fixed; leave it out")
        if not self.magnitude_min <= magnitude <= self.magnitude_max:
            raise InvalidRequestError(
                f"amount: must be from {self.magnitude_min} to {self.magnitude_max}"
            )
        return magnitude if self.amount > 0 else -magnitude


class BaseLedgerOperations:
    """The shared operations. An app subclasses it and declares its own in `APP_CONFIG`, keyed by
    its own StrEnum.

    In `SCHEDULED` it says which operations a schedule may post, and to which owners. `APP` is its
    name, which its entries have; several apps on one ledger need one each, so that no nonce of one
    app is a nonce of another.

    Raises:
        ConfigurationError: at the subclass's creation, when it drops or redefines a shared
            operation, names one badly, maps a name to anything but an `OperationConfig`, or
            schedules what is no operation of its own; or when its own name is malformed or
            reserved.
    """

    BASE_CONFIG: ClassVar[Mapping[StrEnum, OperationConfig]] = MappingProxyType(
        {
            LedgerOperationType.DAILY_REWARD: OperationConfig(amount=1),
            LedgerOperationType.SIGNUP_CREDIT: OperationConfig(amount=3),
            LedgerOperationType.CREDIT_SPEND: OperationConfig(
                amount=-1, magnitude_min=1, magnitude_max=1_000_000, self_service=True
            ),
            LedgerOperationType.CREDIT_ADD: OperationConfig(
                amount=10, magnitude_min=1, magnitude_max=1_000_000
            ),
        }
    )
    APP: ClassVar[str | None] = None
    APP_CONFIG: ClassVar[Mapping[StrEnum, OperationConfig]] = MappingProxyType({})
    SCHEDULED: ClassVar[Mapping[StrEnum, Eligible]] = MappingProxyType(
        {LedgerOperationType.DAILY_REWARD: every_owner}
    )

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.validate_operations()

    @classmethod
    def get_operation_config(cls) -> Mapping[StrEnum, OperationConfig]:
        """Every operation of the app, the shared ones first, by name."""
        return {**cls.BASE_CONFIG, **cls.APP_CONFIG}

    @classmethod
    def validate_operations(cls) -> None:
        """Check the whole declaration.

        Raises:
            ConfigurationError: it is wrong; the message names the class, the operation and what to
                do.
        """
        cls._validate_app()
        shared, own = BaseLedgerOperations.BASE_CONFIG, cls.APP_CONFIG
        if not isinstance(own, Mapping):
            raise ConfigurationError(
                f"{cls.__name__}: APP_CONFIG must map operations to OperationConfig"
            )
        for name, config in own.items():
            place = f"{cls.__name__}: {name!s}"
            if name in shared:
                raise ConfigurationError(
                    f"{place} is a shared operation: remove it from APP_CONFIG or rename it"
                )
            if not isinstance(name, StrEnum):
                raise ConfigurationError(
                    f"{place} must be a member of a StrEnum of the app, not {name!r}"
                )
            if not OPERATION_NAME.fullmatch(name):
                raise ConfigurationError(
                    f"{place} must be UPPER_SNAKE_CASE, 1 to 64 characters, starting with a letter"
                )
            if not isinstance(config, OperationConfig):
                raise ConfigurationError(
                    f"{place} must be an OperationConfig, as in OperationConfig(amount=-5)"
                )
        if shared != cls.BASE_CONFIG or any(
            cls.get_operation_config().get(name) != config for name, config in shared.items()
        ):
            raise ConfigurationError(
                f"{cls.__name__} drops or redefines a shared operation: leave BASE_CONFIG and "
                "get_operation_config() alone and declare the app's own operations in APP_CONFIG"
            )
        scheduled: Any = cls.SCHEDULED
        if not isinstance(scheduled, Mapping) or not all(map(callable, scheduled.values())):
            raise ConfigurationError(
                f"{cls.__name__}: SCHEDULED must map operations to who is eligible: every_owner"
            )
        if unknown := scheduled.keys() - cls.get_operation_config().keys():
            raise ConfigurationError(
                f"{cls.__name__}: SCHEDULED names what is no operation: {', '.join(unknown)}"
            )

    @classmethod
    def _validate_app(cls) -> None:
        app: Any = cls.APP
        if app is None:
            return
        if not (isinstance(app, str) and APP_NAME.fullmatch(app)) or app in APP_NAMES_RESERVED:
            raise ConfigurationError(
                f"{cls.__name__}: APP must be lower-case letters, digits and hyphens, starting "
                f"with a letter, 1 to {APP_LENGTH_MAX} characters, and not "
                f"{' or '.join(sorted(APP_NAMES_RESERVED))}: {app!r}"
            )
