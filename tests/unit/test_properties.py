"""Properties of entries, hashes, times and periods. PROVE=1 tries more; SEED repeats a run."""

import hashlib
import json
import sys
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import assume, given, seed
from hypothesis import strategies as st

from ledger_core import (
    InvalidRequestError,
    LedgerEntry,
    LedgerOperationType,
    OperationConfig,
    OperationRequest,
)
from ledger_core.account import Account
from ledger_core.dynamodb.decode import entry_from
from ledger_core.dynamodb.expressions import entry_item
from ledger_core.fields import (
    AMOUNT_MAX,
    BALANCE_MAX,
    METADATA_KEY_LENGTH_MAX,
    METADATA_KEYS_MAX,
    format_time,
)
from ledger_core.http.cursor import CURSOR_LENGTH_MAX, cursor_at, cursor_position
from ledger_core.keys import entry_key
from ledger_core.periods import Period, PeriodKind
from tests.chance import SEED, looking_at
from tests.support import DEEP

SETTINGS = looking_at(2000 if DEEP else 50)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
printable = st.characters(exclude_categories=["C", "Z"], exclude_characters="\ufffd")
nonces = st.text(printable, min_size=1, max_size=40).filter(
    lambda text: not text.startswith(("ledger:", "@"))
)
owner_ids = st.text(printable, min_size=1, max_size=40).filter(
    lambda text: not set(text) & set("#/?%\\") and text not in {".", ".."}
)
keys = st.text("ABCXYZabcxyz0189_.:-", min_size=1, max_size=METADATA_KEY_LENGTH_MAX)
metadatas = st.dictionaries(keys, texts, max_size=METADATA_KEYS_MAX).filter(
    lambda metadata: sum(len(text.encode()) for item in metadata.items() for text in item) <= 1024
)
times = st.datetimes(datetime(1970, 1, 2), datetime(9998, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001
amounts = st.integers(-AMOUNT_MAX, AMOUNT_MAX)


@st.composite
def entries(draw: st.DrawFn) -> LedgerEntry:
    """An entry of any valid request on any account."""
    request = OperationRequest(
        owner_id=draw(owner_ids),
        operation=draw(st.sampled_from(LedgerOperationType)),
        nonce=draw(nonces),
        metadata=draw(metadatas),
    )
    account = Account(
        owner_id=request.owner_id,
        balance=draw(st.integers(0, BALANCE_MAX)),
        entry_count=draw(st.integers(0, BALANCE_MAX)),
        head_hash=hashlib.sha256(draw(st.binary(max_size=4))).hexdigest(),
        updated_at=draw(st.none() | times),
    )
    return account.next_entry(request, amount=draw(amounts), now=draw(times))


@pytest.fixture(autouse=True)
def seed_is_printed() -> None:
    """The output of a failure has the seed."""
    sys.stdout.write(f"SEED={SEED}\n")


def canonical(value: Any) -> str:
    """The canonical JSON of RFC 8785 for the values of an entry."""
    if isinstance(value, Mapping):
        names = sorted(value, key=lambda name: name.encode("utf-16-be"))
        return "{" + ",".join(f"{canonical(name)}:{canonical(value[name])}" for name in names) + "}"
    if isinstance(value, int):
        return str(value)
    escapes = {
        "\b": "\\b",
        "\t": "\\t",
        "\n": "\\n",
        "\f": "\\f",
        "\r": "\\r",
        '"': '\\"',
        "\\": "\\\\",
    }
    return '"' + "".join(escapes.get(c, c if c >= " " else f"\\u{ord(c):04x}") for c in value) + '"'


@seed(SEED)
@SETTINGS
@given(entry=entries())
def test_entry_is_read_back_as_it_was_written(entry: LedgerEntry) -> None:
    """An entry is read back from its item and from its JSON."""
    assert entry_from(json.loads(json.dumps(entry_item(entry)))) == entry
    assert LedgerEntry.model_validate_json(entry.model_dump_json()) == entry


@seed(SEED)
@SETTINGS
@given(entry=entries())
def test_hash_is_of_the_canonical_json_that_a_client_gets(entry: LedgerEntry) -> None:
    """The hash of an entry is that of its JSON in the canonical form of RFC 8785."""
    fields = json.loads(entry.model_dump_json())
    claimed = fields.pop("hash")
    computed = hashlib.sha256(canonical(fields).encode()).hexdigest()
    assert claimed == computed == entry.computed_hash()


@seed(SEED)
@SETTINGS
@given(
    entry=entries(),
    other=entries(),
    field=st.sampled_from(sorted(set(LedgerEntry.model_fields) - {"hash"})),
)
def test_changed_field_changes_the_hash(entry: LedgerEntry, other: LedgerEntry, field: str) -> None:
    """An entry with a changed field does not fit its hash."""
    assume(getattr(entry, field) != getattr(other, field))
    assert entry.model_copy(update={field: getattr(other, field)}).computed_hash() != entry.hash


@seed(SEED)
@SETTINGS
@given(pairs=st.lists(st.tuples(owner_ids, nonces), min_size=2, max_size=2))
def test_no_two_requests_share_a_key(pairs: list[tuple[str, str]]) -> None:
    """Entries have the same key only if they have the same owner and nonce."""
    first, second = pairs
    assert (entry_key(*first) == entry_key(*second)) == (first == second)
    owner_id, nonce = first
    assert entry_key(owner_id, f"{nonce}#{second[1]}").partition("#")[0] == owner_id


@seed(SEED)
@SETTINGS
@given(time=times, other=times | st.none(), step=st.integers(-2, 2))
def test_times_sort_as_their_texts(time: datetime, other: datetime | None, step: int) -> None:
    """The texts of two times sort as the times do, and each text is read back as its time."""
    other = other or time + timedelta(microseconds=step)
    assert (format_time(time) < format_time(other)) == (time < other)
    assert len(format_time(time)) == len(format_time(other))
    assert datetime.fromisoformat(format_time(time)) == time


@st.composite
def configs(draw: st.DrawFn) -> OperationConfig:
    """A configuration whose amount the caller chooses."""
    low, middle, high = sorted(draw(st.lists(st.integers(1, AMOUNT_MAX), min_size=3, max_size=3)))
    return OperationConfig(
        amount=draw(st.sampled_from([middle, -middle])), magnitude_min=low, magnitude_max=high
    )


@seed(SEED)
@SETTINGS
@given(config=configs(), magnitude=st.integers(-AMOUNT_MAX, 2 * AMOUNT_MAX))
def test_caller_chooses_a_magnitude_within_bounds_and_never_the_sign(
    config: OperationConfig, magnitude: int
) -> None:
    """A magnitude within the bounds gets the operation's sign; others are refused."""
    assert config.magnitude_min
    assert config.magnitude_max
    for asked in (magnitude, config.magnitude_min, config.magnitude_max):
        if config.magnitude_min <= asked <= config.magnitude_max:
            signed = config.signed_amount(asked)
            assert (abs(signed), signed > 0) == (asked, config.amount > 0)
        else:
            with pytest.raises(InvalidRequestError):
                config.signed_amount(asked)
    assert config.signed_amount(None) == config.amount


@seed(SEED)
@SETTINGS
@given(amount=amounts, magnitude=st.integers())
def test_fixed_amount_takes_no_other(amount: int, magnitude: int) -> None:
    """If the app sets the amount, any amount of the caller is refused."""
    with pytest.raises(InvalidRequestError):
        OperationConfig(amount=amount).signed_amount(magnitude)


@seed(SEED)
@SETTINGS
@given(owner_id=owner_ids, other_id=owner_ids, position=times)
def test_cursor_is_a_position_in_the_history_of_an_owner(
    owner_id: str, other_id: str, position: datetime
) -> None:
    """A cursor is read back as its position, and is refused for another owner."""
    cursor = cursor_at(owner_id, position)
    assert len(cursor) <= CURSOR_LENGTH_MAX
    assert cursor_position(owner_id, cursor) == position
    if other_id != owner_id:
        with pytest.raises(InvalidRequestError):
            cursor_position(other_id, cursor)


@seed(SEED)
@SETTINGS
@given(
    owner_id=owner_ids,
    position=times,
    place=st.integers(0, CURSOR_LENGTH_MAX),
    letter=st.characters(),
)
def test_no_other_text_is_a_cursor(
    owner_id: str, position: datetime, place: int, letter: str
) -> None:
    """A changed cursor is refused, and so is any other text."""
    cursor = cursor_at(owner_id, position)
    for text in (
        cursor[:place] + letter + cursor[place + 1 :],
        cursor[:place],
        cursor + letter,
        letter * place,
    ):
        if text != cursor:
            with pytest.raises(InvalidRequestError):
                cursor_position(owner_id, text)


@seed(SEED)
@SETTINGS
@given(
    kind=st.sampled_from(PeriodKind),
    day=st.dates(date(1970, 1, 8), date(9998, 12, 31)),
    later=st.integers(0, 800),
)
def test_periods_are_written_in_their_order(kind: PeriodKind, day: date, later: int) -> None:
    """A day is in exactly one period of a kind, and the texts of periods sort as the periods do."""
    period = Period.of(kind, day)
    assert Period.parse(str(period)) == period
    assert period.first_day <= day
    assert Period.of(kind, period.first_day) == period
    assert period.before() == Period.of(kind, period.first_day - timedelta(days=1))
    assert str(period.before()) < str(period)
    assume(day.toordinal() + later <= date(9998, 12, 31).toordinal())
    following = Period.of(kind, day + timedelta(days=later))
    assert (str(period) < str(following)) == (period.first_day < following.first_day)


@seed(SEED)
@SETTINGS
@given(
    text=st.one_of(
        st.text(max_size=12), st.from_regex(r"\d{1,4}-(W?\d{1,2}|\d\d-\d\d)", fullmatch=True)
    )
)
def test_period_has_only_one_spelling(text: str) -> None:
    """A text is the only spelling of its period, or is refused."""
    try:
        assert str(Period.parse(text)) == text
    except InvalidRequestError:
        assert not text.startswith("2026-11-2")
