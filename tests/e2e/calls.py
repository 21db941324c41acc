"""Every call of DynamoDB in the source: what makes the ledger make it, what is told then, and what when it fails."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ledger_core.rewards import Segment, Tally
from tests.e2e.world import Told, World
from tests.support import NOON, add, operation, spend

ACCOUNT, APPEND, LOOK_UP, QUERY = (
    "store._account",
    "store.transact",
    "store.look_up",
    "store._query",
)
TABLE_IDS = "store.table_ids"
SCAN, APPEND_ALL, OWNERS_WITH = "sweep_store.accounts", "store.transact", "sweep_store.owners_with"
RUN, RUN_BEFORE = "runs._update_once", "runs._latest"

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


def busy(state: str) -> Told:
    """503, to be asked again; the code tells what the fault was."""
    return {"status": 503, "state": state, "retry-after": "1"}


@dataclass(frozen=True, eq=False)
class Way:
    """How a call comes about. What is asked is about something else each time, by number."""

    name: str
    call: str
    """The function that makes it."""
    ask: Callable[[World, int], Told]
    calls: Sequence[str]
    """What it takes, in order, when nothing fails."""
    told: Told
    """Of the answer, what matters."""
    late: Told
    """The same, when the call fails all the time that there is."""
    again: Told | None = None
    """The same, for who asks again though it is done, unless that is all the same."""
    given: Callable[[World, int], object] = World.owner
    """What is done before."""
    passes: int = 0
    """How often the same call is made before the one that is meant."""

    @property
    def position(self) -> int:
        """How many calls come before the one that is meant."""
        return [place for place, call in enumerate(self.calls) if call == self.call][self.passes]

    def tried(self, times: int) -> list[str]:
        """What is called when it is made so many times."""
        return [
            *self.calls[: self.position],
            *[self.call] * times,
            *self.calls[self.position + 1 :],
        ]


def post(world: World, number: int) -> Told:
    return world.post(add(5, "new", owner_id=f"owner-{number}"))


def post_again(world: World, number: int) -> Told:
    return world.post(operation(owner_id=f"owner-{number}"))


def spend_too_much(world: World, number: int) -> Told:
    return world.post(spend(9, "much", owner_id=f"owner-{number}"))


def spend_all(world: World, number: int) -> Told:
    return world.post(spend(3, "all", owner_id=world.owner(number)))


def balance(world: World, number: int) -> Told:
    return world.get(f"/ledger/owner-{number}/balance")


def balance_at_noon(world: World, number: int) -> Told:
    return world.get(f"/ledger/owner-{number}/balance", at="2026-11-22T12:00:00Z")


def history(world: World, number: int, **query: str) -> Told:
    told = world.get(f"/ledger/owner-{number}/entries", **query)
    return {**told, "nonces": [entry["nonce"] for entry in told.get("entries", ())]}


def filtered_history(world: World, number: int) -> Told:
    return history(world, number, operation="SIGNUP_CREDIT")


def verify(world: World, number: int) -> Told:
    return world.get(f"/ledger/owner-{number}/verify")


def table_ids(world: World, number: int) -> Told:
    return world.table_ids(number)


def one_owner(world: World, number: int) -> object:
    return world.owner(1)


def marked(world: World, number: int) -> object:
    """One owner who has the reward of a later day."""
    return one_owner(world, 1) and world.ask(sweep, 29)


def sweep(world: World, number: int) -> Told:
    return world.sweep(f"2026-11-{number:02}")


def sweep_rest(world: World, number: int) -> Told:
    return world.sweep(f"2026-11-{number:02}", scanned=True, postponed=["owner-1"])


def run(number: int) -> tuple[str, Segment]:
    """The only segment of a run of a period, in which so many owners were rewarded."""
    one = Segment(
        operation="DAILY_REWARD",
        period=f"2026-11-{number:02}",
        segment=0,
        segments=1,
        started_at=NOON,
        scanned=True,
        tally=Tally(granted=number),
    )
    return f"ledger:daily-reward:{one.period}", one


def finish(world: World, number: int) -> Told:
    total = world.runs.finish(*run(number))
    return {"complete": total is not None and total.granted == number}


def tell(world: World, number: int) -> Told:
    world.runs.mark_reported(*run(number))
    return {"told": world.runs.finish(*run(number)) is None}


def rewarded(world: World, number: int) -> Told:
    return {"as recorded": world.runs.rewarded(run(number)[0]) == number}


VERIFIED = {"status": 200, "valid": True, "entries_checked": 1, "discrepancies": []}
PAGE = {"status": 200, "nonces": ["n"], "next_cursor": None}
LATE, RAISED = busy("Processing"), {"state": "Processing"}
POST = (post, [ACCOUNT, APPEND], ENTRY)
SWEEP = (sweep, [SCAN, APPEND_ALL], GRANTED)
VERIFY = (verify, [QUERY, ACCOUNT, QUERY], VERIFIED, LATE)

WAYS = [
    Way("post to an owner not met before", ACCOUNT, *POST, busy("CheckingBalance"), DUPLICATE),
    Way("post", APPEND, *POST, LATE, DUPLICATE),
    Way("post what is stored", APPEND, post_again, [ACCOUNT, APPEND], DUPLICATE, LATE),
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
        given=spend_all,
    ),
    Way("balance", ACCOUNT, balance, [ACCOUNT], BALANCE, LATE),
    Way("balance at noon", QUERY, balance_at_noon, [QUERY], BALANCE, LATE),
    Way("history", QUERY, history, [QUERY], PAGE, LATE),
    Way("filtered history", QUERY, filtered_history, [QUERY], PAGE, LATE),
    Way("verify, the last entry", QUERY, *VERIFY),
    Way("verify, the head", ACCOUNT, *VERIFY),
    Way("verify, the entries", QUERY, *VERIFY, passes=1),
    Way("verify, the table", TABLE_IDS, table_ids, [TABLE_IDS], {"ids": [1]}, RAISED),
    Way("sweep, the reading", SCAN, *SWEEP, RAISED, ALREADY, one_owner),
    Way("sweep, the writing", APPEND_ALL, *SWEEP, UNFINISHED, ALREADY, one_owner),
    Way(
        "sweep of a day before",
        OWNERS_WITH,
        sweep,
        [SCAN, OWNERS_WITH, APPEND_ALL],
        GRANTED,
        RAISED,
        ALREADY,
        marked,
    ),
    Way(
        "sweep of who was put off",
        ACCOUNT,
        sweep_rest,
        [ACCOUNT, APPEND_ALL],
        GRANTED,
        RAISED,
        ALREADY,
        one_owner,
    ),
    Way("end of a run", RUN, finish, [RUN], {"complete": True}, RAISED),
    Way("run that is told of", RUN, tell, [RUN, RUN], {"told": True}, RAISED, given=finish),
    Way(
        "run of the day before",
        RUN_BEFORE,
        rewarded,
        [RUN_BEFORE],
        {"as recorded": True},
        RAISED,
        given=finish,
    ),
]
