"""Each call of DynamoDB in the source: a request that makes it, its result and its failure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ledger_core.rewards import Segment, Tally
from tests.e2e.world import Result, World
from tests.support import NOON, add, operation, spend

ACCOUNT = "store._account"
APPEND = "store.transact"
LOOK_UP = "store.look_up"
QUERY = "store._query"
TABLE_IDS = "store.table_ids"
SCAN = "sweep_store.accounts"
ACCOUNTS_WITH = "sweep_store.accounts_with"
RUN = "runs._update_once"
RUN_BEFORE = "runs._latest"

ENTRY = {"status": 200, "amount": 5, "balance_after": 8}
DUPLICATE = {"status": 409, "code": "duplicate_nonce", "state": "CheckingNonce", "replay": True}
REFUSED = {
    "status": 402,
    "code": "insufficient_balance",
    "state": "CheckingBalance",
    "balance": 3,
    "required": 9,
}
BALANCE = {"status": 200, "balance": 3, "entry_count": 1}
GRANTED = {"finished": True, "granted": 1, "already": 0}
ALREADY = {"finished": True, "granted": 0, "already": 1}
UNFINISHED = {"finished": False, "granted": 0, "already": 0}


def busy(state: str) -> Result:
    """The answer 503, in a state. The fault decides the code."""
    return {"status": 503, "state": state, "retry-after": "1"}


@dataclass(frozen=True, eq=False)
class Way:
    """A way to a call of DynamoDB: a request that makes the call.

    Attributes:
        name: the name of the way.
        call: the function that makes the call.
        ask: sends the request; the number says to which owner.
        calls: the calls of the request, in order, when no call fails.
        result: the fields of the answer that matter.
        failure: these fields when the call fails until the time is up.
        repeated: these fields when the request is sent again, if they differ.
        prepare: runs before the request.
        passes: how often the request makes the same call before this one.
    """

    name: str
    call: str
    ask: Callable[[World, int], Result]
    calls: Sequence[str]
    result: Result
    failure: Result
    repeated: Result | None = None
    prepare: Callable[[World, int], object] = World.owner
    passes: int = 0

    @property
    def position(self) -> int:
        """How many calls the request makes before this call."""
        return [place for place, call in enumerate(self.calls) if call == self.call][self.passes]

    def tried(self, times: int) -> list[str]:
        """The calls of the request when it makes this call so many times."""
        return [
            *self.calls[: self.position],
            *[self.call] * times,
            *self.calls[self.position + 1 :],
        ]


def post(world: World, number: int) -> Result:
    return world.post(add(5, "new", owner_id=f"owner-{number}"))


def post_again(world: World, number: int) -> Result:
    return world.post(operation(owner_id=f"owner-{number}"))


def spend_too_much(world: World, number: int) -> Result:
    return world.post(spend(9, "much", owner_id=f"owner-{number}"))


def spend_all(world: World, number: int) -> Result:
    return world.post(spend(3, "all", owner_id=world.owner(number)))


def balance(world: World, number: int) -> Result:
    return world.get(f"/ledger/owner-{number}/balance")


def balance_at_noon(world: World, number: int) -> Result:
    return world.get(f"/ledger/owner-{number}/balance", at="2026-11-22T12:00:00Z")


def history(world: World, number: int, **query: str) -> Result:
    result = world.get(f"/ledger/owner-{number}/entries", **query)
    return {**result, "nonces": [entry["nonce"] for entry in result.get("entries", ())]}


def filtered_history(world: World, number: int) -> Result:
    return history(world, number, operation="SIGNUP_CREDIT")


def verify(world: World, number: int) -> Result:
    return world.get(f"/ledger/owner-{number}/verify")


def table_ids(world: World, number: int) -> Result:
    return world.table_ids(number)


def single_owner(world: World, number: int) -> object:
    return world.owner(1)


def marked_owner(world: World, number: int) -> object:
    """An owner who has the reward of a later day."""
    world.owner(1)
    return world.ask(sweep, 29)


def sweep(world: World, number: int) -> Result:
    return world.sweep(f"2026-11-{number:02}")


def sweep_rest(world: World, number: int) -> Result:
    return world.sweep(f"2026-11-{number:02}", scanned=True, postponed=["owner-1"])


def run(number: int) -> tuple[str, Segment]:
    """The nonce and the only segment of a run that rewarded `number` owners."""
    segment = Segment(
        operation="DAILY_REWARD",
        period=f"2026-11-{number:02}",
        segment=0,
        segments=1,
        started_at=NOON,
        scanned=True,
        tally=Tally(granted=number),
    )
    return f"ledger:daily-reward:{segment.period}", segment


def finish(world: World, number: int) -> Result:
    total = world.runs.finish(*run(number))
    return {"complete": total is not None and total.granted == number}


def report(world: World, number: int) -> Result:
    world.runs.mark_reported(*run(number))
    return {"reported": world.runs.finish(*run(number)) is None}


def rewarded(world: World, number: int) -> Result:
    return {"as recorded": world.runs.rewarded(run(number)[0]) == number}


VERIFIED = {"status": 200, "valid": True, "entries_checked": 1, "discrepancies": []}
PAGE = {"status": 200, "nonces": ["n"], "next_cursor": None}
BUSY = busy("Processing")
RAISED = {"state": "Processing"}
POST = (post, [ACCOUNT, APPEND], ENTRY)
SWEEP = (sweep, [SCAN, APPEND], GRANTED)
VERIFY = (verify, [QUERY, ACCOUNT, QUERY], VERIFIED, BUSY)

WAYS = [
    Way("post to an unknown owner", ACCOUNT, *POST, busy("CheckingBalance"), DUPLICATE),
    Way("post", APPEND, *POST, BUSY, DUPLICATE),
    Way("post a stored request", APPEND, post_again, [ACCOUNT, APPEND], DUPLICATE, BUSY),
    Way(
        "spend too much",
        LOOK_UP,
        spend_too_much,
        [ACCOUNT, LOOK_UP],
        REFUSED,
        busy("CheckingNonce"),
    ),
    Way(
        "spend again",
        LOOK_UP,
        spend_all,
        [LOOK_UP],
        DUPLICATE,
        busy("CheckingNonce"),
        prepare=spend_all,
    ),
    Way("balance", ACCOUNT, balance, [ACCOUNT], BALANCE, BUSY),
    Way("balance at noon", QUERY, balance_at_noon, [QUERY], BALANCE, BUSY),
    Way("history", QUERY, history, [QUERY], PAGE, BUSY),
    Way("filtered history", QUERY, filtered_history, [QUERY], PAGE, BUSY),
    Way("verify, the last entry", QUERY, *VERIFY),
    Way("verify, the head", ACCOUNT, *VERIFY),
    Way("verify, the entries", QUERY, *VERIFY, passes=1),
    Way("verify, the table", TABLE_IDS, table_ids, [TABLE_IDS], {"ids": [1]}, RAISED),
    Way("sweep, the reading", SCAN, *SWEEP, RAISED, ALREADY, single_owner),
    Way("sweep, the writing", APPEND, *SWEEP, UNFINISHED, ALREADY, single_owner),
    Way(
        "sweep of a day before",
        ACCOUNTS_WITH,
        sweep,
        [SCAN, ACCOUNTS_WITH, APPEND],
        GRANTED,
        RAISED,
        ALREADY,
        marked_owner,
    ),
    Way(
        "sweep of postponed owners",
        ACCOUNT,
        sweep_rest,
        [ACCOUNT, APPEND],
        GRANTED,
        RAISED,
        ALREADY,
        single_owner,
    ),
    Way("end of a run", RUN, finish, [RUN], {"complete": True}, RAISED),
    Way("reported run", RUN, report, [RUN, RUN], {"reported": True}, RAISED, prepare=finish),
    Way(
        "run of the day before",
        RUN_BEFORE,
        rewarded,
        [RUN_BEFORE],
        {"as recorded": True},
        RAISED,
        prepare=finish,
    ),
]
