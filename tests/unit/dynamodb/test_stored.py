"""What is stored of a head, whatever that is."""

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
    ],
)
def test_field_that_is_not_what_it_should_be_is_another_head_s(wrong: dict[str, Any]) -> None:
    """Such a row is no head, and the nearest to it has what is sound in it."""
    stored = StoredHead("ada", {**StoredHead.of(HEAD).fields, **wrong})
    assert stored.head() is None
    assert stored.nearest(HEAD) == HEAD


def test_row_of_a_head_is_that_head() -> None:
    """Whether the owner has entries or not."""
    for head in (HEAD, Head(owner_id="ada")):
        assert StoredHead.of(head).head() == head
