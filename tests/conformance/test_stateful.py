"""Clients in any order that Hypothesis finds, against a model of the ledger: a list of entries.

SEED repeats a run. A failure prints a line for `machine` that repeats it alone. Deep with PROVE=1.
"""

import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, seed
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    multiple,
    rule,
    run_state_machine_as_test,
)

from functions.example_app.operations import ExampleAppOperations
from ledger_core import LedgerEntry, OperationRequest
from ledger_core.account import Head
from ledger_core.fields import METADATA_KEY_LENGTH_MAX, format_time
from ledger_core.periods import Period, PeriodKind
from ledger_core.rewards import GrantOnAccess, Reward, Segment, Sweep
from tests.chance import SEED, looking_at
from tests.conformance.world import OwnAccounts, World
from tests.invariants import Answer, Book, Outcome, check
from tests.support import DEEP, NOON, add, operation, spend

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

SETTINGS = looking_at(
    200 if DEEP else 5,
    stateful_step_count=60 if DEEP else 30,
    suppress_health_check=[HealthCheck.too_slow],  # a step is a request to a database
)
CONFIGS = {
    str(name): config for name, config in ExampleAppOperations.get_operation_config().items()
}
NAMES = {str(name): name for name in ExampleAppOperations.get_operation_config()}

processes = st.sampled_from([0, 1])
owners = st.sampled_from(["ada", "auth0|ü-1", "~"])
nonces = st.one_of(
    st.integers(0, 40).map("n{}".format),
    st.sampled_from(["a b", "x#y", "ü", '"q"', "ledger", "{}"]),
)
days = st.integers(0, 2).map(lambda day: NOON + timedelta(days=day))
metadatas = st.dictionaries(
    st.from_regex(rf"[A-Za-z0-9_.:-]{{1,{METADATA_KEY_LENGTH_MAX}}}", fullmatch=True),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
    max_size=2,
)


@st.composite
def postings(draw: st.DrawFn) -> tuple[str, int | None]:
    """An operation, and an amount that it takes."""
    name = draw(st.sampled_from(sorted(CONFIGS)))
    config = CONFIGS[name]
    if config.magnitude_min is None or config.magnitude_max is None:
        return name, None
    amounts = st.one_of(
        st.integers(config.magnitude_min, 20),
        st.integers(config.magnitude_min, config.magnitude_max),
    )
    return name, draw(st.one_of(st.none(), amounts))


class Clients(RuleBasedStateMachine):
    """Clients of two processes. `model` is what the answers say; all answers must fit it."""

    accepted = Bundle("accepted")

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.prefix = world.begin()
        self.model: dict[str, list[LedgerEntry]] = defaultdict(list)
        self.answers: list[Answer] = []
        self.now = NOON
        self.accruals = [
            GrantOnAccess(one, ExampleAppOperations, clock=lambda: self.now)
            for one in world.processors
        ]

    @initialize(target=accepted)
    def begin(self) -> Any:
        """An owner who has something to spend."""
        request = add(20, "n0", owner_id=f"{self.prefix}ada")
        self._send(0, request)
        return request

    @rule(
        target=accepted,
        posts=st.lists(st.tuples(processes, owners, nonces, postings(), metadatas), max_size=6),
    )
    def post(
        self, posts: list[tuple[int, str, str, tuple[str, int | None], dict[str, str]]]
    ) -> Any:
        """Post any operation for any amount, by a process that may know an old account."""
        accepted = []
        for process, owner, nonce, (name, amount), metadata in posts:
            request = operation(
                NAMES[name], nonce, owner_id=self.prefix + owner, amount=amount, metadata=metadata
            )
            if self._send(process, request) is Outcome.ACCEPTED:
                accepted.append(request)
        return multiple(*accepted)

    @rule(process=processes, request=accepted, in_header=st.booleans())
    def repeat(self, process: int, request: OperationRequest, in_header: bool) -> None:
        """The same request under the same nonce, from either process."""
        assert self._send(process, request, in_header=in_header) is Outcome.DUPLICATE

    @rule(
        process=processes,
        request=accepted,
        posting=postings(),
        metadata=metadatas,
        in_header=st.booleans(),
    )
    def reuse(
        self, process: int, request: OperationRequest, posting: Any, metadata: Any, in_header: bool
    ) -> None:
        """A used nonce with another request, which may happen to be the same."""
        update = {"operation": NAMES[posting[0]], "amount": posting[1], "metadata": metadata}
        assert (
            self._send(process, request.model_copy(update=update), in_header=in_header)
            is Outcome.DUPLICATE
        )

    @rule(process=processes, owner=owners, nonce=nonces, excess=st.integers(1, 5))
    def overspend(self, process: int, owner: str, nonce: str, excess: int) -> None:
        """More than there is: refused, unless the nonce was used."""
        owner_id = self.prefix + owner
        amount = min(self._balance(owner_id) + excess, 1_000_000)
        self._send(process, spend(amount, nonce, owner_id=owner_id))

    @rule(process=processes, owner=owners)
    def read_balance(self, process: int, owner: str) -> None:
        """The balance now."""
        self._check_balance(process, self.prefix + owner, self.model[self.prefix + owner], {})

    @rule(
        process=processes,
        request=accepted,
        position=st.integers(0, 100),
        microseconds=st.integers(-1, 1),
    )
    def read_past_balance(
        self, process: int, request: OperationRequest, position: int, microseconds: int
    ) -> None:
        """The balance just before, at and just after the time of any entry."""
        entries = self.model[request.owner_id]
        at = entries[position % len(entries)].created_at + timedelta(microseconds=microseconds)
        before = [entry for entry in entries if entry.created_at <= at]
        self._check_balance(process, request.owner_id, before, {"at": format_time(at)})

    @rule(
        process=processes,
        owner=owners,
        limit=st.one_of(st.integers(1, 3), st.integers(1, 100)),
        operation=st.one_of(st.none(), st.sampled_from(sorted(CONFIGS))),
        bounds=st.tuples(*[st.one_of(st.none(), st.integers(0, 100))] * 2),
    )
    def read_history(
        self,
        process: int,
        owner: str,
        limit: int,
        operation: str | None,
        bounds: tuple[int | None, int | None],
    ) -> None:
        """Read all pages of the history, of any size, by operation and between two times."""
        owner_id = self.prefix + owner
        entries = self.model[owner_id]
        since, to = (
            None if place is None or not entries else entries[place % len(entries)].created_at
            for place in bounds
        )
        if since and to:
            since, to = sorted([since, to])
        query = {"limit": str(limit)} | ({"operation": operation} if operation else {})
        query |= {name: format_time(time) for name, time in (("from", since), ("to", to)) if time}
        found: list[Any] = []
        cursor: str | None = ""
        while cursor is not None:
            more = {"cursor": cursor} if cursor else {}
            page = self.world.apis[process](
                "GET", f"/ledger/{owner_id}/entries", query=query | more
            )
            assert page.status == 200
            cursor = page.body["next_cursor"]
            assert len(page.body["entries"]) <= limit
            assert operation or cursor is None or len(page.body["entries"]) == limit
            found += page.body["entries"]
        assert [LedgerEntry(**entry) for entry in found] == [
            entry
            for entry in reversed(entries)
            if (since is None or entry.created_at >= since)
            and (to is None or entry.created_at < to)
            and operation in (None, entry.operation)
        ]

    @rule(process=processes, owner=owners)
    def verify(self, process: int, owner: str) -> None:
        """An audit of the whole ledger."""
        owner_id = self.prefix + owner
        report = self.world.apis[process]("GET", f"/ledger/{owner_id}/verify").body
        assert (report["valid"], report["entries_checked"]) == (True, len(self.model[owner_id]))

    @rule(day=days, kind=st.sampled_from([PeriodKind.DAY, PeriodKind.DAY, PeriodKind.WEEK]))
    def sweep(self, day: datetime, kind: PeriodKind) -> None:
        """A period's reward for everybody who has an entry, once; days may come in any order."""
        reward = Reward.of(ExampleAppOperations, "DAILY_REWARD", Period.at(kind, day))
        having = {
            owner_id: self._has(owner_id, reward)
            for owner_id, entries in self.model.items()
            if entries
        }
        (segment,) = Segment.all_of(reward, 1, day)
        tally = (
            Sweep(OwnAccounts(self.world.store, self.prefix), reward).run(segment, seconds=60).tally
        )
        granted = [owner_id for owner_id, has in having.items() if not has]
        assert (tally.granted, tally.already) == (len(granted), len(having) - len(granted))
        assert (tally.skipped, tally.failed) == (0, 0)
        for owner_id in granted:
            self._rewarded(owner_id, reward)

    @rule(process=processes, owner=owners, day=days)
    def touch(self, process: int, owner: str, day: datetime) -> None:
        """The first touch of a day grants its reward, unless a sweep did."""
        owner_id, self.now = self.prefix + owner, day
        reward = Reward.of(ExampleAppOperations, "DAILY_REWARD", Period.at(PeriodKind.DAY, day))
        due = bool(self.model[owner_id]) and not self._has(owner_id, reward)
        granted = self.accruals[process].touch(owner_id)
        assert (granted is not None) == due
        if granted:
            assert granted == self._rewarded(owner_id, reward)

    def teardown(self) -> None:
        """The books are as the model has them, and every invariant holds."""
        for owner_id, entries in self.model.items():
            book = Book.of(self.world.store, owner_id)
            assert book.entries == entries
            check(book, self.answers)
        self.world.counted["operations"] += len(self.answers)
        self.world.counted.update(str(answer.outcome) for answer in self.answers)

    def _send(self, process: int, request: OperationRequest, *, in_header: bool = False) -> Outcome:
        """Post it, and compare what comes back with what must."""
        in_header = in_header and request.nonce.isascii() and not request.nonce.startswith('"')
        body = request.model_dump(mode="json", exclude={"nonce"} if in_header else set())
        headers = {"Idempotency-Key": request.nonce} if in_header else {}
        answer = self.world.apis[process]("POST", "/ledger/entry", body, headers=headers)
        original = self._under(request.owner_id, request.nonce)
        amount = CONFIGS[request.operation].signed_amount(request.amount)
        told = Answer.of_http(
            request, answer.status, answer.body, replayed="idempotency-replayed" in answer.headers
        )
        self.answers.append(told)
        if original:
            stored = (original.operation, original.amount, original.metadata)
            same = stored == (request.operation, amount, request.metadata)
            assert (told.outcome, told.entry) == (Outcome.DUPLICATE, original)
            assert answer.status == ((200 if same else 422) if in_header else 409)
            assert in_header or told.replay == same
        elif self._balance(request.owner_id) + amount < 0:
            assert (told.outcome, answer.status) == (Outcome.REFUSED, 402)
            assert (told.balance, told.required) == (self._balance(request.owner_id), -amount)
        else:
            assert (told.outcome, answer.status) == (Outcome.ACCEPTED, 200)
            assert told.entry
            self._append(told.entry, request, amount)
        return told.outcome

    def _append(self, entry: LedgerEntry, request: OperationRequest, amount: int) -> None:
        """Take an entry into the model, if it is what must have come of the request."""
        entries = self.model[request.owner_id]
        assert (entry.id, entry.balance_after) == (
            len(entries) + 1,
            self._balance(request.owner_id) + amount,
        )
        assert (entry.operation, entry.amount, entry.nonce) == (
            request.operation,
            amount,
            request.nonce,
        )
        assert (entry.owner_id, entry.metadata) == (request.owner_id, request.metadata)
        entries.append(entry)

    def _rewarded(self, owner_id: str, reward: Reward) -> LedgerEntry:
        entry = self.world.store.latest(owner_id)
        assert entry
        self._append(entry, reward.request(owner_id), reward.amount)
        return entry

    def _check_balance(
        self, process: int, owner_id: str, entries: Sequence[LedgerEntry], query: Mapping[str, str]
    ) -> None:
        head = Head.at(entries[-1]) if entries else Head(owner_id=owner_id)
        assert self.world.apis[process]("GET", f"/ledger/{owner_id}/balance", query=query).body == {
            "owner_id": owner_id,
            "unit": "CREDIT",
            "balance": head.balance,
            "entry_count": head.entry_count,
            "updated_at": format_time(head.updated_at) if head.updated_at else None,
        }

    def _under(self, owner_id: str, nonce: str) -> LedgerEntry | None:
        return next((entry for entry in self.model[owner_id] if entry.nonce == nonce), None)

    def _has(self, owner_id: str, reward: Reward) -> bool:
        return self._under(owner_id, reward.nonce) is not None

    def _balance(self, owner_id: str) -> int:
        return sum(entry.amount for entry in self.model[owner_id])


def test_every_answer_is_what_a_plain_list_of_entries_says(
    client: "DynamoDBClient",
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> None:
    """Posts, repeats, refusals, reads and rewards of two processes, in any order, fit the model."""
    world = World(client, is_moto=request.node.callspec.params["client"] == "moto")

    @seed(SEED)
    def machine() -> Clients:
        return Clients(world)

    sys.stdout.write(f"SEED={SEED}\n")
    run_state_machine_as_test(machine, settings=SETTINGS)  # type: ignore[arg-type]  # which takes a function as well
    for name, number in {"examples": world.examples, **world.counted}.items():
        record_property(name, number)
    assert world.examples >= SETTINGS.max_examples, SEED
    assert set(world.counted) == {"operations", "accepted", "duplicate", "refused"}, SEED
