"""The plan, by literal tables: the account before, the request, the outcome, the account after."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from functions.example_app.operations import ExampleAppOperationType
from ledger_core import (
    InsufficientBalanceError,
    InvalidRequestError,
    LedgerEntry,
    LedgerError,
    OperationConfig,
)
from ledger_core.account import GENESIS_HASH, Account, Mark
from ledger_core.errors import RequestState
from ledger_core.fields import BALANCE_MAX
from ledger_core.posting import Plan, Posting, duplicate_of, make_plan, plan_group
from tests.fakes import scripted_store
from tests.fakes.scripted_store import NEW
from tests.support import NOON, add, operation

MICROSECOND = timedelta(microseconds=1)
HOUR = timedelta(hours=1)
MORNING = NOON - 3 * HOUR
DAY = "DAILY_REWARD:day"
MONTH = "DAILY_REWARD:month"


def account(
    balance: int,
    entry_count: int,
    *,
    updated_at: datetime = MORNING,
    active_at: datetime = MORNING,
    marks: Mapping[str, str] | None = None,
) -> Account:
    """An account before the request; without an entry it has its defaults."""
    if not entry_count:
        return NEW
    known = scripted_store.account(balance, entry_count)
    return replace(
        known, created_at=MORNING, updated_at=updated_at, active_at=active_at, marks=marks or {}
    )


def posting(
    amount: int,
    nonce: str = "n",
    *,
    mark: Mark | None = None,
    begins: bool = True,
    is_active: bool = True,
) -> Posting:
    """A posting of CREDIT_ADD; its amount may be anything."""
    return Posting(add(1, nonce), amount, False, mark, begins, is_active)


def planned(posting: Posting, account: Account, now: datetime = NOON) -> Plan:
    """The plan of a posting that is not refused."""
    outcome = make_plan(posting, account, now)
    assert isinstance(outcome, Plan)
    return outcome


ACCEPTED = ("accepted", None)
INSUFFICIENT = ("insufficient_balance", RequestState.CHECKING_BALANCE)
NO_ACCOUNT = ("invalid", RequestState.VALIDATING)
TOO_LARGE = ("invalid", RequestState.CHECKING_BALANCE)


@pytest.mark.parametrize(
    ("balance", "entry_count", "amount", "begins", "outcome", "balance_after", "count_after"),
    [
        # before          request       outcome       after
        (0,           0,  1,    True,   ACCEPTED,     1,               1),
        (0,           0,  0,    True,   ACCEPTED,     0,               1),
        (0,           0,  -1,   True,   INSUFFICIENT, None,            None),
        (0,           0,  1,    False,  NO_ACCOUNT,   None,            None),
        (0,           0,  -1,   False,  NO_ACCOUNT,   None,            None),
        (0,           1,  1,    False,  ACCEPTED,     1,               2),
        (0,           1,  -1,   False,  INSUFFICIENT, None,            None),
        (0,           9,  0,    True,   ACCEPTED,     0,               10),
        (5,           3,  -4,   True,   ACCEPTED,     1,               4),
        (5,           3,  -5,   True,   ACCEPTED,     0,               4),
        (5,           3,  -6,   True,   INSUFFICIENT, None,            None),
        (BALANCE_MAX - 1, 1, 1, True,   ACCEPTED,     BALANCE_MAX,     2),
        (BALANCE_MAX, 1,  0,    True,   ACCEPTED,     BALANCE_MAX,     2),
        (BALANCE_MAX, 1,  -1,   True,   ACCEPTED,     BALANCE_MAX - 1, 2),
        (BALANCE_MAX, 1,  1,    True,   TOO_LARGE,     None,            None),
        (BALANCE_MAX - 1, 1, 2, True,   TOO_LARGE,     None,            None),
    ],
)  # fmt: skip
def test_balances(
    balance: int,
    entry_count: int,
    amount: int,
    begins: bool,
    outcome: tuple[str, RequestState | None],
    balance_after: int | None,
    count_after: int | None,
) -> None:
    """A balance ends between zero and its limit, and only some operations open an account."""
    result = make_plan(posting(amount, begins=begins), account(balance, entry_count), NOON)
    if isinstance(result, LedgerError):
        assert (result.code, result.state) == outcome
        assert (balance_after, count_after) == (None, None)
        return
    after = result.changes[0].after
    assert outcome == ACCEPTED
    assert (after.balance, after.entry_count) == (balance_after, count_after)
    assert (result.entry.balance_after, result.entry.id) == (balance_after, count_after)


def test_refusals_name_the_field_and_the_numbers() -> None:
    """A refusal names the wrong field, or the balance and the amount that is required."""
    insufficient = make_plan(posting(-6), account(5, 3), NOON)
    assert isinstance(insufficient, InsufficientBalanceError)
    assert (insufficient.balance, insufficient.required) == (5, 6)
    no_account = make_plan(posting(1, begins=False), account(0, 0), NOON)
    assert str(no_account) == "owner_id: has no account, and this operation opens none"
    too_large = make_plan(posting(7), account(BALANCE_MAX - 1, 3), NOON)
    limit = f"the balance is {BALANCE_MAX - 1} and cannot exceed {BALANCE_MAX}"
    assert str(too_large) == f"amount: {limit}"


def test_entry_is_the_request_on_the_account() -> None:
    """The entry has the request's fields and the account's next id, balance and hash."""
    request = add(4, "n").model_copy(update={"metadata": {"order": "7"}})
    before = account(5, 3)
    result = planned(Posting(request, 4, is_fixed=False), before)
    (change,) = result.changes
    expected = {
        "v": 1,
        "id": 4,
        "operation": "CREDIT_ADD",
        "owner_id": "ada",
        "unit": "CREDIT",
        "app": None,
        "amount": 4,
        "nonce": "n",
        "created_at": NOON,
        "updated_at": NOON,
        "balance_after": 9,
        "metadata": {"order": "7"},
        "prev_hash": f"{3:064}",
    }
    assert dict(result.entry) == {**expected, "hash": result.entry.hash}
    assert result.entry.hash == result.entry.computed_hash()
    assert LedgerEntry.model_validate(result.entry.model_dump()) == result.entry
    assert change.entries == (result.entry,)
    assert change.before is before
    assert change.after == Account(
        owner_id="ada",
        balance=9,
        entry_count=4,
        head_hash=result.entry.hash,
        created_at=MORNING,
        updated_at=NOON,
        active_at=NOON,
    )


def test_first_entry_opens_the_account() -> None:
    """The account is created and active at the time of its first entry, which links to genesis."""
    result = planned(posting(1, is_active=False), account(0, 0))
    after = result.changes[0].after
    assert result.entry.prev_hash == GENESIS_HASH
    assert (after.created_at, after.updated_at, after.active_at) == (NOON, NOON, NOON)


@pytest.mark.parametrize(
    ("updated_at", "now", "created_at"),
    [
        # last entry          clock               the entry's time
        (MORNING,             NOON,               NOON),
        (NOON - 2 * MICROSECOND, NOON,            NOON),
        (NOON - MICROSECOND,  NOON,               NOON),
        (NOON,                NOON,               NOON + MICROSECOND),
        (NOON + MICROSECOND,  NOON,               NOON + 2 * MICROSECOND),
        (NOON + HOUR,         NOON,               NOON + HOUR + MICROSECOND),
    ],
)  # fmt: skip
def test_time_goes_on_from_the_last_entry(
    updated_at: datetime,
    now: datetime,
    created_at: datetime,
) -> None:
    """An entry is later than the last one even if the clock is behind it."""
    result = planned(posting(1), account(5, 3, updated_at=updated_at), now)
    assert (result.entry.created_at, result.entry.updated_at) == (created_at, created_at)
    assert result.changes[0].after.updated_at == created_at


def test_time_is_utc() -> None:
    """A clock with another offset gives the same instant, in UTC."""
    tokyo = timezone(timedelta(hours=9))
    result = planned(posting(1), account(0, 0), NOON.astimezone(tokyo))
    assert result.entry.created_at == NOON
    assert result.entry.created_at.tzinfo is UTC


@pytest.mark.parametrize(
    ("marks", "mark", "marks_after"),
    [
        # before               mark                      after
        ({},                   None,                     {}),
        ({DAY: "2026-11-21"},  None,                     {DAY: "2026-11-21"}),
        ({},                   Mark(DAY, "2026-11-22"),  {DAY: "2026-11-22"}),
        ({DAY: "2026-11-21"},  Mark(DAY, "2026-11-22"),  {DAY: "2026-11-22"}),
        ({DAY: "2026-11-22"},  Mark(DAY, "2026-11-22"),  {DAY: "2026-11-22"}),
        ({DAY: "2026-11-23"},  Mark(DAY, "2026-11-22"),  {DAY: "2026-11-23"}),
        ({MONTH: "2026-12"},   Mark(DAY, "2026-11-22"),  {MONTH: "2026-12", DAY: "2026-11-22"}),
    ],
)  # fmt: skip
def test_marks_never_go_back(
    marks: dict[str, str],
    mark: Mark | None,
    marks_after: dict[str, str],
) -> None:
    """A mark is noted beside the others, and left out if a later period is noted already."""
    before = account(5, 3, marks=marks)
    result = planned(posting(1, mark=mark), before)
    assert result.changes[0].after.marks == marks_after
    assert result.entry.balance_after == 6
    assert before.marks == marks


@pytest.mark.parametrize(
    ("is_active", "active_at"),
    [
        # request  account after
        (True,     NOON),
        (False,    MORNING),
    ],
)  # fmt: skip
def test_only_the_owner_is_active(is_active: bool, active_at: datetime) -> None:
    """An entry that a schedule posts moves `updated_at` and not `active_at`."""
    after = planned(posting(1, is_active=is_active), account(5, 3)).changes[0].after
    assert (after.active_at, after.updated_at, after.created_at) == (active_at, NOON, MORNING)


def test_plan_depends_on_its_arguments_only() -> None:
    """The same posting, account and time give the same plan."""
    assert make_plan(posting(1), account(5, 3), NOON) == make_plan(posting(1), account(5, 3), NOON)


@pytest.mark.parametrize(
    ("balance", "entry_count", "amounts", "fitting", "balances"),
    [
        # before          requests       that fit    balances after them
        (0,           0,  [],            [],         []),
        (2,           1,  [1],           [0],        [3]),
        (2,           1,  [1, -3, 5],    [0, 1, 2],  [3, 0, 5]),
        (2,           1,  [-9, 1, -3],   [1, 2],     [3, 0]),
        (2,           1,  [-1, -2, -1],  [0, 2],     [1, 0]),
        (2,           1,  [-3, -4],      [],         []),
        (0,           0,  [-1, 1, -1],   [1, 2],     [1, 0]),
        (BALANCE_MAX, 1,  [1, -1, 1],    [1, 2],     [BALANCE_MAX - 1, BALANCE_MAX]),
    ],
)  # fmt: skip
def test_groups(
    balance: int,
    entry_count: int,
    amounts: list[int],
    fitting: list[int],
    balances: list[int],
) -> None:
    """Each posting is planned after those before it; a posting that does not fit is left out."""
    before = account(balance, entry_count)
    postings = [posting(amount, f"n{number}") for number, amount in enumerate(amounts)]
    change, fit = plan_group(postings, before, NOON)
    assert fit == [postings[number] for number in fitting]  # the same objects
    assert [entry.balance_after for entry in change.entries] == balances
    assert [entry.nonce for entry in change.entries] == [f"n{number}" for number in fitting]
    assert change.before is before
    assert change.after.balance == [balance, *balances][-1]
    assert change.after.entry_count == entry_count + len(fitting)


def test_group_in_which_no_posting_fits_changes_nothing() -> None:
    """Without a posting that fits, the account after is the account before."""
    before = account(2, 1)
    change, fit = plan_group([posting(-3)], before, NOON)
    assert (change.entries, change.after, fit) == ((), before, [])


def test_entries_of_a_group_follow_each_other() -> None:
    """The entries of a group have consecutive ids and times, and each links to the one before."""
    change, _ = plan_group([posting(1, nonce) for nonce in "abc"], account(5, 3), NOON)
    assert [entry.id for entry in change.entries] == [4, 5, 6]
    hashes = [f"{3:064}", *(entry.hash for entry in change.entries)]
    assert [entry.prev_hash for entry in change.entries] == hashes[:-1]
    assert change.after.head_hash == hashes[-1]
    times = [entry.created_at for entry in change.entries]
    assert times == [NOON, NOON + MICROSECOND, NOON + 2 * MICROSECOND]


def test_posting_of_a_group_fits_on_the_account_after_the_postings_before_it() -> None:
    """A posting that opens no account fits after a posting that opens it, and keeps its mark."""
    mark = Mark(DAY, "2026-11-22")
    early = posting(1, "early", begins=False)
    late = posting(2, "late", mark=mark, begins=False, is_active=False)
    first = posting(5, "first")
    change, fit = plan_group([early, first, late, posting(1, "last")], account(0, 0), NOON)
    assert [fitting.request.nonce for fitting in fit] == ["first", "late", "last"]
    assert change.after.marks == {DAY: "2026-11-22"}
    assert change.after.balance == 8


FIXED = OperationConfig(amount=-5)
CHOSEN = OperationConfig(amount=10, magnitude_min=1, magnitude_max=99)


@pytest.mark.parametrize(
    ("config", "asked", "amount", "is_fixed"),
    [
        # config  caller  posting
        (FIXED,   None,   -5,   True),
        (CHOSEN,  None,   10,   False),
        (CHOSEN,  1,      1,    False),
        (CHOSEN,  99,     99,   False),
        (FIXED,   5,      None, None),
        (CHOSEN,  100,    None, None),
    ],
)  # fmt: skip
def test_postings(
    config: OperationConfig,
    asked: int | None,
    amount: int | None,
    is_fixed: bool | None,
) -> None:
    """A posting has the amount that the configuration gives or lets the caller choose."""
    request = operation(amount=asked)
    if amount is None:
        with pytest.raises(InvalidRequestError, match=r"^amount: "):
            Posting.of(request, config)
        return
    result = Posting.of(request, config)
    assert (result.request, result.amount, result.is_fixed) == (request, amount, is_fixed)
    assert (result.mark, result.begins, result.is_active) == (None, True, True)


def test_posting_of_a_schedule() -> None:
    """A posting keeps its mark, `begins` and `is_active`."""
    mark = Mark(DAY, "2026-11-22")
    result = Posting.of(operation(), FIXED, mark=mark, begins=False, is_active=False)
    assert (result.mark, result.begins, result.is_active) == (mark, False, False)


@pytest.mark.parametrize(
    ("is_fixed", "amount", "order", "replay"),
    [
        # request                  the stored entry has amount 4 and order 7
        (False,   4,  "7",         True),
        (False,   5,  "7",         False),
        (False,   4,  "8",         False),
        (True,    4,  "7",         True),
        (True,    5,  "7",         True),
        (True,    5,  "8",         False),
    ],
)  # fmt: skip
def test_duplicates(is_fixed: bool, amount: int, order: str, replay: bool) -> None:
    """A duplicate is a replay if its request is the same, but for an amount that the app sets."""
    request = add(4, "n").model_copy(update={"metadata": {"order": "7"}})
    entry = account(5, 3).next_entry(request, amount=4, now=NOON)
    again = request.model_copy(update={"metadata": {"order": order}})
    duplicate = duplicate_of(Posting(again, amount, is_fixed), entry)
    assert (duplicate.entry, duplicate.replay) == (entry, replay)
    assert duplicate.state == RequestState.CHECKING_NONCE


@pytest.mark.parametrize(
    ("app", "other", "replay"),
    [(None, None, True), ("game", "game", True), ("game", "club", False), (None, "game", False)],
)
def test_duplicate_of_another_app_is_no_replay(
    app: str | None, other: str | None, replay: bool
) -> None:
    """An owner's nonce is the same in every app; the same operation of another app is not."""
    request = add(4, "n").model_copy(update={"nonce": "@self:n"})
    entry = account(5, 3).next_entry(request, amount=4, now=NOON, app=app)
    assert duplicate_of(Posting(request, 4, is_fixed=False, app=other), entry).replay is replay


def test_duplicate_of_another_operation_is_no_replay() -> None:
    """The same nonce for another operation is a different request."""
    entry = account(5, 3).next_entry(add(4, "n"), amount=4, now=NOON)
    other = operation(ExampleAppOperationType.CONTENT_CREATION, "n")
    assert not duplicate_of(Posting(other, 4, is_fixed=True), entry).replay
