"""A client of DynamoDB that remembers its calls, and answers from a list."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from ledger_core.account import Account
from ledger_core.dynamodb import LedgerStore
from tests.support import CONFIRMED

NEW = Account(owner_id="ada")


class Wire:
    """A client that remembers its calls, and gives the answers of a list."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.store = LedgerStore(self, entries_table="entries", accounts_table="accounts")  # type: ignore[arg-type]

    def __getattr__(self, call: str) -> Callable[..., Any]:
        def ask(**arguments: Any) -> Any:
            self.asked.append((call, arguments))
            if isinstance(answer := self.answers.pop(0), Exception):
                raise answer
            return {**CONFIRMED, **answer}

        return ask


SECOND = timedelta(seconds=1)
