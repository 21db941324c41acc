"""The accounts that a command is for: of named owners, of a file, or all; never all in memory."""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from typing import BinaryIO

from pydantic import TypeAdapter, ValidationError

from ledger_core.cli.stores import Ledgers
from ledger_core.dynamodb import Page
from ledger_core.errors import InvalidRequestError
from ledger_core.fields import OWNER_ID_LENGTH_MAX, OwnerId
from ledger_core.keys import CREDIT, account_key, split_account_key

__all__ = ["STANDARD_INPUT", "chosen_accounts", "opened"]

STANDARD_INPUT = "-"
LINE_BYTES_MAX = OWNER_ID_LENGTH_MAX * 4 + 4
"""The longest line of an owner: characters of four bytes each, a byte order mark, a line end."""
PAGE_OWNERS_MAX = 1000
OWNER_ID: TypeAdapter[str] = TypeAdapter(OwnerId)


def chosen_accounts(options: argparse.Namespace, ledgers: Ledgers) -> Iterator[str]:
    """The key of each account in turn, in the unit that the options name.

    Without a unit, a named owner's account is that in CREDIT, and `--all` takes every unit.

    Raises:
        InvalidRequestError: an id is not valid. The owners before it were yielded already.
        OSError: the file cannot be read.
    """
    if options.all:
        for key in _all_accounts(ledgers):
            if options.unit in {None, split_account_key(key)[1]}:
                yield key
        return
    for owner_id in _named_owners(options):
        yield account_key(owner_id, options.unit or CREDIT)


def _named_owners(options: argparse.Namespace) -> Iterator[str]:
    if options.owners_file:
        yield from _owners_of_file(options.owners_file)
    for given in options.owner_id:
        if given == STANDARD_INPUT:
            yield from _owners_of_file(given)
        else:
            yield _owner(_bytes(given), repr(given))


def opened(file: str) -> "nullcontext[BinaryIO] | BinaryIO":
    """A file, or standard input.

    Raises:
        InvalidRequestError: standard input is closed.
        OSError: the file cannot be read.
    """
    if file != STANDARD_INPUT:
        return open(file, "rb")
    if sys.stdin is None:
        raise InvalidRequestError("standard input is closed")
    return nullcontext(sys.stdin.buffer)


def _owners_of_file(file: str) -> Iterator[str]:
    with opened(file) as lines:
        for number, line in enumerate(iter(partial(lines.readline, LINE_BYTES_MAX), b""), start=1):
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if text := text.rstrip(b"\r\n"):
                yield _owner(text, f"{file}: line {number}")


def _bytes(argument: str) -> bytes:
    """The bytes of an argument. They may be UTF-8 though the terminal declares another encoding."""
    try:
        return argument.encode()
    except UnicodeEncodeError:
        return os.fsencode(argument)


def _owner(text: bytes, place: str) -> str:
    try:
        return OWNER_ID.validate_python(text.decode())
    except UnicodeDecodeError:
        raise InvalidRequestError(f"{place}: is not an owner's id: must be UTF-8") from None
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InvalidRequestError(f"{place}: is not an owner's id: {reason}") from None


def _all_accounts(ledgers: Ledgers) -> Iterator[str]:
    """The key of every account that has a row, whether or not the row can be read."""
    read_page = partial(ledgers.store.accounts, segment=0, segments=1, limit=PAGE_OWNERS_MAX)
    start: str | None = None
    while True:
        page: Page = ledgers.read(partial(read_page, start=start))
        yield from (account.key for account in page.accounts)
        yield from page.malformed
        yield from page.empty
        start = page.start
        if start is None:
            return
