"""Ledgers with a typical mistake each, and the invariant that must catch it."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from ledger_core import (
    BaseLedgerOperations,
    ContentionError,
    DuplicateNonceError,
    LedgerEntry,
    LedgerError,
    OperationRequest,
)
from ledger_core.account import Account, AccountChange
from ledger_core.dynamodb import Cancelled, LedgerStore, dynamodb_request
from ledger_core.dynamodb.decode import units_from
from ledger_core.dynamodb.expressions import entry_item, transact_items
from ledger_core.fields import format_time
from ledger_core.keys import CREDIT
from ledger_core.posting import (
    GroupCommit,
    OperationProcessor,
    Posting,
    RetryBudget,
    duplicate_of,
    make_plan,
)
from ledger_core.posting.batch import Attempt, Pending
from ledger_core.posting.group_commit import Waiting
from ledger_core.posting.plan import GroupPlan
from tests.fakes.apps import GameOperations
from tests.simulator.simulation import Ledger, posting, shared_ledger, timing

__all__ = ["BROKEN", "Broken", "Naive"]

TABLES: Any = {"entries_table": "entries", "accounts_table": "accounts"}


class Naive:
    """A correct ledger that reads, decides and writes. Each subclass makes one mistake."""

    def __init__(self, process: Any, operations: type[BaseLedgerOperations]) -> None:
        self.client = process  # which is one of DynamoDB's
        self.clock = process.clock
        self.configs = operations.get_operation_config()
        self.store = LedgerStore(self.client, **TABLES)

    def __call__(self, request: OperationRequest) -> LedgerEntry:
        asked = Posting.of(request, self.configs[request.operation])
        stored, account = self.look(request)
        planned = duplicate_of(asked, stored) if stored else make_plan(asked, account, self.clock())
        if isinstance(planned, LedgerError):
            raise planned
        self.write(planned.changes[0], *transact_items(planned.changes[0], **TABLES))
        return planned.entry

    def look(self, request: OperationRequest) -> tuple[LedgerEntry | None, Account]:
        return self.store.look_up(request.owner_id, request.nonce)

    def write(self, change: AccountChange, put: Any, update: Any) -> None:
        with dynamodb_request(self.store.clock):
            try:
                self.read(self.client.transact_write_items(TransactItems=[put, update]))
            except ClientError as error:
                raise ContentionError("Somebody else was first.") from error

    def read(self, answer: Any) -> None:
        units_from(answer)


class AnyAnswer(Naive):
    """Every 200 counts as done, also that of a proxy which has not handed the request on."""

    def read(self, answer: Any) -> None:
        pass


class CheckThenWrite(Naive):
    """Nonce and balance are looked at, and then the balance is taken from: two spends both pass."""

    def write(self, change: AccountChange, put: Any, update: Any) -> None:
        (entry,) = change.entries
        addition = {
            "TableName": "accounts",
            "Key": {"account": {"S": entry.owner_id}},
            "UpdateExpression": "SET head_hash = :hash, updated_at = :now, active_at = :now, "
            "created_at = if_not_exists(created_at, :now) ADD balance :amount, entry_count :one",
            "ExpressionAttributeValues": {
                ":amount": {"N": str(entry.amount)},
                ":one": {"N": "1"},
                ":hash": {"S": entry.hash},
                ":now": {"S": format_time(entry.created_at)},
            },
        }
        super().write(change, unconditional(put), {"Update": addition})


class BlindAdd(Naive):
    """The balance moves whatever the nonce: the entry's key is another one each time."""

    def look(self, request: OperationRequest) -> tuple[LedgerEntry | None, Account]:
        return None, self.store.account(request.owner_id, consistent=True)

    def write(self, change: AccountChange, put: Any, update: Any) -> None:
        (entry,) = change.entries
        put["Put"]["Item"] = {**entry_item(entry), "entry_key": {"S": entry.hash}}
        super().write(change, put, update)


class CachedAccount(Naive):
    """The account is the remembered one, and no condition checks that it is still the same."""

    def __init__(self, process: Any, operations: type[BaseLedgerOperations]) -> None:
        super().__init__(process, operations)
        self.accounts: dict[str, Account] = {}

    def look(self, request: OperationRequest) -> tuple[LedgerEntry | None, Account]:
        stored, account = super().look(request)
        return stored, self.accounts.get(request.owner_id, account)

    def write(self, change: AccountChange, put: Any, update: Any) -> None:
        super().write(change, put, unconditional(update))
        self.accounts[change.after.owner_id] = change.after


class PredecessorFromIndex(Naive):
    """The hash before is that of the last entry in the index, which is behind the table."""

    def look(self, request: OperationRequest) -> tuple[LedgerEntry | None, Account]:
        stored, account = super().look(request)
        latest = self.store.latest(request.owner_id)
        return stored, replace(account, head_hash=latest.hash) if latest else account

    def write(self, change: AccountChange, put: Any, update: Any) -> None:
        update["Update"]["ConditionExpression"] = "attribute_not_exists(entry_count)"
        if ":known_count" in update["Update"]["ExpressionAttributeValues"]:
            del update["Update"]["ExpressionAttributeValues"][":known_hash"]
            update["Update"]["ConditionExpression"] = "entry_count = :known_count"
        super().write(change, put, update)


class TwoRequests(Naive):
    """The entry and then the balance: what happens in between leaves them apart."""

    def write(self, change: AccountChange, put: Any, update: Any) -> None:
        for call, arguments in (
            (self.client.put_item, put["Put"]),
            (self.client.update_item, update["Update"]),
        ):
            with dynamodb_request(self.store.clock):
                self.read(call(**arguments))


class AnswerBeforeWrite(Naive):
    """The client is told at once, and hears nothing of what becomes of it."""

    def write(self, change: AccountChange, put: Any, update: Any) -> None:
        self.client.world.spawn(
            "later", lambda: super(AnswerBeforeWrite, self).write(change, put, update), self.client
        )


class TrustedClock(Naive):
    """An entry has the time of the writer's clock, though the last writer's was ahead of it."""

    def look(self, request: OperationRequest) -> tuple[LedgerEntry | None, Account]:
        stored, account = super().look(request)
        return stored, replace(account, updated_at=None)


class TimeOfItsOwn(Naive):
    """The account's row has the time when it was written, and not the entry's."""

    def write(self, change: AccountChange, put: Any, update: Any) -> None:
        update["Update"]["ExpressionAttributeValues"][":updated_at"] = {
            "S": format_time(self.clock())
        }
        super().write(change, put, update)


class OpenedAgain(Naive):
    """Every entry opens the account anew."""

    def write(self, change: AccountChange, put: Any, update: Any) -> None:
        values = update["Update"]["ExpressionAttributeValues"]
        values[":created_at"] = values[":updated_at"]
        super().write(change, put, update)


class BalanceBeforeNonce(OperationProcessor):
    """A retried spend is refused for a balance that is too low because of that spend."""

    def _confirm(self, pending: Pending, now: datetime, budget: RetryBudget) -> GroupPlan | None:
        owner_id = pending.posting.request.owner_id
        account = budget.call(lambda: self.store.account(owner_id, consistent=True))
        planned = make_plan(pending.posting, account, now)
        if isinstance(planned, LedgerError):
            pending.fail(planned)
            return None
        return super()._confirm(pending, now, budget)


class RefusalFromMemory(OperationProcessor):
    """The balance that is too low is one that this process remembers."""

    def _confirm(self, pending: Pending, now: datetime, budget: RetryBudget) -> GroupPlan | None:
        if account := self.remembered(pending.posting.request.owner_id):
            planned = make_plan(pending.posting, account, now)
            assert isinstance(planned, LedgerError)  # or there would be nothing to confirm
            pending.fail(planned)
            return None
        return super()._confirm(pending, now, budget)


class RefusalWithinAGroup(OperationProcessor):
    """A request of a group is refused for the balance after the others, before they are written."""

    def _plan(self, group: Sequence[Pending], account: Account, now: datetime) -> GroupPlan | None:
        planned = super()._plan(group, account, now)
        if planned:
            for pending in group:
                refusal = make_plan(pending.posting, planned.change.after, now)
                if pending.posting not in planned.fitting and isinstance(refusal, LedgerError):
                    pending.fail(refusal)
        return planned


class Echo(Pending):
    """A request that is answered by itself."""

    def fail(self, error: BaseException) -> None:
        if isinstance(error, DuplicateNonceError):
            asked = {
                "operation": str(self.posting.request.operation),
                "amount": self.posting.amount,
            }
            error = DuplicateNonceError(entry=error.entry.model_copy(update=asked), replay=True)
        Pending.fail(self, error)


class EchoedReplay(OperationProcessor):
    """The answer to a nonce that was used is what was asked for, and not what is stored."""

    def accept(self, request: OperationRequest, **options: Any) -> Pending:
        pending = super().accept(request, **options)
        return Echo(pending.posting, is_alone=pending.is_alone)


class OneAccountForAllUnits(OperationProcessor):
    """Gems and credits of an owner are one balance."""

    def accept(self, request: OperationRequest, **options: Any) -> Pending:
        pending = super().accept(request, **options)
        return Pending(replace(pending.posting, unit=CREDIT), is_alone=pending.is_alone)


class NoncesOfAllApps(OperationProcessor):
    """A nonce of one app is taken for the same nonce of another app."""

    def accept(self, request: OperationRequest, **options: Any) -> Pending:
        pending = super().accept(request, **options)
        return Pending(replace(pending.posting, app=None), is_alone=pending.is_alone)


class TokenForEver(OperationProcessor):
    """An attempt in doubt is resent without end, and its own entry looks like another's."""

    def _is_forgotten(self, attempt: Attempt) -> bool:
        return False


class TokenFromNonce(LedgerStore):
    """A second try under the same token is another transaction: it fails after a first success."""

    def transact(self, changes: Sequence[AccountChange], *, token: str) -> list[Cancelled]:
        entries = [entry for change in changes for entry in change.entries]
        text = "".join(f"{entry.owner_id}#{entry.nonce}" for entry in entries)
        return super().transact(changes, token=hashlib.sha256(text.encode()).hexdigest()[:36])


class LeadBeforeOutcome(GroupCommit):
    """The next request leads before it is known whether the transaction under way is written."""

    def join(self, request: OperationRequest, **options: Any) -> Waiting:
        waiting = super().join(request, **options)
        if not waiting.turn.done():
            waiting.turn.set_result(None)
        return waiting


class Broken(NamedTuple):
    """A wrong ledger, and what catches it."""

    ledger: Ledger
    invariant: str
    owners: Sequence[str] = ("ada", "bob")
    others: Sequence[type[BaseLedgerOperations]] = ()


def processor(
    processor: type[OperationProcessor] = OperationProcessor,
    *,
    store: type[LedgerStore] = LedgerStore,
    group_commit: type[GroupCommit] = GroupCommit,
) -> Ledger:
    """The real one, but for a part."""

    def begin(process: Any, operations: type[BaseLedgerOperations]) -> Any:
        real = processor(store(process, **TABLES), operations, **timing(process))
        return posting(process, real, group_commit)

    return begin


def unconditional(write: Any) -> dict[str, Any]:
    """The same, come what may."""
    ((kind, what),) = write.items()
    what = {name: value for name, value in what.items() if name != "ConditionExpression"}
    for unused in (":known_count", ":known_hash"):
        what.get("ExpressionAttributeValues", {}).pop(unused, None)
    return {kind: what}


BROKEN = {
    "check, then write": Broken(CheckThenWrite, "no_overdraft"),
    "blind ADD without nonce": Broken(BlindAdd, "exactly_once"),
    "balance before nonce": Broken(processor(BalanceBeforeNonce), "refused_is_not_stored"),
    "replay that echoes the request": Broken(
        processor(EchoedReplay), "replay_answers_the_original"
    ),
    "token derived from the nonce": Broken(
        processor(store=TokenFromNonce), "refused_is_not_stored"
    ),
    "token used for ever": Broken(processor(TokenForEver), "own_is_no_duplicate"),
    "account from a cache without condition": Broken(CachedAccount, "conservation"),
    "a#b keys": Broken(shared_ledger, "replay_answers_the_original", owners=("a", "a#b")),
    "entry and balance in two requests": Broken(TwoRequests, "gapless_ids"),
    "balance with a time of its own": Broken(TimeOfItsOwn, "head_is_last_entry"),
    "any 200 is done": Broken(AnyAnswer, "acknowledged_is_stored"),
    "answer before the write": Broken(AnswerBeforeWrite, "acknowledged_is_stored"),
    "predecessor from the index": Broken(PredecessorFromIndex, "chain_unbroken"),
    "time of the writer's clock": Broken(TrustedClock, "increasing_time"),
    "refusal from memory": Broken(processor(RefusalFromMemory), "one_order"),
    "refusal within a group": Broken(processor(RefusalWithinAGroup), "one_order"),
    "lead passed on before the outcome is known": Broken(
        processor(group_commit=LeadBeforeOutcome), "own_is_no_duplicate"
    ),
    "one account for all units": Broken(
        processor(OneAccountForAllUnits), "acknowledged_is_stored", others=(GameOperations,)
    ),
    "nonces of all apps are one": Broken(
        processor(NoncesOfAllApps), "own_is_no_duplicate", others=(GameOperations,)
    ),
    "account opened again": Broken(OpenedAgain, "head_is_last_entry"),
}
