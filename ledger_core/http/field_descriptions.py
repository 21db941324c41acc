"""What each field and parameter of the ledger's HTTP API means, for its OpenAPI document.

An app describes its own fields where it declares them, as in `Field(description=...)`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ledger_core.audit import DISCREPANCIES_MAX, FINDINGS_MAX

__all__ = ["FIELDS", "HEADERS", "PARAMETERS", "Described"]


class Described(NamedTuple):
    """What a field means, and a value that it may have (None: no value helps)."""

    description: str
    example: Any = None


CREATED_AT = "2026-11-22T09:30:00.000000Z"
HASH = "f2ca1bb6c7e907d06dafe4687e579fce76b37e4e93b7605022da52e6ccc26fd2"
OWNER_ID = Described("Whose ledger it is.", "ada")
NEXT_CURSOR = "MjAyNi0xMS0yMlQwOTozMDowMC4wMDAwMDBaZjJjYTFiYjZjN2U5MDdkMA=="

UNIT = Described("What the account counts in.", "CREDIT")

HEAD = {
    "owner_id": OWNER_ID,
    "unit": UNIT,
    "balance": Described("Credits that the owner has.", 7),
    "entry_count": Described("How many entries the ledger has: the id of the last one.", 3),
    "updated_at": Described("When the last entry was posted; null without any entry.", CREATED_AT),
}
PROBLEM = {
    "title": Described("What the status is called.", None),
    "status": Described("The HTTP status, once more."),
    "code": Described("What went wrong, for programs. It stays the same from version to version."),
    "state": Described("In which state the request failed."),
    "detail": Described("What went wrong and what to do, for people."),
    "request_id": Described(
        "What the log knows the request by.",
        "c6af9ac6-7b61-11e6-9a41-93e8deadbeef",
    ),
}
ORIGINAL = {
    "entry": Described(
        "The entry that used the nonce; only for callers who may read the owner's ledger.",
    ),
    "replay": Described("Whether this request asks for the same as the one that used the nonce."),
}

FIELDS: Mapping[str, Mapping[str, Described]] = {
    "EntryRequest": {
        "operation": Described(
            "What to post; `GET /ledger/operations` lists what each does.",
            "CREDIT_SPEND",
        ),
    },
    "LedgerEntry": {
        "v": Described("The version of the entry's format.", 1),
        "id": Described("Counts the entries of the owner: 1, 2, 3 and so on, without gaps.", 3),
        "operation": Described("What was posted.", "CREDIT_SPEND"),
        "owner_id": OWNER_ID,
        "unit": Described("What the entry counts in; absent when it is `CREDIT`.", "GEMS"),
        "app": Described("The app that posted the entry; absent when it has no name.", "game"),
        "amount": Described("Credits that the entry added (positive) or took (negative).", -5),
        "nonce": Described("The nonce that the entry was posted under.", "order-1001"),
        "created_at": Described(
            "When the entry was posted, in UTC. Later than the entry before.",
            CREATED_AT,
        ),
        "updated_at": Described("The same as `created_at`: an entry never changes.", CREATED_AT),
        "balance_after": Described("Credits that the owner had after the entry.", 7),
        "metadata": Described(
            "What the app noted with the entry; absent when that is nothing.",
            {"order_id": "1001"},
        ),
        "prev_hash": Described(
            "The hash of the entry before; 64 zeros in the first entry.",
            "0" * 64,
        ),
        "hash": Described(
            "The hex SHA-256 of the entry without this field, as canonical JSON (RFC 8785).",
            HASH,
        ),
    },
    "Balance": HEAD,
    "Head": {
        **HEAD,
        "head_hash": Described("The hash of the last entry; 64 zeros without any.", HASH),
    },
    "History": {
        "entries": Described("The entries, newest first."),
        "next_cursor": Described(
            "The `cursor` of the next page; null on the last page.",
            NEXT_CURSOR,
        ),
    },
    "Operations": {"operations": Described("Every operation, the shared ones first.")},
    "Operation": {
        "operation": Described("The name of the operation.", "CREDIT_SPEND"),
        "amount": Described("Credits that it adds (positive) or takes (negative) by default.", -1),
        "magnitude_min": Described(
            "The least `amount` of a request; null where the amount is fixed.",
            1,
        ),
        "magnitude_max": Described(
            "The greatest `amount` of a request; null where the amount is fixed.",
            1_000_000,
        ),
        "unit": Described("What the operation counts in.", "CREDIT"),
        "self_service": Described("Whether owners may post it to their own ledger.", True),
    },
    "Report": {
        "owner_id": OWNER_ID,
        "unit": UNIT,
        "valid": Described(
            "Whether the entries give the balance, and none was tampered with.",
            True,
        ),
        "entries_checked": Described("How many entries were read.", 3),
        "head": Described("Where the ledger stands; null when its row cannot be read."),
        "findings": Described(
            f"What was done to the ledger; empty when it is valid. At most {FINDINGS_MAX:,}.",
        ),
        "discrepancies": Described(
            "The values that do not add up; empty when it is valid. "
            f"At most {DISCREPANCIES_MAX:,}.",
        ),
        "truncated": Described(
            "Whether there are more findings or discrepancies than the report lists.",
            False,
        ),
    },
    "Finding": {
        "kind": Described("What was done.", "changed"),
        "first_id": Described("The first entry that it was done to; null when it has no id.", 2),
        "last_id": Described("The last entry that it was done to; null when it has no id.", 2),
        "position": Described(
            "Where the first of them stands, counted from 1; null when it stands nowhere.",
            2,
        ),
        "detail": Described("What the finding means, for people."),
    },
    "Discrepancy": {
        "entry_id": Described("The entry; null when it is the head or a receipt.", 2),
        "field": Described("The field whose value is wrong.", "balance_after"),
        "expected": Described("The value that adds up; null when there should be no value.", 12),
        "found": Described("The value that was found; null when there is no value.", 112),
    },
    "SignedReceipt": {
        "receipt": Described(
            "A JWT (a compact JWS, ES256) of the balance, the last hash and the time.",
        ),
    },
    "Health": {"status": Described("Always `ok`.", "ok")},
    "GatewayMessage": {"message": Described("What went wrong, for people.", "Too Many Requests")},
    "FieldError": {
        "field": Described("Where in the request the field is.", "body.amount"),
        "message": Described(
            "What is wrong with it.",
            "Input should be greater than or equal to 1",
        ),
    },
    "Problem": {
        **PROBLEM,
        **ORIGINAL,
        "balance": Described(
            "Credits that the owner has; only for callers who may read the owner's ledger.",
            3,
        ),
        "required": Described("Credits that the operation takes.", 5),
        "errors": Described("Each field that is wrong."),
    },
}
"""By schema. `Problem` is for every problem, whatever its status."""

UNIT_QUERY = Described("What the account counts in; `CREDIT` by default.", "CREDIT")

PARAMETERS: Mapping[str, Mapping[str, Described]] = {
    "getBalance": {
        "unit": UNIT_QUERY,
        "at": Described("An instant of the past; without it, the balance of now.", CREATED_AT),
    },
    "getEntries": {
        "unit": UNIT_QUERY,
        "app": Described("Only the entries of this app.", "game"),
        "limit": Described("How many entries a page has at most.", 50),
        "cursor": Described("Where to go on: the `next_cursor` of the page before.", NEXT_CURSOR),
        "operation": Described("Only the entries of this operation.", "CREDIT_SPEND"),
        "from": Described("Only entries of this instant and later.", CREATED_AT),
        "to": Described("Only entries before this instant.", CREATED_AT),
    },
    "verifyLedger": {"unit": UNIT_QUERY},
    "getReceipt": {"unit": UNIT_QUERY},
}
"""By operation, for its query."""

HEADERS: Mapping[str, str] = {
    "allow": "The methods that the path takes.",
    "idempotency-replayed": "There when the answer is the one that an earlier request got.",
    "retry-after": "Seconds to wait before the request is sent again.",
    "www-authenticate": "The kind of token that is asked for.",
    "x-request-id": "What the log knows the request by.",
}
