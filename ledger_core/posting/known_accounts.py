"""The accounts that a process remembers, so that most requests need no read."""

import threading
from collections import OrderedDict

from ledger_core.account import Account

__all__ = ["KnownAccounts"]


class KnownAccounts:
    """The accounts seen last. Threads may share it; what it has may be old, and DynamoDB's
    conditions find that out.

    Args:
        accounts_max: how many; the account not seen for longest is forgotten first.
    """

    def __init__(self, accounts_max: int) -> None:
        self._accounts_max = accounts_max
        self._accounts: OrderedDict[str, Account] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> Account | None:
        """The account as this process saw it last; None if it is not known."""
        with self._lock:
            if key in self._accounts:
                self._accounts.move_to_end(key)
            return self._accounts.get(key)

    def remember(self, account: Account) -> None:
        """Note an account as it is now."""
        with self._lock:
            self._accounts[account.key] = account
            self._accounts.move_to_end(account.key)
            if len(self._accounts) > self._accounts_max:
                self._accounts.popitem(last=False)

    def forget(self, key: str) -> None:
        """Note that an account is not known."""
        with self._lock:
            self._accounts.pop(key, None)
