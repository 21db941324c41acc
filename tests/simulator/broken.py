"""Ledgers that are wrong, each in one way that real ones are, and the invariant that is there to catch it."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from ledger_core import (
    BaseLedgerOperations,
    ContentionError,
    DuplicateNonceError,
    InsufficientBalanceError,
    LedgerEntry,
    OperationRequest,
)
from ledger_core.account import Head, entry_after
from ledger_core.dynamodb import Cancelled, LedgerStore, Write, dynamodb_request
from ledger_core.dynamodb.decode import units_from
from ledger_core.dynamodb.expressions import entry_item, transact_items
from ledger_core.fields import format_time
from ledger_core.posting import OperationProcessor, RetryBudget
from ledger_core.posting.lanes import Lane, Ticket, Transaction
from ledger_core.posting.writer import LaneWriter
from tests.simulator.simulation import Ledger, shared_ledger, timing, with_patience

__all__ = ["BROKEN", "Broken", "Naive"]

TABLES: Any = {"entries_table": "entries", "balances_table": "balances"}


class Naive:
    """What a team would write: look, decide, write. It is right, and each of its subclasses makes one mistake."""

    def __init__(self, process: Any, operations: type[BaseLedgerOperations]) -> None:
        self.client = process  # which is one of DynamoDB's
        self.clock = process.clock
        self.configs = operations.get_operation_config()
        self.store = LedgerStore(self.client, **TABLES)

    def __call__(self, request: OperationRequest) -> LedgerEntry:
        amount = self.configs[request.operation].signed_amount(request.amount)
        stored, head = self.look(request)
        if stored:
            raise DuplicateNonceError(entry=stored, replay=stored.answers(request, amount=amount))
        if head.balance + amount < 0:
            raise InsufficientBalanceError(balance=head.balance, required=-amount)
        entry = entry_after(head, request, amount=amount, now=self.clock())
        self.write(entry, *transact_items(Write((entry,), head), **TABLES))
        return entry

    def look(self, request: OperationRequest) -> tuple[LedgerEntry | None, Head]:
        return self.store.look_up(request.owner_id, request.nonce)

    def write(self, entry: LedgerEntry, put: Any, update: Any) -> None:
        with dynamodb_request(self.store.clock):
            try:
                self.read(self.client.transact_write_items(TransactItems=[put, update]))
            except ClientError as error:
                raise ContentionError("Somebody else was first.") from error

    def read(self, answer: Any) -> None:
        units_from(answer)


class AnyAnswer(Naive):
    """Whatever is 200 counts as done, also that of a proxy which has handed nothing on."""

    def read(self, answer: Any) -> None:
        pass


class CheckThenWrite(Naive):
    """Nonce and balance are looked at, and then the balance is taken from: two spends both pass."""

    def write(self, entry: LedgerEntry, put: Any, update: Any) -> None:
        addition = {
            "TableName": "balances",
            "Key": {"owner_id": {"S": entry.owner_id}},
            "UpdateExpression": "SET head_hash = :hash, updated_at = :now ADD balance :amount, entry_count :one",
            "ExpressionAttributeValues": {
                ":amount": {"N": str(entry.amount)},
                ":one": {"N": "1"},
                ":hash": {"S": entry.hash},
                ":now": {"S": format_time(entry.created_at)},
            },
        }
        super().write(entry, unconditional(put), {"Update": addition})


class BlindAdd(Naive):
    """The balance moves whatever the nonce: the entry's key is another one each time."""

    def look(self, request: OperationRequest) -> tuple[LedgerEntry | None, Head]:
        return None, self.store.head(request.owner_id, consistent=True)

    def write(self, entry: LedgerEntry, put: Any, update: Any) -> None:
        put["Put"]["Item"] = {**entry_item(entry), "entry_key": {"S": entry.hash}}
        super().write(entry, put, update)


class CachedHead(Naive):
    """The head is the one that this process remembers, and no condition asks whether it still is."""

    def __init__(self, process: Any, operations: type[BaseLedgerOperations]) -> None:
        super().__init__(process, operations)
        self.heads: dict[str, Head] = {}

    def look(self, request: OperationRequest) -> tuple[LedgerEntry | None, Head]:
        stored, head = super().look(request)
        return stored, self.heads.get(request.owner_id, head)

    def write(self, entry: LedgerEntry, put: Any, update: Any) -> None:
        super().write(entry, put, unconditional(update))
        self.heads[entry.owner_id] = Head.at(entry)


class PredecessorFromIndex(Naive):
    """The hash before is that of the last entry in the index, which is behind the table."""

    def look(self, request: OperationRequest) -> tuple[LedgerEntry | None, Head]:
        stored, head = super().look(request)
        latest = self.store.latest(request.owner_id)
        return stored, replace(head, head_hash=latest.hash) if latest else head

    def write(self, entry: LedgerEntry, put: Any, update: Any) -> None:
        update["Update"]["ConditionExpression"] = "attribute_not_exists(entry_count)"
        if ":known_count" in update["Update"]["ExpressionAttributeValues"]:
            del update["Update"]["ExpressionAttributeValues"][":known_hash"]
            update["Update"]["ConditionExpression"] = "entry_count = :known_count"
        super().write(entry, put, update)


class TwoRequests(Naive):
    """The entry and then the balance: what happens in between leaves them apart."""

    def write(self, entry: LedgerEntry, put: Any, update: Any) -> None:
        for call, arguments in ((self.client.put_item, put["Put"]), (self.client.update_item, update["Update"])):
            with dynamodb_request(self.store.clock):
                self.read(call(**arguments))


class AnswerBeforeWrite(Naive):
    """The client is told at once, and hears nothing of what becomes of it."""

    def write(self, entry: LedgerEntry, put: Any, update: Any) -> None:
        self.client.world.spawn("later", lambda: super(AnswerBeforeWrite, self).write(entry, put, update), self.client)


class TrustedClock(Naive):
    """An entry has the time of the writer's clock, though the last writer's was ahead of it."""

    def look(self, request: OperationRequest) -> tuple[LedgerEntry | None, Head]:
        stored, head = super().look(request)
        return stored, replace(head, updated_at=None)


class TimeOfItsOwn(Naive):
    """The balance's row has the time when it was written, and not the entry's."""

    def write(self, entry: LedgerEntry, put: Any, update: Any) -> None:
        update["Update"]["ExpressionAttributeValues"][":now"] = {"S": format_time(self.clock())}
        super().write(entry, put, update)


class BalanceBeforeNonce(LaneWriter):
    """A retried spend is told that the balance is too low, when it was that spend that took it."""

    def _refuse_unless_moved(self, lane: Lane, ticket: Ticket, patience: RetryBudget) -> Head:
        lane.head = patience.read(lambda: self._store.head(ticket.request.owner_id, consistent=True))
        if lane.head.balance + ticket.amount < 0:
            raise InsufficientBalanceError(balance=lane.head.balance, required=-ticket.amount)
        return super()._refuse_unless_moved(lane, ticket, patience)


class RefusalFromMemory(LaneWriter):
    """The balance that is too low is one that this process remembers."""

    def _refuse_unless_moved(self, lane: Lane, ticket: Ticket, patience: RetryBudget) -> Head:
        if lane.head:
            raise InsufficientBalanceError(balance=lane.head.balance, required=-ticket.amount)
        return super()._refuse_unless_moved(lane, ticket, patience)


class EchoedReplay(LaneWriter):
    """Who repeats a nonce is told what it asked for, and not what is stored."""

    def _duplicate(self, entry: LedgerEntry, ticket: Ticket) -> DuplicateNonceError:
        echo = entry.model_copy(update={"operation": str(ticket.request.operation), "amount": ticket.amount})
        return DuplicateNonceError(entry=echo, replay=True)


class TokenForEver(LaneWriter):
    """What is in doubt is sent again for as long as it takes, and what it then finds is taken for another's."""

    def _append(self, transaction: Transaction, patience: RetryBudget) -> Cancelled | None:
        transaction.begun_at, transaction.time = patience.monotonic(), self._clock()
        for ticket in transaction.tickets:
            ticket.sent.clear()
        return super()._append(transaction, patience)


class TokenFromNonce(LedgerStore):
    """A second try is of another transaction, but DynamoDB is told that it is the same: it fails, and all is done."""

    def append(self, entries: Sequence[LedgerEntry], *, token: str, **options: Any) -> Any:
        text = "".join(f"{entry.owner_id}#{entry.nonce}" for entry in entries)
        return super().append(entries, token=hashlib.sha256(text.encode()).hexdigest()[:36], **options)


class Broken(NamedTuple):
    """A wrong ledger, and what catches it."""

    ledger: Ledger
    invariant: str
    owners: Sequence[str] = ("ada", "bob")


def processor(writer: type[LaneWriter] = LaneWriter, store: type[LedgerStore] = LedgerStore) -> Ledger:
    """The real one, but for a part."""

    def begin(process: Any, operations: type[BaseLedgerOperations]) -> Any:
        real = OperationProcessor(store(process, **TABLES), operations, **timing(process))
        real._writer = writer(real.store, process.clock)
        return with_patience(process, real)

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
    "replay that echoes the request": Broken(processor(EchoedReplay), "replay_answers_the_original"),
    "token derived from the nonce": Broken(processor(store=TokenFromNonce), "refused_is_not_stored"),
    "token used for ever": Broken(processor(TokenForEver), "own_is_no_duplicate"),
    "head from a cache without condition": Broken(CachedHead, "conservation"),
    "a#b keys": Broken(shared_ledger, "replay_answers_the_original", owners=("a", "a#b")),
    "entry and balance in two requests": Broken(TwoRequests, "gapless_ids"),
    "balance with a time of its own": Broken(TimeOfItsOwn, "head_is_last_entry"),
    "any 200 is done": Broken(AnyAnswer, "acknowledged_is_stored"),
    "answer before the write": Broken(AnswerBeforeWrite, "acknowledged_is_stored"),
    "predecessor from the index": Broken(PredecessorFromIndex, "chain_unbroken"),
    "time of the writer's clock": Broken(TrustedClock, "increasing_time"),
    "refusal from memory": Broken(processor(RefusalFromMemory), "one_order"),
}
