"""Each field at its limit, and the hash of an entry by independent tools."""

import json
import subprocess
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from ledger_core import LedgerEntry, LedgerOperationType, OperationRequest
from ledger_core.account import Account
from ledger_core.fields import (
    AMOUNT_MAX,
    METADATA_BYTES_MAX,
    METADATA_KEY_LENGTH_MAX,
    METADATA_KEYS_MAX,
    NONCE_LENGTH_MAX,
    OWNER_ID_LENGTH_MAX,
    Instant,
    format_time,
)
from tests.support import NOON, operation

GOOD: list[dict[str, Any]] = [
    {"owner_id": "a" * OWNER_ID_LENGTH_MAX},
    {"owner_id": "auth0|用户:ü-1@example.com"},
    {"nonce": "n" * NONCE_LENGTH_MAX},
    {"nonce": "order 42 # ü"},
    {"nonce": "Ledger:mine"},
    {"nonce": "ledger"},
    {"nonce": "n@self:n"},
    {"amount": 1},
    {"amount": AMOUNT_MAX},
    {"metadata": {"k" * METADATA_KEY_LENGTH_MAX: ""}},
    {"metadata": {f"k{number}": "v" for number in range(METADATA_KEYS_MAX)}},
    {"metadata": {"k": "v" * (METADATA_BYTES_MAX - 1)}},
    {"metadata": {"k": "line\nfeed \u0000 \u2028"}},
]
BAD: list[dict[str, Any]] = [
    {"owner_id": ""},
    {"owner_id": "a" * (OWNER_ID_LENGTH_MAX + 1)},
    {"owner_id": "a#b"},
    {"owner_id": "a/b"},
    {"owner_id": "a b"},
    {"owner_id": "a\n"},
    {"owner_id": "a\u0000"},
    {"owner_id": "a\u200bb"},
    {"owner_id": "a\ud800"},
    {"owner_id": ".."},
    {"owner_id": 5},
    {"owner_id": None},
    {"nonce": ""},
    {"nonce": " "},
    {"nonce": " n"},
    {"nonce": "n\n"},
    {"nonce": "n\tn"},
    {"nonce": "n" * (NONCE_LENGTH_MAX + 1)},
    {"nonce": "ledger:daily-reward:2026-11-22"},
    {"nonce": "ledger:"},
    {"nonce": "@self:n"},
    {"nonce": "@"},
    {"nonce": 5},
    {"amount": 0},
    {"amount": -1},
    {"amount": AMOUNT_MAX + 1},
    {"amount": 10**38},
    {"amount": 1.0},
    {"amount": True},
    {"amount": "1"},
    {"metadata": []},
    {"metadata": {"k": 1}},
    {"metadata": {"k": None}},
    {"metadata": {"k": {"deep": "v"}}},
    {"metadata": {"": "v"}},
    {"metadata": {"k k": "v"}},
    {"metadata": {"k" * (METADATA_KEY_LENGTH_MAX + 1): "v"}},
    {"metadata": {f"k{number}": "v" for number in range(METADATA_KEYS_MAX + 1)}},
    {"metadata": {"k": "v" * METADATA_BYTES_MAX}},
    {"metadata": {"k": "ü" * (METADATA_BYTES_MAX // 2)}},
    {"metadata": {"k": "\ud800"}},
    {"balance": 5},
]


def request(**fields: Any) -> OperationRequest:
    return OperationRequest(
        **{"owner_id": "ada", "operation": LedgerOperationType.CREDIT_ADD, "nonce": "n", **fields}
    )


@pytest.mark.parametrize("fields", GOOD, ids=lambda fields: ascii(fields)[:50])
def test_within_limits(fields: dict[str, Any]) -> None:
    """A value within its limit is accepted unchanged."""
    ((name, value),) = fields.items()
    assert getattr(request(**fields), name) == value


@pytest.mark.parametrize("fields", BAD, ids=lambda fields: ascii(fields)[:50])
def test_beyond_limits(fields: dict[str, Any]) -> None:
    """A value beyond its limit is refused, and the error names the field."""
    with pytest.raises(ValidationError) as refusal:
        request(**fields)
    assert {error["loc"][0] for error in refusal.value.errors()} == set(fields)


def test_operation_is_a_member_of_an_enum() -> None:
    """A plain string with the name of an operation is refused."""
    with pytest.raises(ValidationError, match="operation"):
        request(operation="CREDIT_ADD")


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (NOON, "2026-11-22T12:00:00.000000Z"),
        (NOON + timedelta(microseconds=7), "2026-11-22T12:00:00.000007Z"),
        (NOON.astimezone(timezone(timedelta(hours=-5))), "2026-11-22T12:00:00.000000Z"),
    ],
)
def test_times_are_written_in_utc_and_fixed_width(time: datetime, text: str) -> None:
    """A time with any offset becomes a text in UTC, so texts sort as times do."""
    assert format_time(TypeAdapter(Instant).validate_python(time)) == text


@pytest.mark.parametrize("year", [1, 1969, 9999])
def test_instants_beyond_the_calendar_are_refused(year: int) -> None:
    """A time at the ends of the calendar is refused, because a conversion would overflow."""
    with pytest.raises(ValidationError, match="between the years"):
        TypeAdapter(Instant).validate_python(datetime(year, 12, 31, tzinfo=UTC))


def test_hash_is_that_of_sha256sum() -> None:
    """The hash of an entry is the SHA-256 of its canonical JSON without `hash`."""
    request = operation(metadata={"b": 'quote " ü', "a": "1"})
    entry = Account(owner_id="ada").next_entry(request, amount=3, now=NOON)
    fields = json.loads(entry.model_dump_json())
    claimed = fields.pop("hash")
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    command = ["sha256sum"]
    done = subprocess.run(command, input=canonical.encode(), capture_output=True, check=True)
    assert done.stdout.split()[0].decode() == claimed == entry.computed_hash()


def test_hash_covers_every_other_field() -> None:
    """The hash of an entry changes with each of its fields."""
    entry = Account(owner_id="ada").next_entry(operation(), amount=3, now=NOON)
    changes: dict[str, Any] = {
        "v": 2,
        "id": 2,
        "operation": "CREDIT_ADD",
        "owner_id": "bob",
        "unit": "GEMS",
        "app": "game",
        "amount": 4,
        "nonce": "m",
        "created_at": NOON + timedelta(seconds=1),
        "updated_at": NOON + timedelta(seconds=1),
        "balance_after": 4,
        "metadata": {"k": "v"},
        "prev_hash": "1" * 64,
    }
    assert {*changes, "hash"} == set(LedgerEntry.model_fields)
    for name, value in changes.items():
        assert entry.model_copy(update={name: value}).computed_hash() != entry.hash, name


def test_entries_are_immutable() -> None:
    """An entry does not change once it is made."""
    entry = Account(owner_id="ada").next_entry(operation(), amount=3, now=NOON)
    with pytest.raises(ValidationError, match="frozen"):
        entry.amount = 5
