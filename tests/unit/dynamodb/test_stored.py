"""Stored heads, also with malformed fields."""

from typing import Any

import pytest

from ledger_core.account import Head
from ledger_core.dynamodb import StoredHead
from tests.support import NOON

HEAD = Head(owner_id="ada", balance=3, entry_count=1, head_hash="1" * 64, updated_at=NOON)


@pytest.mark.parametrize(
    "wrong",
    [
        {"balance": "3"},
        {"entry_count": True},
        {"head_hash": None},
        {"updated_at": "noon"},
        {"updated_at": 1},
        {"updated_at": "2026-11-22T13:00:00.000000+01:00"},
        {"lots": []},
    ],
)
def test_row_with_a_malformed_or_unknown_field_is_no_head(wrong: dict[str, Any]) -> None:
    """The other fields are readable one by one, and a malformed field reads as None."""
    stored = StoredHead("ada", {**StoredHead.of(HEAD).fields, **wrong})
    assert stored.head() is None
    assert stored.entry_count == (None if "entry_count" in wrong else 1)
    assert stored.head_hash == (None if "head_hash" in wrong else "1" * 64)


def test_row_of_a_head_is_that_head() -> None:
    """A head with or without entries is stored and read back."""
    for head in (HEAD, Head(owner_id="ada")):
        assert StoredHead.of(head).head() == head
