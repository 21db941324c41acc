"""`ledger export`, `ledger verify` and `ledger receipt-key`: one ledger after the other, and the keys of receipts."""

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ledger_core.audit import (
    Receipt,
    Report,
    audit_export,
    audit_store,
    export,
    read_keys,
    read_receipt,
)
from ledger_core.cli import output
from ledger_core.cli.codes import DONE, NOT_DONE, WRONG
from ledger_core.cli.owners import chosen_accounts, opened
from ledger_core.cli.stores import Ledgers, NoAnswerError, answer_of, naming, open_ledgers
from ledger_core.dynamodb import PemKey, jwk
from ledger_core.errors import InvalidRequestError, LedgerError, StoreError
from ledger_core.keys import account_key
from ledger_core.wiring import create_receipt_key

__all__ = ["NOTE", "export_ledgers", "print_receipt_keys", "verify_ledgers"]

NOTE = "this owner has no entry"
"""What a report says of a ledger that is valid because there is nothing in it; the id may be misspelt."""


class _Each:
    """Does something with one ledger after the other; one that cannot be read is told, and not the end of it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self.undone = 0

    def __call__(self, do: Callable[[Ledgers, str], Iterable[Any]]) -> Iterator[Any]:
        ledgers = open_ledgers()
        for key in chosen_accounts(self._options, ledgers):
            try:
                with naming(ledgers.endpoint):
                    yield from do(ledgers, key)
            except LedgerError as error:
                if isinstance(error, NoAnswerError) or (
                    isinstance(error, StoreError) and error.dynamodb_code
                ):
                    raise  # it will be the same for all
                self.undone += 1
                output.complain(f"{key}: {error}")


def export_ledgers(options: argparse.Namespace) -> int:
    """Print each ledger, its head and its entries, a line each."""
    each = _Each(options)
    for line in each(lambda ledgers, key: export(ledgers.store, key, read=ledgers.read)):
        output.show(line)
    return NOT_DONE if each.undone else DONE


def verify_ledgers(options: argparse.Namespace) -> int:
    """Print a report of each ledger, as soon as it is there."""
    receipts = _receipts(options)
    missing = {receipt.account_key: file for file, receipt in receipts.items()}
    each, wrong, undecided = _Each(options), False, False
    for report in _reports(options, [*receipts.values()], each):
        key = account_key(report.owner_id, report.unit)
        is_empty = report.valid and not report.entries_checked
        note = {"note": NOTE} if is_empty else {}
        output.show(
            json.dumps(
                report.model_dump(mode="json") | note, ensure_ascii=False, separators=(",", ":")
            )
        )
        output.flush()
        if is_empty:
            output.complain(f"{key}: {NOTE}")
        wrong |= not (report.valid or report.is_undecided) or (is_empty and options.must_exist)
        undecided |= report.is_undecided
        missing.pop(key, None)
    for file in missing.values() if not each.undone else ():
        raise InvalidRequestError(f"{file}: is of an account that is not among these")
    return WRONG if wrong else NOT_DONE if undecided or each.undone else DONE


def _reports(
    options: argparse.Namespace, receipts: Sequence[Receipt], each: _Each
) -> Iterator[Report]:
    if options.file is None:
        yield from each(
            lambda ledgers, key: [
                audit_store(ledgers.store, key, read=ledgers.read, receipts=receipts)
            ]
        )
        return
    with opened(options.file) as file:
        try:
            lines = (line.decode("utf-8", "replace").replace("\r\n", "\n") for line in file)
            yield from audit_export(lines, receipts)
        except InvalidRequestError as error:
            raise InvalidRequestError(f"{options.file}: {error}") from None


def print_receipt_keys(options: argparse.Namespace) -> int:
    """Print the public keys of receipts, as JOSE has them."""
    output.show(json.dumps({"keys": _public_keys(*options.name)}))
    return DONE


def _receipts(options: argparse.Namespace) -> dict[str, Receipt]:
    """Those that were given, by their files, once their signatures are found to be right."""
    if not options.receipt:
        return {}
    file = options.key
    try:
        keys: Sequence[Mapping[str, Any]] = read_keys(_text(file)) if file else _public_keys()
        receipts = {}
        for file in options.receipt:
            receipts[file] = read_receipt(_text(file), keys)
            _check_issuer(receipts[file], options.issuer)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{file}: {error}" if file else str(error)) from None
    return receipts


def _check_issuer(receipt: Receipt, issuer: str | None) -> None:
    if issuer and receipt.iss != issuer:
        raise InvalidRequestError(
            f"is a receipt of the ledger {receipt.iss!r}, not of {issuer!r}; --issuer names another"
        )


def _public_keys(*names: str) -> list[dict[str, str]]:
    found = [key for name in names or (None,) if (key := create_receipt_key(name))]
    if not found:
        raise InvalidRequestError(
            "LEDGER_RECEIPT_KEY is not set: it names the key that signs receipts"
        )
    keys = []
    for key in found:
        try:
            public = key.public() if isinstance(key, PemKey) else answer_of("KMS", key.public)
            keys.append(jwk(public, key.key_id))
        except (ValueError, TypeError):
            raise InvalidRequestError(f"{key.key_id}: is no private key in PEM") from None
    return keys


def _text(file: str) -> str:
    return Path(file).read_text(encoding="utf-8", errors="replace")
