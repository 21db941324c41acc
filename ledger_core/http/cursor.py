"""Cursors: opaque texts for positions in the history of an account. They fit no other account."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import datetime
from hashlib import sha256

from pydantic import TypeAdapter

from ledger_core.errors import InvalidRequestError
from ledger_core.fields import Instant, format_time

__all__ = ["CURSOR_LENGTH_MAX", "cursor_at", "cursor_position"]

CURSOR_LENGTH_MAX = 64
INSTANT: TypeAdapter[datetime] = TypeAdapter(Instant)


def cursor_at(account: str, position: datetime) -> str:
    """The cursor of a position. It is bound to the account's key; it is not secret."""
    text = format_time(position)
    seal = sha256(f"{account}#{text}".encode()).hexdigest()[:16]
    return urlsafe_b64encode(f"{text}{seal}".encode()).decode()


def cursor_position(account: str, cursor: str) -> datetime:
    """The position of a cursor.

    Raises:
        InvalidRequestError: `cursor_at` did not make it for this account.
    """
    try:
        position = INSTANT.validate_python(urlsafe_b64decode(cursor)[:-16].decode())
        if cursor_at(account, position) == cursor:
            return position
    except ValueError:
        pass
    raise InvalidRequestError(
        "cursor: is not of this account's history; send a `next_cursor` of it"
    )
