"""The rules of posting: what is accepted, what is refused in which order, what is tried again."""

from ledger_core.posting.group_commit import GroupCommit
from ledger_core.posting.plan import Plan, Posting, duplicate_of, make_plan, plan_group
from ledger_core.posting.processor import (
    ACCOUNTS_MAX,
    TIMEOUT_SECONDS,
    TOKEN_BYTES,
    OperationProcessor,
)
from ledger_core.posting.retry import BudgetSpentError, RetryBudget

__all__ = [
    "ACCOUNTS_MAX",
    "TIMEOUT_SECONDS",
    "TOKEN_BYTES",
    "BudgetSpentError",
    "GroupCommit",
    "OperationProcessor",
    "Plan",
    "Posting",
    "RetryBudget",
    "duplicate_of",
    "make_plan",
    "plan_group",
]
