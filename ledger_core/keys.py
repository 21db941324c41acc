"""The keys of both tables: what names an account, and what names an entry.

An owner id holds no `#`, the nonce of a caller begins neither with `ledger:` nor with `@`, the name
of a unit is in capitals and that of an app is not. So no two accounts and no two entries share a
key.
"""

from ledger_core.fields import NONCE_PREFIXES_RESERVED

__all__ = ["CREDIT", "account_key", "entry_key", "split_account_key", "stored_nonce"]

CREDIT = "CREDIT"
"""The unit of an operation whose config names no other."""
UNIT_SEPARATOR = "#@"


def account_key(owner_id: str, unit: str = CREDIT) -> str:
    """The key of an account: `ada`, or `ada#@GEMS` for another unit than CREDIT."""
    return owner_id if unit == CREDIT else f"{owner_id}{UNIT_SEPARATOR}{unit}"


def split_account_key(key: str) -> tuple[str, str]:
    """The owner id and the unit of an account."""
    owner_id, separator, unit = key.partition(UNIT_SEPARATOR)
    return (owner_id, unit) if separator else (key, CREDIT)


def stored_nonce(nonce: str, app: str | None) -> str:
    """A nonce as the key of an entry holds it: `@game:order-1` for `order-1` of the app `game`.

    The nonces of the ledger itself and of owners are the same in every app.
    """
    if app is None or nonce.startswith(NONCE_PREFIXES_RESERVED):
        return nonce
    return f"@{app}:{nonce}"


def entry_key(account: str, nonce: str) -> str:
    """The key of an entry, by the key of its account and its stored nonce."""
    return f"{account}#{nonce}"
