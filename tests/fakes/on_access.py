"""A reward that is granted on access, for tests."""

from datetime import timedelta
from typing import Any

from functions.example_app.operations import ExampleAppOperations
from ledger_core.posting import OperationProcessor
from ledger_core.rewards import GrantOnAccess
from tests.support import NOON


def grant_on_access(processor: OperationProcessor, day: int = 0, **options: Any) -> GrantOnAccess:
    """The grants of one process, some days after the 22nd of November."""
    return GrantOnAccess(
        processor, ExampleAppOperations, clock=lambda: NOON + timedelta(days=day), **options
    )
