"""An app with a name, beside the Example App on one ledger."""

from enum import StrEnum

from ledger_core import BaseLedgerOperations, LedgerOperationType, OperationConfig, every_owner

__all__ = ["GameOperationType", "GameOperations"]


class GameOperationType(StrEnum):
    LEVEL_UP = "LEVEL_UP"
    REVIVE = "REVIVE"
    FIND_GEM = "FIND_GEM"
    SPEND_GEM = "SPEND_GEM"


class GameOperations(BaseLedgerOperations):
    """An app with a name: operations in credits and in gems, and a schedule of its own."""

    APP = "game"
    APP_CONFIG = {
        GameOperationType.LEVEL_UP: OperationConfig(amount=5),
        GameOperationType.REVIVE: OperationConfig(
            amount=-2, magnitude_min=2, magnitude_max=4, self_service=True
        ),
        GameOperationType.FIND_GEM: OperationConfig(amount=1, unit="GEMS"),
        GameOperationType.SPEND_GEM: OperationConfig(
            amount=-1, magnitude_min=1, magnitude_max=4, unit="GEMS"
        ),
    }
    SCHEDULED = {
        GameOperationType.LEVEL_UP: every_owner,
        LedgerOperationType.DAILY_REWARD: every_owner,
    }
