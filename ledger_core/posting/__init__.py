"""The rules of posting: what is accepted, what is refused and in which order, what is tried again."""

from ledger_core.posting.processor import HEADS_MAX, TIMEOUT_SECONDS, OperationProcessor
from ledger_core.posting.retry import BudgetSpentError, RetryBudget

__all__ = [
    "HEADS_MAX",
    "TIMEOUT_SECONDS",
    "BudgetSpentError",
    "OperationProcessor",
    "RetryBudget",
]
