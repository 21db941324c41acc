"""A store that answers by a script, and a processor over it; time passes only by sleeping."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from functions.example_app.operations import ExampleAppOperations
from ledger_core import ContentionError, LedgerEntry, OperationRequest
from ledger_core.account import Account, AccountChange
from ledger_core.dynamodb import Cancelled, SystemClock
from ledger_core.posting import GroupCommit, OperationProcessor
from tests.support import NOON

__all__ = ["DONE", "NEW", "Bench", "ScriptedStore", "account", "moved", "stored"]

NEW = Account(owner_id="ada")
"""An account without an entry."""
DONE: list[Cancelled] = []
"""The answer of a transaction that was written."""


def account(balance: int, entry_count: int) -> Account:
    """An account with entries, the last of which was posted at noon."""
    return Account(
        owner_id="ada",
        balance=balance,
        entry_count=entry_count,
        head_hash=f"{entry_count:064}",
        created_at=NOON,
        updated_at=NOON,
        active_at=NOON,
    )


def moved(balance: int, entry_count: int, *, is_busy: bool = False) -> Cancelled:
    """The answer to a transaction that was planned on an older account."""
    busy = ContentionError("conflict") if is_busy else None
    return Cancelled(account=account(balance, entry_count), busy=busy)


def stored(request: OperationRequest, amount: int) -> LedgerEntry:
    """The entry that a request makes at noon in an account without an entry."""
    return NEW.next_entry(request, amount=amount, now=NOON)


class ScriptedStore:
    """A store that gives the answers of a list, call by call, and remembers the calls.

    It raises an exception, calls a function and gives what that returns, and puts a `Cancelled`
    into the list that `transact` answers.
    """

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.clock = SystemClock()
        self.clock.hold(None, since=0)

    def account(self, owner_id: str, *, consistent: bool) -> Any:
        return self._answer("account", owner_id=owner_id, consistent=consistent)

    def transact(self, changes: Sequence[AccountChange], *, token: str) -> Any:
        answer = self._answer("transact", changes=list(changes), token=token)
        return [answer] if isinstance(answer, Cancelled) else answer

    def look_up(self, owner_id: str, nonce: str) -> Any:
        return self._answer("look_up", owner_id=owner_id, nonce=nonce)

    def _answer(self, name: str, **arguments: Any) -> Any:
        self.calls.append((name, arguments))
        answer = self.answers.pop(0)
        if callable(answer):
            answer = answer()
        if isinstance(answer, BaseException):
            raise answer
        return answer


class Bench:
    """A processor and a group commit over a scripted store; chance is always the most.

    Attributes:
        pauses: the seconds that passed. A test may add to them.
        now: what the clock says.
        clock: the clock. A test may put another in its place.
    """

    def __init__(self, *answers: Any) -> None:
        self.store = ScriptedStore(*answers)
        self.pauses: list[float] = []
        self.now = NOON
        self.clock: Callable[[], datetime] = lambda: self.now
        self.processor = OperationProcessor(
            self.store,  # type: ignore[arg-type]  # a fake
            ExampleAppOperations,
            clock=lambda: self.clock(),
            monotonic=lambda: sum(self.pauses),
            sleep=self.pauses.append,
            random=lambda: 1.0,
        )
        self.group = GroupCommit(self.processor)

    @property
    def calls(self) -> list[str]:
        """The names of the calls that the store had."""
        return [name for name, _ in self.store.calls]

    @property
    def changes(self) -> list[AccountChange]:
        """What each transaction was to write; it has one account each time."""
        changes = []
        for sent in self._arguments("transact", "changes"):
            (change,) = sent
            changes.append(change)
        return changes

    @property
    def befores(self) -> list[Account]:
        """The account that each transaction was planned on."""
        return [change.before for change in self.changes]

    @property
    def nonces(self) -> list[list[str]]:
        """The nonces of each transaction."""
        return [[entry.nonce for entry in change.entries] for change in self.changes]

    @property
    def tokens(self) -> list[str]:
        """The token of each transaction."""
        return self._arguments("transact", "token")

    @property
    def reads(self) -> list[bool]:
        """Of each read of an account, whether it was strongly consistent."""
        return self._arguments("account", "consistent")

    def _arguments(self, call: str, argument: str) -> list[Any]:
        return [arguments[argument] for name, arguments in self.store.calls if name == call]
