"""Which accounts a command is about: of named owners, of those of a file or of standard input, or all. Never all in
memory."""

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
"""A longer line is no owner: characters of four bytes each, a byte order mark, the end of the line."""
PAGE_OWNERS_MAX = 1000
OWNER_ID: TypeAdapter[str] = TypeAdapter(OwnerId)


def chosen_accounts(options: argparse.Namespace, ledgers: Ledgers) -> Iterator[str]:
    """The key of each account in turn, of the unit that the options name.

    Without a unit, an owner's account is the one in CREDIT, and all accounts are those of every unit.

    Raises:
        InvalidRequestError: one cannot be an owner's id; those before it have been seen to.
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
    """An argument in UTF-8, which it may have been in a terminal that says it is another encoding."""
    try:
        return argument.encode()
    except UnicodeEncodeError:
        return os.fsencode(argument)


def _owner(text: bytes, place: str) -> str:
    try:
        return OWNER_ID.validate_python(text.decode())
    except UnicodeDecodeError:
        raise InvalidRequestError(f"{place}: is no owner's id: it is not UTF-8") from None
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InvalidRequestError(f"{place}: is no owner's id: {reason}") from None


def _all_accounts(ledgers: Ledgers) -> Iterator[str]:
    """Every account that has a row, whatever is in it."""
    start, more = None, True
    while more:
        page: Page = ledgers.read(
            partial(
                ledgers.store.accounts, segment=0, segments=1, start=start, limit=PAGE_OWNERS_MAX
            )
        )
        yield from (account.key for account in page.accounts)
        yield from page.malformed
        yield from page.empty
        start, more = page.start, page.start is not None
