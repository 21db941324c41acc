"""A history of a ledger: clients, Lambda environments, servers and reward workers in a `World`.

The choices decide everything. In the end the faults cease, the requests in doubt are sent again,
the rewards run to their end, and the invariants are checked.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Any

from functions.example_app.operations import ExampleAppOperations
from ledger_core import (
    BaseLedgerOperations,
    LedgerEntry,
    LedgerError,
    LedgerOperationType,
    OperationRequest,
)
from ledger_core.audit import audit_store
from ledger_core.dynamodb import LedgerStore, SweepStore
from ledger_core.keys import account_key, entry_key, split_account_key
from ledger_core.periods import Period, PeriodKind
from ledger_core.posting import TIMEOUT_SECONDS, GroupCommit, OperationProcessor
from ledger_core.rewards import Reward, Segment, Sweep
from tests.fakes.apps import GameOperations
from tests.invariants import Answer, Book, Outcome, Violation, violations
from tests.simulator.world import BEGINNING, Choices, CrashedError, Executor, Process, Stream, World

__all__ = ["Ledger", "Simulation", "shared_ledger"]

TABLES = {"entries": "entry_key", "accounts": "account"}
INDEX = ("entries", "account", "created_at")
CLIENTS = 5
WORKERS = 2
"""At most."""
LAMBDAS = 3
IDLE_SECONDS = 50.0
"""For which a worker waits for a message."""
STARTS = 30
"""Hundredths of a second within which sweeps begin."""
PERIODS = 2
SEGMENTS = 2
SWEEP_SECONDS = 2.0
TIMEOUTS_SECONDS = (TIMEOUT_SECONDS, 0.05, 3600.0)
"""For which callers wait: some are in a hurry, and jobs wait an hour."""
MAGNITUDES = 4
"""What a client asks for at most where it may choose."""

Ledger = Callable[[Process, type[BaseLedgerOperations]], Callable[[OperationRequest], LedgerEntry]]
"""What is tested: begun in a process, it gives what posts a request."""


def shared_ledger(
    process: Process, operations: type[BaseLedgerOperations]
) -> Callable[[OperationRequest], LedgerEntry]:
    """The real one."""
    client: Any = process
    store = LedgerStore(client, entries_table="entries", accounts_table="accounts")
    return posting(process, OperationProcessor(store, operations, **timing(process)))


def posting(
    process: Process, processor: OperationProcessor, group_commit: type[GroupCommit] = GroupCommit
) -> Callable[[OperationRequest], LedgerEntry]:
    """How a process posts: a server by group commit, a Lambda environment by the processor."""
    post = processor.process
    if process.is_server:
        post = group_commit(processor, wait=partial(wait_for_turn, process.world)).process
    timeouts = process.world.choices["timeouts"]
    return lambda request: post(request, timeout_seconds=timeouts.of(TIMEOUTS_SECONDS))


def wait_for_turn(world: World, turn: "Future[None]", seconds: float) -> bool:
    """Let the world go on until a turn is done; False if the time is up before."""
    return world.wait_for(turn.done, deadline=world.now + seconds)


def timing(process: Process) -> dict[str, Any]:
    """The time and the chance that a process has."""
    world = process.world
    return {
        "clock": process.clock,
        "monotonic": process.monotonic,
        "sleep": world.sleep,
        "random": lambda: world.choices["jitter"].below(100) / 100,
    }


@dataclass
class Simulation:
    """One history.

    Args:
        choices: what it follows from.
        steps: after how many the faults cease and the clients have done.
        operations: the app's.
        others: other apps' on the same ledger, each with processes of its own.
        ledger: what is tested.
        owners: whose ledgers there are.
        rewards: whether workers grant them meanwhile.
        tell: is told every step.
    """

    choices: Choices
    steps: int
    operations: type[BaseLedgerOperations] = ExampleAppOperations
    others: Sequence[type[BaseLedgerOperations]] = (GameOperations,)
    ledger: Ledger = shared_ledger
    owners: Sequence[str] = ("ada", "bob")
    rewards: bool = True
    tell: Callable[[str], None] | None = None
    answers: list[Answer] = field(default_factory=list)
    books: list[Book] = field(default_factory=list)
    found: list[Violation] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.world = World(self.choices, TABLES, index=INDEX, tell=self.tell)
        self._store = self._store_of(self.world.dynamodb)
        self._started = 0
        self._apps = {app.APP: app for app in (self.operations, *self.others)}
        self._servers = {name: self._start("server") for name in self._apps}
        self._lambdas = {
            name: [self._start("lambda") for _ in range(LAMBDAS)] for name in self._apps
        }
        self._queue: list[str] = []
        self._due: list[tuple[str, Reward]] = []
        self._rewards = [self._reward(days) for days in range(PERIODS)] if self.rewards else []

    def run(self) -> list[Violation]:
        """Live it, to its end; what contradicts the invariants."""
        world = self.world
        for number, reward in enumerate(self._rewards):
            world.spawn(f"schedule-{number}", partial(self._schedule, reward))
        for number in range(1 + self.choices["size"].below(CLIENTS)):
            world.spawn(f"client-{number}", partial(self._client, number))
        if self.rewards:
            for number in range(1 + self.choices["size"].below(WORKERS)):
                world.spawn(f"worker-{number}", partial(self._worker, number))
        world.run(until=lambda world: world.steps >= self.steps)
        world.calm = True
        world.tell("the faults cease", of="")
        world.spawn("settle", self._settle)
        world.run()
        for key in self._accounts():
            self.books.append(Book.of(self._store, key))
            self.found += violations(self.books[-1], self.answers)
        return self.found

    # Who is at work

    def _client(self, number: int) -> None:
        """Somebody who posts, repeats, and looks, until the faults cease."""
        world, choices = self.world, self.choices[f"client-{number}"]
        count = 0
        while not world.calm and not choices.exhausted:
            count += 1
            app, request = self._request(f"{number}-{count}", choices)
            if choices.chance(0.05) and self.rewards:
                self._verify(account_key(request.owner_id, self._unit_of(app, request)))
                continue
            while self._post(
                app, request, choices
            ).outcome is Outcome.IN_DOUBT and not choices.chance(0.2):
                world.sleep(choices.below(10) / 10)
            world.sleep(choices.below(3) / 100)

    def _request(self, nonce: str, choices: Stream) -> tuple[str | None, OperationRequest]:
        """A request, and the app that posts it."""
        asked = [(one.app, one.request) for one in self.answers[-12:]]
        app = self.operations.APP
        if self.others:
            app = choices.of(list(self._apps))
        if asked and choices.chance(0.3):  # once more, by this client or another one
            before = choices.of(asked)
            if not choices.chance(0.2):
                return before
            nonce = before[1].nonce
        config = self._apps[app].get_operation_config()
        taking = [name for name, one in config.items() if one.amount < 0]  # so that credits run out
        operation = choices.of(taking if choices.chance(0.4) else list(config))
        amount = None
        if (least := config[operation].magnitude_min) is not None and choices.chance(0.7):
            amount = least + choices.below(MAGNITUDES)
        owner_id = choices.of(self.owners)
        if choices.chance(0.1):  # nonces may hold what joins them to an owner
            nonce = choices.of(("1", "b#1", "2", "b#2"))
        request = OperationRequest.model_construct(
            owner_id=owner_id, operation=operation, nonce=nonce, amount=amount, metadata={}
        )
        return app, request

    def _post(self, app: str | None, request: OperationRequest, choices: Stream) -> Answer:
        world = self.world
        process = self._free_process(app, choices)
        process.busy = True
        begun = world.now
        world.tell(f"post {self._in_words(request)} at {process.name}")
        try:
            if process.post is None:
                process.post = self.ledger(process, self._apps[app])
            post = process.post
            asked = partial(Answer.of, request, post, now=lambda: world.now)
            answer = world.invoke(process, asked)
        except CrashedError:
            answer = Answer(request=request, outcome=Outcome.IN_DOUBT, begun=begun, ended=world.now)
        answer = replace(answer, unit=self._unit_of(app, request), app=app)
        process.busy = False
        world.tell(f"{answer.outcome}: {request.owner_id} {request.nonce}{_entry_in_words(answer)}")
        self.answers.append(answer)
        return answer

    def _verify(self, key: str) -> None:
        """An audit amid all this must not cry wolf."""
        process = self._start("auditor")
        processor = OperationProcessor(self._store_of(process), self.operations, **timing(process))
        read = processor.budget(TIMEOUT_SECONDS).call
        audit = partial(
            audit_store, self._store_of(process), key, read=read, sleep=self.world.sleep
        )
        try:
            report = self.world.invoke(process, audit)
        except (LedgerError, CrashedError):
            return
        if not report.valid:
            self.found.append(Violation("verify_tells_the_truth", key, f"{report.discrepancies}"))

    def _schedule(self, reward: Reward) -> None:
        """Begins a sweep at some time; who has an entry then is to be rewarded by it."""
        self.world.sleep(self.choices["schedule"].below(STARTS) / 100)
        self._queue += [
            one.model_dump_json() for one in Segment.all_of(reward, SEGMENTS, BEGINNING)
        ]
        self._due += [(key, reward) for key in self._rewarded_accounts(reward)]

    def _worker(self, number: int) -> None:
        """A worker of the scheduled function. Some messages come twice, as after a crash."""
        world, choices = self.world, self.choices[f"worker-{number}"]
        while not world.calm and not choices.exhausted:
            world.wait_for(lambda: bool(self._queue), deadline=world.now + IDLE_SECONDS)
            world.sleep(choices.below(20) / 100)
            if self._queue:
                message = choices.of(self._queue)
                self._work_on(message)

    def _work_on(self, message: str) -> bool:
        """Take a segment on; False when it has to come again."""
        process = self._start("worker")
        segment = Segment.model_validate_json(message)
        world: Any = self.world
        (reward,) = (one for one in self._rewards if str(one.period) == segment.period)
        executor: Any = lambda _threads: Executor(world, process)  # noqa: E731
        sweep = Sweep(self._store_of(process), reward, **timing(process), executor=executor)
        try:
            after = world.invoke(process, partial(sweep.run, segment, seconds=SWEEP_SECONDS))
        except (LedgerError, CrashedError):
            return False
        if not after.finished:
            self._queue.append(after.model_dump_json())
        if message in self._queue:  # the other worker may have had it too
            self._queue.remove(message)
        return True

    def _settle(self) -> None:
        """Send requests in doubt, and some others, again without faults; finish the rewards."""
        choices = self.choices["settle"]
        last = {(one.account_key, one.nonce): one for one in self.answers}
        for owner_id in self.owners:
            self._post(
                self.operations.APP,
                OperationRequest.model_construct(
                    owner_id=owner_id,
                    operation=LedgerOperationType.CREDIT_ADD,
                    nonce="last",
                    amount=None,
                    metadata={},
                ),
                choices,
            )
        for answer in last.values():
            if answer.outcome is not Outcome.IN_DOUBT and not choices.chance(0.3):
                continue
            if self._post(answer.app, answer.request, choices).outcome is Outcome.IN_DOUBT:
                what = f"{answer.request.nonce} is in doubt although nothing is in the way"
                self.found.append(Violation("no_doubt_without_faults", answer.account_key, what))
        while self._queue:
            assert self._work_on(self._queue[0])
        self._check_rewarded(self._due)
        for reward in self._rewards:  # and from the beginning, as a schedule that is repeated
            for segment in Segment.all_of(reward, 1, BEGINNING):
                assert self._work_on(segment.model_dump_json())
        for reward in self._rewards:
            self._check_rewarded([(key, reward) for key in self._rewarded_accounts(reward)])
        for reward in self._rewards[:1]:
            for key in self._rewarded_accounts(reward):
                self._check_marks(key)

    # What they need

    def _check_rewarded(self, due: list[tuple[str, Reward]]) -> None:
        for key, reward in due:
            if ("entries", entry_key(key, reward.nonce)) not in self.world.dynamodb.items:
                self.found.append(
                    Violation("exactly_once", key, f"there is no entry under {reward.nonce}")
                )

    def _rewarded_accounts(self, reward: Reward) -> list[str]:
        """The keys of the accounts that a reward is for."""
        keys = [key for table, key in self.world.dynamodb.items if table == "accounts"]
        return [key for key in keys if split_account_key(key)[1] == reward.unit]

    def _accounts(self) -> list[str]:
        """The key of every account that there may be."""
        configs = [
            config for app in self._apps.values() for config in app.get_operation_config().values()
        ]
        units = sorted({config.unit for config in configs})
        return [account_key(owner_id, unit) for owner_id in self.owners for unit in units]

    def _unit_of(self, app: str | None, request: OperationRequest) -> str:
        return self._apps[app].get_operation_config()[request.operation].unit

    def _check_marks(self, key: str) -> None:
        """A mark never goes back to an earlier period, though the sweeps of two periods overlap."""
        account = self._store.account(key, consistent=True)
        for reward in self._rewards:
            if not (reward.is_marked(account) or reward.is_overtaken(account)):
                what = f"the marks are {dict(account.marks)}, and {reward.nonce} is granted"
                self.found.append(Violation("mark_never_goes_back", key, what))

    def _free_process(self, app: str | None, choices: Stream) -> Process:
        """An app's server, which takes several requests at once, or a Lambda environment."""
        if self._servers[app].crashed:
            self._servers[app] = self._start("server")
        self._lambdas[app] = [
            self._start("lambda") if process.crashed else process for process in self._lambdas[app]
        ]
        free = [process for process in self._lambdas[app] if not process.busy]
        return choices.of([self._servers[app], *free])

    def _start(self, name: str) -> Process:
        self._started += 1
        return Process(self.world, f"{name}-{self._started}", is_server=name == "server")

    def _store_of(self, client: Any) -> SweepStore:
        return SweepStore(client, entries_table="entries", accounts_table="accounts")

    def _reward(self, days: int) -> Reward:
        day = (BEGINNING + timedelta(days=days)).date()
        name = next(iter(self.operations.SCHEDULED))
        return Reward.of(self.operations, str(name), Period.of(PeriodKind.DAY, day))

    def _in_words(self, request: OperationRequest) -> str:
        amount = "" if request.amount is None else f" {request.amount}"
        return f"{request.operation}{amount} {request.owner_id} {request.nonce}"


def _entry_in_words(answer: Answer) -> str:
    if answer.entry:
        return f" is entry {answer.entry.id}, balance {answer.entry.balance_after}"
    return "" if answer.balance is None else f" for a balance of {answer.balance}"
