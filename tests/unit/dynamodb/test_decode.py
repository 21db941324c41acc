"""Accounts, entries, reasons and units that are decoded from DynamoDB's answers."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from ledger_core.account import Account, Head
from ledger_core.dynamodb import Cancelled, StoredHead
from ledger_core.dynamodb.decode import (
    account_from,
    cancelled_from,
    entry_from,
    row_from,
    stored_head_from,
    units_from,
)
from ledger_core.dynamodb.expressions import entry_item
from ledger_core.errors import ContentionError, StoreError, UnavailableError, UnknownFormatError
from ledger_core.fields import format_time
from tests.support import NOON, operation

ENTRY = Account(owner_id="ada").next_entry(operation(metadata={"k": "v"}), amount=3, now=NOON)
HEAD = Account(owner_id="ada").after(ENTRY)
ROW: dict[str, Any] = {
    "account": {"S": "ada"},
    "balance": {"N": "3"},
    "entry_count": {"N": "1"},
    "head_hash": {"S": ENTRY.hash},
    "created_at": {"S": format_time(NOON)},
    "updated_at": {"S": format_time(NOON)},
    "active_at": {"S": format_time(NOON)},
}
DAY = {"DAILY_REWARD:day": "2026-11-22"}
MARKED = {**ROW, "mark:DAILY_REWARD:day": {"S": "2026-11-22"}}
MARKED_ACCOUNT = replace(HEAD, marks=DAY)
NONE = {"Code": "None"}
LOST = {"Code": "ConditionalCheckFailed"}
BUSY = {"Code": "TransactionConflict"}
STORED = {**LOST, "Item": entry_item(ENTRY)}


@pytest.mark.parametrize(
    ("reasons", "cancelled"),
    [
        ([{**LOST, "Item": entry_item(ENTRY)}, NONE], Cancelled((ENTRY,))),
        ([NONE, {**LOST, "Item": ROW}], Cancelled((), HEAD)),
        ([NONE, {**LOST, "Item": MARKED}], Cancelled((), MARKED_ACCOUNT)),
        ([NONE, LOST], Cancelled((), Account(owner_id="ada"))),
        ([{**LOST, "Item": entry_item(ENTRY)}, {**LOST, "Item": ROW}], Cancelled((ENTRY,), HEAD)),
        ([NONE, STORED, {**LOST, "Item": ROW}], Cancelled((ENTRY,), HEAD)),
        ([NONE, STORED, NONE], Cancelled((ENTRY,))),
        ([NONE, NONE, {**LOST, "Item": ROW}], Cancelled((), HEAD)),
        ([NONE, NONE], Cancelled()),
    ],
)
def test_reasons_are_read_by_position(reasons: list[dict[str, Any]], cancelled: Cancelled) -> None:
    """The reasons of the entries come first, and the reason of the account last."""
    assert cancelled_from("ada", reasons) == cancelled


@pytest.mark.parametrize(
    ("reasons", "account", "busy"),
    [
        ([BUSY, {**LOST, "Item": ROW}], HEAD, ContentionError),
        ([NONE, BUSY], None, ContentionError),
        ([{"Code": "ThrottlingError"}, NONE], None, UnavailableError),
        ([NONE, {"Code": "ProvisionedThroughputExceeded"}], None, UnavailableError),
    ],
)
def test_conflict_and_throttling_are_kept_beside_the_account(
    reasons: list[dict[str, Any]], account: Account | None, busy: type[Exception]
) -> None:
    """A conflict or throttling means that the next try should wait."""
    cancelled = cancelled_from("ada", reasons)
    assert (cancelled.stored, cancelled.account, type(cancelled.busy)) == ((), account, busy)


@pytest.mark.parametrize(
    ("reasons", "is_busy", "message"),
    [
        ([{**LOST, "Item": {"v": {"N": "1"}}}, NONE], False, "a stored entry is malformed"),
        (
            [{**LOST, "Item": {"id": {"N": "1"}}}, NONE],
            False,
            "a stored entry has attributes that are not known: v$",
        ),
        (
            [NONE, {**LOST, "Item": {"lots": {"L": []}}}],
            False,
            "a stored account has attributes that are not known: lots$",
        ),
        (
            [BUSY, {**LOST, "Item": {"entry_count": {"N": "1"}}}],
            True,
            "a stored account is malformed",
        ),
        ([{"Code": "ValidationError"}, NONE], False, "DynamoDB refused: ValidationError$"),
        (
            [{"Code": "ValidationError"}, {"Code": "ItemCollectionSizeLimitExceeded"}],
            False,
            "DynamoDB refused: ItemCollectionSizeLimitExceeded, ValidationError$",
        ),
        ([{"Code": "ValidationError"}, BUSY], True, "DynamoDB refused: ValidationError$"),
    ],
)
def test_permanent_error_is_no_lost_race(
    reasons: list[dict[str, Any]], is_busy: bool, message: str
) -> None:
    """A malformed item and a write that DynamoDB refuses are errors that no retry mends."""
    cancelled = cancelled_from("ada", reasons)
    assert (cancelled.stored, cancelled.account, bool(cancelled.busy)) == ((), None, is_busy)
    with pytest.raises(StoreError, match=message):
        raise cancelled.error or AssertionError("there is no error")


def test_refusal_beside_a_lost_race_keeps_both() -> None:
    """The stored account is kept even if the other write was refused."""
    cancelled = cancelled_from("ada", [{"Code": "ValidationError"}, {**LOST, "Item": ROW}])
    assert (cancelled.account, str(cancelled.error)) == (HEAD, "DynamoDB refused: ValidationError")


@pytest.mark.parametrize(
    ("response", "units"),
    [
        ({"ConsumedCapacity": []}, 0.0),
        ({"ConsumedCapacity": {}}, 0.0),
        ({"ConsumedCapacity": {"CapacityUnits": 0.5}}, 0.5),
        ({"ConsumedCapacity": [{"CapacityUnits": 3.0}, {}, {"CapacityUnits": 2.0}]}, 5.0),
    ],
)
def test_units_are_those_of_all_tables(response: dict[str, Any], units: float) -> None:
    """The units of all tables are added up; absent units count 0."""
    assert units_from({"ResponseMetadata": {"RequestId": "r"}, **response}) == units


@pytest.mark.parametrize(
    "response",
    [
        {},
        {"ResponseMetadata": {"HTTPStatusCode": 200, "HTTPHeaders": {}}},
        {"ResponseMetadata": {"RequestId": "r"}},
        {"ResponseMetadata": {"RequestId": ""}, "ConsumedCapacity": []},
        {"ConsumedCapacity": {"CapacityUnits": 0.5}},
        {"message": "<html>Sign in to the network</html>"},
    ],
)
def test_200_that_is_not_from_dynamodb_is_no_answer(response: dict[str, Any]) -> None:
    """An answer without its request id or its consumed capacity is a lost answer."""
    with pytest.raises(UnavailableError):
        units_from(response)


def test_stored_entry_is_read_as_it_was_written() -> None:
    """All fields are read back; the keys of the item are not among them."""
    item = entry_item(ENTRY)
    assert entry_from(item) == ENTRY
    assert row_from(item) == {
        **ENTRY.model_dump(),
        "created_at": format_time(NOON),
        "updated_at": format_time(NOON),
    }


def test_empty_metadata_is_not_stored() -> None:
    """An entry without metadata has no such attribute, and is read with an empty dict."""
    entry = Account(owner_id="ada").next_entry(operation(), amount=3, now=NOON)
    item = entry_item(entry)
    assert "metadata" not in item
    assert "metadata" not in row_from(item)
    assert entry_from(item) == entry
    assert entry_from(item).metadata == {}


@pytest.mark.parametrize(
    ("other", "unknown"),
    [
        ({"v": {"N": "2"}}, "v"),
        ({"v": {"NULL": True}}, "v"),
        ({"held": {"N": "1"}}, "held"),
        ({"v": {"N": "2"}, "held": {"N": "1"}}, "held, v"),
    ],
)
def test_entry_of_another_format_is_refused(other: dict[str, Any], unknown: str) -> None:
    """The error names the version or the unknown attribute, and does not say malformed."""
    with pytest.raises(
        UnknownFormatError, match=f"^a stored entry has attributes that are not known: {unknown}$"
    ):
        entry_from({**entry_item(ENTRY), **other})


def test_entry_without_a_version_is_refused() -> None:
    """An entry from before format 1 has no version."""
    item = entry_item(ENTRY)
    del item["v"]
    message = r"^a stored entry has attributes that are not known: v$"
    with pytest.raises(UnknownFormatError, match=message):
        entry_from(item)


@pytest.mark.parametrize("version", [{"S": "1"}, {"BOOL": False}, {"N": "1.5"}, {"N": "0"}])
def test_version_that_the_ledger_never_wrote_is_malformed(version: dict[str, Any]) -> None:
    """A version is a whole number from 1."""
    with pytest.raises(StoreError, match=r"^a stored entry is malformed: ") as failure:
        entry_from({**entry_item(ENTRY), "v": version})
    assert type(failure.value) is StoreError


@pytest.mark.parametrize("row", [ROW, {"account": {"S": "ada"}}])
def test_account_of_another_format_is_refused(row: dict[str, Any]) -> None:
    """The error names each unknown attribute, also if the account has no entry."""
    message = "^a stored account has attributes that are not known: holds, lots$"
    with pytest.raises(UnknownFormatError, match=message):
        account_from("ada", {**row, "lots": {"L": []}, "holds": {"M": {}}})


@pytest.mark.parametrize(
    ("typed", "plain"),
    [
        ({"N": "7"}, 7),
        ({"N": "-7"}, -7),
        ({"N": "0"}, 0),
        ({"N": "1.5"}, ["N", "1.5"]),
        ({"N": "7-"}, ["N", "7-"]),
        ({"N": "--7"}, ["N", "--7"]),
        ({"N": "X7"}, ["N", "X7"]),
        ({"S": "7"}, "7"),
        ({"S": "text"}, "text"),
        ({"M": {"k": {"S": "v"}, "n": {"M": {"k": {"N": "1"}}}}}, {"k": "v", "n": {"k": 1}}),
        ({"BOOL": True}, True),
        ({"NULL": True}, None),
        ({"B": b"\xff"}, ["B", "/w=="]),
        ({"BS": [b"\xff", b""]}, ["BS", "/w==", ""]),
        ({"SS": ["a", "b"]}, ["SS", "a", "b"]),
        ({"NS": ["1"]}, ["NS", "1"]),
        (
            {"L": [{"N": "1"}, {"B": b""}, {"M": {"k": {"L": []}}}]},
            ["L", 1, ["B", ""], {"k": ["L"]}],
        ),
    ],
)
def test_any_attribute_is_read(typed: dict[str, Any], plain: Any) -> None:
    """An audit can read any row; a type that the ledger does not write becomes an invalid value."""
    assert row_from({"amount": typed}) == {
        "amount": plain,
        "updated_at": None,
    }


def test_malformed_entry_is_an_error_without_its_values() -> None:
    """The error names each wrong field, without its value and without a link."""
    with pytest.raises(StoreError) as failure:
        entry_from({**entry_item(ENTRY), "amount": {"N": "1.5"}})
    assert str(failure.value).startswith(
        "a stored entry is malformed: [{'type': 'int_type', 'loc': ('amount',)"
    )
    assert "input" not in str(failure.value).replace("Input should be", "")
    assert "url" not in str(failure.value)
    assert failure.value.__cause__ is not None


@pytest.mark.parametrize(
    "item", [None, {}, {"account": {"S": "ada"}, "mark:DAILY_REWARD:day": {"S": "2026-11-22"}}]
)
def test_row_without_an_entry_is_a_new_account(item: dict[str, Any] | None) -> None:
    """A row that is absent or has only a mark is an account without entries."""
    assert account_from("ada", item) == Account(owner_id="ada")


def test_stored_updated_at_of_an_entry_is_read_by_audits_alone() -> None:
    """The ledger stores only `created_at`; an audit also reads a forged `updated_at`."""
    item = {**entry_item(ENTRY), "updated_at": {"S": "later"}}
    assert entry_from(item) == ENTRY
    assert row_from(item)["updated_at"] == "later"


def test_stored_head_has_the_attributes_of_the_head() -> None:
    """Times and marks of the row are left out; malformed and unknown attributes are kept."""
    beside = {
        "created_at": {"S": "x"},
        "active_at": {"N": "1"},
        "mark:DAILY_REWARD:day": {"BOOL": True},
    }
    assert stored_head_from("ada", ROW | beside) == StoredHead.of(HEAD.head)
    assert stored_head_from("ada", {"account": {"S": "ada"}, **beside}) == StoredHead.of(
        Head(owner_id="ada")
    )
    assert stored_head_from("ada", None) == StoredHead.of(Head(owner_id="ada"))
    broken = stored_head_from("ada", {"balance": {"S": "3"}, "lots": {"L": []}})
    assert (broken.fields, broken.unknown, broken.head()) == (
        {"balance": "3", "lots": ["L"]},
        ["lots"],
        None,
    )


def test_account_is_the_whole_row() -> None:
    """An account has the head, the times and the marks of its row."""
    assert account_from("ada", ROW) == HEAD
    assert account_from("ada", None) == Account(owner_id="ada")
    earlier = NOON - timedelta(days=1)
    later = NOON + timedelta(days=1)
    row = {
        **MARKED,
        "created_at": {"S": format_time(earlier)},
        "active_at": {"S": format_time(later)},
    }
    assert account_from("ada", row) == replace(HEAD, created_at=earlier, active_at=later, marks=DAY)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"balance": {"S": "3"}}, "KeyError 'N'"),
        ({"balance": {"N": "3.5"}}, "ValueError invalid literal"),
        ({"entry_count": {"N": "many"}}, "ValueError invalid literal"),
        ({"head_hash": {"N": "1"}}, "KeyError 'S'"),
        ({"updated_at": {"S": "noon"}}, "ValueError Invalid isoformat"),
        ({"updated_at": {"S": "2026-11-22T12:00:00"}}, "ValueError a time without its offset"),
        ({"created_at": {"S": "2026-11-22T12:00:00"}}, "ValueError a time without its offset"),
        ({"active_at": {"N": "1"}}, "KeyError 'S'"),
        ({"mark:DAILY_REWARD:day": {"N": "1"}}, "KeyError 'S'"),
    ],
)
def test_malformed_account_is_an_error_with_its_cause(broken: dict[str, Any], message: str) -> None:
    """No attribute is guessed, and the error says what is wrong."""
    with pytest.raises(StoreError, match=f"^a stored account is malformed: {message}") as failure:
        account_from("ada", ROW | broken)
    assert isinstance(failure.value.__cause__, (KeyError, ValueError))
