"""The keys of both tables: a key belongs to exactly one account or entry."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger_core.fields import (
    APP_LENGTH_MAX,
    APP_PATTERN,
    NONCE_LENGTH_MAX,
    NONCE_PREFIX_RESERVED,
    NONCE_PREFIX_SELF,
    NONCE_STORED_LENGTH_MAX,
    OWNER_ID_LENGTH_MAX,
    UNIT_PATTERN,
)
from ledger_core.keys import CREDIT, account_key, entry_key, split_account_key, stored_nonce

KEY_BYTES_MAX = 2048
"""DynamoDB's limit of a partition key."""

OWNERS = st.text(st.characters(exclude_characters="#", exclude_categories=["Cs"]), min_size=1)
UNITS = st.just(CREDIT) | st.from_regex(UNIT_PATTERN.replace("$", r"\Z"))
APPS = st.none() | st.from_regex(APP_PATTERN.replace("$", r"\Z")).filter(
    lambda name: name not in {"self", "ledger"}
)
NONCES = st.text(min_size=1).filter(lambda text: not text.startswith(("ledger:", "@")))
OWN_NONCES = NONCES.map(lambda nonce: NONCE_PREFIX_SELF + nonce)
MADE_NONCES = st.text(min_size=1).map(lambda text: NONCE_PREFIX_RESERVED + text)
ENTRIES = st.tuples(OWNERS, UNITS, st.tuples(APPS, NONCES))
OTHERS = st.tuples(OWNERS, UNITS, st.tuples(st.none(), OWN_NONCES | MADE_NONCES))


@pytest.mark.parametrize(
    ("owner_id", "unit", "key"),
    [("ada", "CREDIT", "ada"), ("ada", "GEMS", "ada#@GEMS"), ("a@b", "GEMS", "a@b#@GEMS")],
)
def test_account_key(owner_id: str, unit: str, key: str) -> None:
    """The key of an account in CREDIT is the owner id; another unit follows the owner id."""
    assert account_key(owner_id, unit) == key
    assert split_account_key(key) == (owner_id, unit)


@pytest.mark.parametrize(
    ("app", "nonce", "stored"),
    [
        (None, "n", "n"),
        ("game", "n", "@game:n"),
        ("game", "@self:n", "@self:n"),
        ("game", "ledger:daily-reward:2026-11-22", "ledger:daily-reward:2026-11-22"),
    ],
)
def test_stored_nonce(app: str | None, nonce: str, stored: str) -> None:
    """A nonce of an app gets the app's name; a nonce of an owner or of the ledger does not."""
    assert stored_nonce(nonce, app) == stored


@given(ENTRIES | OTHERS, ENTRIES | OTHERS)
def test_no_two_entries_share_a_key(
    left: tuple[str, str, tuple[str | None, str]], right: tuple[str, str, tuple[str | None, str]]
) -> None:
    """Two entries have the same key only if owner, unit, app and nonce are the same."""

    def key(owner_id: str, unit: str, posted: tuple[str | None, str]) -> str:
        app, nonce = posted
        return entry_key(account_key(owner_id, unit), stored_nonce(nonce, app))

    assert (key(*left) == key(*right)) == (left == right)
    accounts = [account_key(owner_id, unit) for owner_id, unit, _ in (left, right)]
    assert (accounts[0] == accounts[1]) == (left[:2] == right[:2])
    assert split_account_key(accounts[0]) == left[:2]


@given(OWNERS, UNITS, APPS, NONCES, UNITS)
def test_keys_of_two_units_differ(
    owner_id: str, unit: str, app: str | None, nonce: str, other: str
) -> None:
    """The key of an entry in CREDIT does not begin with the key of an account in another unit."""
    key = entry_key(account_key(owner_id), stored_nonce(nonce, app))
    if other != CREDIT:
        assert not key.startswith(f"{account_key(owner_id, other)}#")


def test_longest_key_fits_dynamodb() -> None:
    """The longest owner id, unit, app and nonce, of 4-byte characters, fit into a key."""
    wide = "\U0001f41f"
    nonce = stored_nonce(wide * NONCE_LENGTH_MAX, "a" * APP_LENGTH_MAX)
    assert len(nonce) == NONCE_STORED_LENGTH_MAX
    account = account_key(wide * OWNER_ID_LENGTH_MAX, "G" * 16)
    assert len(entry_key(account, nonce).encode()) < KEY_BYTES_MAX
