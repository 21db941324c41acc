"""The operations that the Example App adds to the shared operations."""

from enum import StrEnum

from ledger_core.operations import BaseLedgerOperations, OperationConfig

__all__ = ["ExampleAppOperationType", "ExampleAppOperations"]


class ExampleAppOperationType(StrEnum):
    """The Example App's own operations."""

    CONTENT_CREATION = "CONTENT_CREATION"
    CONTENT_ACCESS = "CONTENT_ACCESS"


class ExampleAppOperations(BaseLedgerOperations):
    """Creating content costs 5 credits. Accessing content is free, and is an entry too."""

    APP_CONFIG = {
        ExampleAppOperationType.CONTENT_CREATION: OperationConfig(amount=-5, self_service=True),
        ExampleAppOperationType.CONTENT_ACCESS: OperationConfig(amount=0, self_service=True),
    }
