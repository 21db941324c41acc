"""The plain loop of posting: precedence, retries, pauses, deadlines, remembered accounts."""

import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from functions.example_app.operations import ExampleAppOperations, ExampleAppOperationType
from ledger_core import (
    ContentionError,
    DuplicateNonceError,
    InsufficientBalanceError,
    InvalidRequestError,
    LedgerError,
    LedgerOperationType,
    UnavailableError,
    UnknownOperationError,
)
from ledger_core.account import Account, Mark
from ledger_core.dynamodb import Cancelled
from ledger_core.errors import RequestState, StoreError
from ledger_core.fields import BALANCE_MAX
from ledger_core.observability import measure_request
from ledger_core.posting import ACCOUNTS_MAX, TIMEOUT_SECONDS, OperationProcessor
from ledger_core.posting.retry import PAUSE_SECONDS_BASE, PAUSE_SECONDS_MAX, PAUSES_MAX
from tests.fakes.scripted_store import DONE, NEW, Bench, ScriptedStore, account, moved, stored
from tests.support import NOON, add, operation, spend

AnyOperation = ExampleAppOperationType | LedgerOperationType
SIGNUP = LedgerOperationType.SIGNUP_CREDIT
DAILY = LedgerOperationType.DAILY_REWARD
SPEND = LedgerOperationType.CREDIT_SPEND
ADD = LedgerOperationType.CREDIT_ADD
CREATE = ExampleAppOperationType.CONTENT_CREATION
ACCESS = ExampleAppOperationType.CONTENT_ACCESS
BUSY = Cancelled(busy=ContentionError("conflict"))
MARK = Mark("DAILY_REWARD:day", "2026-11-22")


@pytest.mark.parametrize(
    ("balance", "name", "amount", "code", "balance_after"),
    [
        # balance  operation  amount  answer                  balance after
        (0,        DAILY,     None,   "accepted",             1),
        (0,        SIGNUP,    None,   "accepted",             3),
        (0,        ADD,       None,   "accepted",             10),
        (0,        ADD,       25,     "accepted",             25),
        (0,        ADD,       10**6,  "accepted",             10**6),
        (0,        ADD,       10**6 + 1, "invalid",           0),
        (0,        SIGNUP,    3,      "invalid",              0),
        (0,        DAILY,     1,      "invalid",              0),
        (0,        SPEND,     None,   "insufficient_balance", 0),
        (1,        SPEND,     None,   "accepted",             0),
        (7,        SPEND,     7,      "accepted",             0),
        (7,        SPEND,     8,      "insufficient_balance", 7),
        (4,        CREATE,    None,   "insufficient_balance", 4),
        (5,        CREATE,    None,   "accepted",             0),
        (5,        CREATE,    5,      "invalid",              5),
        (0,        ACCESS,    None,   "accepted",             0),
    ],
)  # fmt: skip
def test_answers(
    processor: OperationProcessor,
    balance: int,
    name: AnyOperation,
    amount: int | None,
    code: str,
    balance_after: int,
) -> None:
    """Each operation is answered by its configuration and the balance before it."""
    if balance:
        processor.process(add(balance, "before"))
    answer = "accepted"
    try:
        processor.process(operation(name, amount=amount))
    except LedgerError as error:
        answer = error.code
    assert answer == code
    assert processor.store.account("ada", consistent=True).balance == balance_after


def test_constants_are_what_operators_read() -> None:
    """A request has ten seconds, and a process remembers four thousand accounts."""
    assert (TIMEOUT_SECONDS, ACCOUNTS_MAX) == (10.0, 4096)


def test_operation_of_another_app_is_unknown() -> None:
    """An operation that the app did not declare is refused; the message lists all operations."""
    names = ", ".join((*LedgerOperationType, *ExampleAppOperationType))
    unknown = f"^operation: must be one of {names}$"
    with pytest.raises(UnknownOperationError, match=unknown) as refusal:
        Bench().processor.config_of("LEVEL_UP")
    assert refusal.value.state == RequestState.VALIDATING


def test_account_is_read_at_half_the_cost_and_written_with_its_mark() -> None:
    """The read is eventually consistent; each transaction notes the mark on the account."""
    bench = Bench(NEW, moved(7, 3), DONE)
    bench.processor.process(add(1, "n"), mark=MARK)
    assert bench.store.calls[0] == ("account", {"owner_id": "ada", "consistent": False})
    assert bench.befores == [NEW, account(7, 3)]
    noted = [change.after.marks for change in bench.changes]
    assert noted == [{MARK.name: MARK.period}] * 2


def test_mark_that_is_overtaken_is_left_out() -> None:
    """If a later period was noted meanwhile, the entry is written without its mark."""
    known = account(7, 3)
    later = Account(
        owner_id="ada",
        balance=8,
        entry_count=4,
        head_hash=f"{4:064}",
        created_at=NOON,
        updated_at=NOON,
        active_at=NOON,
        marks={MARK.name: "2026-11-23"},
    )
    bench = Bench(known, Cancelled(account=later), DONE)
    assert bench.processor.process(add(1, "n"), mark=MARK).id == 5
    noted = [change.after.marks for change in bench.changes]
    assert noted == [{MARK.name: "2026-11-22"}, {MARK.name: "2026-11-23"}]


def test_stale_account_is_replaced_by_the_reason_without_a_read() -> None:
    """A new plan on the account in the reason is sent at once under a new token."""
    bench = Bench(NEW, moved(7, 3), DONE)
    entry = bench.processor.process(add(1, "n"))
    assert bench.calls == ["account", "transact", "transact"]
    assert (entry.id, entry.balance_after, entry.prev_hash) == (4, 8, f"{3:064}")
    assert len(set(bench.tokens)) == 2
    assert bench.pauses == []


def test_pauses_begin_at_the_second_lost_race_and_grow() -> None:
    """From the second lost race on, a writer pauses, then reads strongly consistent."""
    races = [moved(0, 1)]
    for count in (2, 4, 6):
        races += [moved(0, count), account(0, count + 1)]  # type: ignore[list-item]  # a script
    bench = Bench(NEW, *races, DONE)
    assert bench.processor.process(add(1, "n")).id == 8
    assert bench.pauses == [PAUSE_SECONDS_BASE * factor for factor in (1, 2, 4)]
    assert bench.calls == ["account", "transact", "transact", *["account", "transact"] * 3]
    assert bench.reads == [False, True, True, True]


def test_conflict_beside_a_stale_account_pauses_before_the_first_retry() -> None:
    """If a reason is a conflict, a pause comes before the first retry too."""
    bench = Bench(NEW, moved(7, 3, is_busy=True), account(8, 4), DONE)
    assert bench.processor.process(add(1, "n")).id == 5
    assert bench.calls == ["account", "transact", "account", "transact"]
    assert bench.reads == [False, True]
    assert len(bench.pauses) == 1


@pytest.mark.parametrize("busy", [ContentionError("conflict"), UnavailableError("throttled")])
def test_conflict_alone_sends_the_same_transaction_again(busy: LedgerError) -> None:
    """After a pause, the transaction goes out again under its token, without a read."""
    bench = Bench(account(2, 1), Cancelled(busy=busy), DONE)
    assert bench.processor.process(add(1, "n")).id == 2
    assert bench.calls == ["account", "transact", "transact"]
    assert len(set(bench.tokens)) == 1
    assert len(bench.pauses) == 1


def test_conflict_alone_is_the_answer_when_the_time_is_up() -> None:
    """The error of the last try is raised, with the state Processing."""
    bench = Bench(NEW, Cancelled(busy=UnavailableError("throttled")))
    with pytest.raises(UnavailableError, match=r"^throttled$") as failure:
        bench.processor.process(add(1, "n"), timeout_seconds=0.01)
    assert failure.value.state == RequestState.PROCESSING


def test_duplicate_takes_precedence_over_a_stale_account() -> None:
    """If both conditions fail it is a duplicate, and the account in the reason is remembered."""
    original = stored(add(1, "n"), 1)
    both = Cancelled((original,), account(9, 5), ContentionError("conflict"))
    bench = Bench(NEW, both, DONE)
    with pytest.raises(DuplicateNonceError) as duplicate:
        bench.processor.process(add(1, "n"))
    assert (duplicate.value.entry, duplicate.value.replay) == (original, True)
    assert duplicate.value.state == RequestState.CHECKING_NONCE
    assert bench.pauses == []
    assert bench.processor.process(add(1, "n2")).id == 6
    assert bench.calls == ["account", "transact", "transact"]


@pytest.mark.parametrize(("amount", "replay"), [(1, True), (2, False)])
def test_duplicate_with_another_amount_is_no_replay(amount: int, replay: bool) -> None:
    """An amount that the caller chooses is part of the request."""
    original = stored(add(1, "n"), 1)
    bench = Bench(account(2, 1), Cancelled(stored=(original,)))
    with pytest.raises(DuplicateNonceError) as duplicate:
        bench.processor.process(add(amount, "n"))
    assert duplicate.value.replay is replay


def test_replay_of_a_fixed_amount_ignores_the_amount_configured_now() -> None:
    """A retry is a replay even if the app has changed the amount of the operation."""
    original = stored(operation(CREATE), -4)
    bench = Bench(account(9, 1), Cancelled(stored=(original,)))
    with pytest.raises(DuplicateNonceError) as duplicate:
        bench.processor.process(operation(CREATE))
    assert duplicate.value.replay


def test_unknown_outcome_is_resolved_under_the_same_token() -> None:
    """After a lost answer, the same entry is sent again under the same token."""
    bench = Bench(NEW, UnavailableError("lost"), ContentionError("conflict"), DONE)
    entry = bench.processor.process(add(1, "n"))
    assert len(set(bench.tokens)) == 1
    assert [change.entries for change in bench.changes] == [(entry,)] * 3
    assert len(bench.pauses) == 2


def test_account_is_forgotten_after_an_unknown_outcome() -> None:
    """After a write that ended in doubt, the next request reads the account again."""
    bench = Bench(NEW, DONE, UnavailableError("lost"), account(2, 2), DONE)
    assert bench.processor.process(add(1, "n1")).id == 1
    with pytest.raises(UnavailableError):
        bench.processor.process(add(1, "n2"), timeout_seconds=0)
    assert bench.processor.remembered("ada") is None
    assert bench.processor.process(add(1, "n3")).id == 3
    assert bench.calls == ["account", "transact", "transact", "account", "transact"]


@pytest.mark.parametrize("cause", [UnavailableError, ContentionError])
def test_retries_end_inside_the_deadline(cause: Callable[[str], LedgerError]) -> None:
    """A pause ends before the deadline, or the last error is raised."""
    bench = Bench(NEW, *[cause("busy")] * 50)
    with pytest.raises(LedgerError) as failure:
        bench.processor.process(add(1, "n"), timeout_seconds=5)
    assert isinstance(failure.value, cause)  # type: ignore[arg-type]  # a class
    assert failure.value.state == RequestState.PROCESSING
    assert 5 - PAUSE_SECONDS_MAX < sum(bench.pauses) <= 5
    assert max(bench.pauses) <= PAUSE_SECONDS_MAX


def test_first_call_is_made_even_if_no_time_is_left() -> None:
    """With a deadline in the past, the first call is made and no pause."""
    bench = Bench(NEW, DONE)
    with pytest.raises(UnavailableError) as failure:
        bench.processor.process(add(1, "n"), timeout_seconds=-1)
    assert (bench.calls, bench.pauses) == (["account"], [])
    assert failure.value.state == RequestState.PROCESSING


@pytest.mark.parametrize("answered", range(1, 5))
def test_no_call_begins_after_the_deadline(monkeypatch: pytest.MonkeyPatch, answered: int) -> None:
    """Slow calls that succeed use up the time too."""
    bench = Bench(NEW, moved(0, 1), moved(0, 2), account(0, 2), DONE)
    answer = bench.store._answer

    def answer_slowly(name: str, **arguments: Any) -> Any:
        bench.pauses.append(3)
        return answer(name, **arguments)

    monkeypatch.setattr(bench.store, "_answer", answer_slowly)
    with pytest.raises(LedgerError):
        bench.processor.process(add(1, "n"), timeout_seconds=3 * answered)
    assert len(bench.store.calls) == answered


def test_tries_are_bounded_even_if_much_time_is_left() -> None:
    """If other writers keep moving the account, the request fails with contention."""
    counts = range(2, 2 * PAUSES_MAX)
    lost = itertools.chain.from_iterable([moved(0, count), account(0, count)] for count in counts)
    bench = Bench(NEW, moved(0, 1), *lost)
    kept_moving = r"^Other writers kept moving this owner's balance\.$"
    with pytest.raises(ContentionError, match=kept_moving):
        bench.processor.process(add(1, "n"), timeout_seconds=1e6)
    assert len(bench.changes) == PAUSES_MAX + 1


def test_account_that_cannot_be_read_fails_while_checking_the_balance() -> None:
    """The failure has the state CheckingBalance."""
    bench = Bench(UnavailableError("down"))
    with pytest.raises(UnavailableError) as failure:
        bench.processor.process(add(1, "n"), timeout_seconds=0)
    assert failure.value.state == RequestState.CHECKING_BALANCE


def test_read_that_dynamodb_refuses_is_not_tried_again() -> None:
    """A read that DynamoDB refuses is made once."""
    bench = Bench(StoreError("no such table"))
    with pytest.raises(StoreError):
        bench.processor.process(add(1, "n"))
    assert bench.calls == ["account"]


@pytest.mark.parametrize(
    "refusal",
    [
        StoreError("no permission"),
        Cancelled(error=StoreError("no permission")),
    ],
)
def test_write_that_dynamodb_refuses_is_not_tried_again(refusal: Any) -> None:
    """A transaction that DynamoDB refuses is sent once, and its account is forgotten."""
    bench = Bench(NEW, refusal)
    with pytest.raises(StoreError, match=r"^no permission$") as failure:
        bench.processor.process(add(1, "n"))
    assert failure.value.state == RequestState.PROCESSING
    assert bench.calls == ["account", "transact"]
    assert bench.processor.remembered("ada") is None


def test_refusal_is_confirmed_before_it_is_given() -> None:
    """A read before the refusal finds a duplicate, enough credits, or too few credits."""
    original = stored(spend(5, "n"), -5)
    bench = Bench(NEW, (original, account(0, 2)))
    with pytest.raises(DuplicateNonceError) as duplicate:
        bench.processor.process(spend(5, "n"))
    assert (duplicate.value.entry, duplicate.value.replay) == (original, True)
    bench = Bench(NEW, (None, account(5, 2)), DONE)
    assert bench.processor.process(spend(5, "n")).balance_after == 0
    assert bench.befores == [account(5, 2)]
    bench = Bench(NEW, (None, account(4, 2)))
    with pytest.raises(InsufficientBalanceError) as refusal:
        bench.processor.process(spend(5, "n"))
    assert (refusal.value.balance, refusal.value.required) == (4, 5)
    assert refusal.value.state == RequestState.CHECKING_BALANCE
    assert bench.store.calls[1] == ("look_up", {"owner_id": "ada", "nonce": "n"})


def test_account_that_confirms_a_refusal_is_remembered() -> None:
    """The next request does not read the account again."""
    bench = Bench(NEW, (None, account(4, 2)), DONE)
    with pytest.raises(InsufficientBalanceError):
        bench.processor.process(spend(5, "n"))
    assert bench.processor.remembered("ada") == account(4, 2)
    assert bench.processor.process(spend(4, "n")).id == 3
    assert bench.calls == ["account", "look_up", "transact"]


def test_failed_confirmation_fails_while_checking_the_nonce() -> None:
    """The failure has the state CheckingNonce, and nothing is written."""
    for error in (UnavailableError("down"), ContentionError("conflict"), StoreError("malformed")):
        bench = Bench(NEW, error)
        with pytest.raises(type(error)) as failure:
            bench.processor.process(spend(5, "n"), timeout_seconds=0.01)
        assert failure.value.state == RequestState.CHECKING_NONCE
        assert bench.calls == ["account", "look_up"]


def test_operation_that_opens_no_account_needs_an_account() -> None:
    """The operation is refused if the owner has no account, or an erased one."""
    bench = Bench(NEW, (None, NEW))
    with pytest.raises(InvalidRequestError, match="has no account"):
        bench.processor.process(add(1, "n"), begins=False)
    bench = Bench(account(7, 3), Cancelled(account=NEW), (None, NEW))
    with pytest.raises(InvalidRequestError, match="has no account"):
        bench.processor.process(add(1, "n"), begins=False)
    assert len(bench.changes) == 1
    bench = Bench(NEW, (None, account(2, 1)), DONE)
    assert bench.processor.process(add(1, "n"), begins=False).id == 2


def test_balance_stops_at_its_limit() -> None:
    """A balance can reach BALANCE_MAX and not exceed it."""
    bench = Bench(account(BALANCE_MAX - 1, 1), DONE)
    assert bench.processor.process(add(1, "n")).balance_after == BALANCE_MAX
    bench = Bench(account(BALANCE_MAX, 1), (None, account(BALANCE_MAX, 1)))
    full = f"^amount: the balance is {BALANCE_MAX} and cannot exceed {BALANCE_MAX}$"
    with pytest.raises(InvalidRequestError, match=full) as refusal:
        bench.processor.process(add(1, "n"))
    assert refusal.value.state == RequestState.CHECKING_BALANCE
    bench = Bench(account(BALANCE_MAX, 1), (None, account(BALANCE_MAX - 1, 2)), DONE)
    assert bench.processor.process(add(1, "n")).balance_after == BALANCE_MAX


def test_attempts_and_stale_accounts_are_counted() -> None:
    """The metrics count each attempt, and each attempt that met a moved account."""
    lost = UnavailableError("lost")
    bench = Bench(NEW, moved(0, 1), BUSY, moved(0, 2), account(0, 2), lost, DONE)
    with measure_request() as metrics:
        bench.processor.process(add(1, "n"))
    assert (metrics.attempts, metrics.stale_heads, metrics.retries) == (3, 2, 3)


def test_refused_request_is_no_attempt() -> None:
    """A request that is refused without a transaction counts no attempt."""
    bench = Bench(NEW, (None, NEW))
    with measure_request() as metrics, pytest.raises(InsufficientBalanceError):
        bench.processor.process(spend(5, "n"))
    assert (metrics.attempts, metrics.stale_heads) == (0, 0)


def test_read_is_tried_again() -> None:
    """A read has the same retry budget as a write."""
    bench = Bench(UnavailableError("busy"), account(3, 1), UnavailableError("busy"))

    def read() -> Account:
        return bench.processor.store.account("ada", consistent=True)

    assert bench.processor.budget(TIMEOUT_SECONDS).call(read).balance == 3
    assert len(bench.pauses) == 1
    with pytest.raises(UnavailableError):
        bench.processor.budget(0).call(read)


def clock_that(*times: Any) -> Callable[[], datetime]:
    """A clock that gives or raises the next of `times` at each call."""
    left = iter(times)

    def tell() -> datetime:
        now = next(left)
        if isinstance(now, Exception):
            raise now
        assert isinstance(now, datetime)
        return now

    return tell


OFF = UnavailableError("the clock is off")


def test_clock_that_is_off_fails_before_a_refusal() -> None:
    """If the clock is off, even a request that would be refused fails with 503."""
    for request in (add(1, "n"), spend(5, "n")):
        bench = Bench(NEW)
        bench.clock = clock_that(OFF)
        with pytest.raises(UnavailableError, match=r"^the clock is off$"):
            bench.processor.process(request)
        assert bench.calls == ["account"]


def test_clock_that_is_off_is_compared_with_another_answer() -> None:
    """A remembered account is read again: the answer may show that the clock is right."""
    bench = Bench(NEW, DONE, account(1, 1), DONE)
    bench.clock = clock_that(NOON, OFF, NOON)
    bench.processor.process(add(1, "a"))
    assert bench.processor.process(add(1, "b")).id == 2
    assert bench.calls == ["account", "transact", "account", "transact"]


def test_clock_that_stays_off_fails() -> None:
    """The account is read again once and then forgotten, and nothing is written."""
    bench = Bench(NEW, DONE, account(1, 1))
    bench.clock = clock_that(NOON, OFF, OFF)
    bench.processor.process(add(1, "a"))
    with pytest.raises(UnavailableError, match=r"^the clock is off$"):
        bench.processor.process(add(1, "b"))
    assert bench.calls == ["account", "transact", "account"]
    assert bench.processor.remembered("ada") is None


def test_time_is_utc_wherever_the_process_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time zone of the machine does not change the time of an entry."""
    store: Any = ScriptedStore(NEW, DONE)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        entry = OperationProcessor(store, ExampleAppOperations).process(add(1, "n"))
    finally:
        monkeypatch.undo()
        time.tzset()
    assert abs(entry.created_at - datetime.now(UTC)) < timedelta(hours=1)


def test_token_fits_dynamodb() -> None:
    """A token has at most 36 characters, and each transaction has its own."""
    bench = Bench(account(2, 1), DONE, DONE)
    for nonce in ("a", "b"):
        bench.processor.process(add(1, nonce))
    assert len(set(bench.tokens)) == 2
    assert {len(token) for token in bench.tokens} == {32}


def read_owners(bench: Bench) -> list[str]:
    """The owners whose accounts were read."""
    calls = bench.store.calls
    return [arguments["owner_id"] for name, arguments in calls if name == "account"]


def test_account_is_remembered_after_its_entry() -> None:
    """The account after an entry is the account before the next one, without a read."""
    bench = Bench(NEW, DONE, DONE)
    assert bench.processor.remembered("ada") is None
    for nonce in ("a", "b"):
        bench.processor.process(add(1, nonce))
    assert bench.befores[1] == bench.changes[0].after
    assert bench.processor.remembered("ada") == bench.changes[1].after
    assert bench.calls == ["account", "transact", "transact"]


def test_process_remembers_the_accounts_used_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least recently used account is forgotten, and read again."""
    monkeypatch.setattr("ledger_core.posting.processor.ACCOUNTS_MAX", 2)
    ada, bob, eve = (Account(owner_id=owner_id) for owner_id in ("ada", "bob", "eve"))
    bench = Bench(ada, DONE, bob, DONE, DONE, eve, DONE, bob, DONE)
    for owner_id in ("ada", "bob", "ada", "eve", "bob"):
        nonce = f"n{len(bench.store.calls)}"
        bench.processor.process(add(1, nonce, owner_id=owner_id))
    assert read_owners(bench) == ["ada", "bob", "eve", "bob"]


def test_remembered_account_that_is_asked_for_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call of `remembered` counts as a use of the account."""
    monkeypatch.setattr("ledger_core.posting.processor.ACCOUNTS_MAX", 2)
    bench = Bench()
    for owner_id in ("ada", "bob", "eve"):
        bench.store.answers += [Account(owner_id=owner_id), DONE]
        bench.processor.process(add(1, "n", owner_id=owner_id))
        bench.processor.remembered("ada")
    owners = ("ada", "bob", "eve")
    known = [owner_id for owner_id in owners if bench.processor.remembered(owner_id)]
    assert known == ["ada", "eve"]
