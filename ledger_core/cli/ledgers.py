"""The commands `ledger export`, `ledger verify` and `ledger receipt-key`."""

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
"""The note in a report on an owner without any entry. It is valid, but its id may be misspelt."""


class _Each:
    """Calls a function for each chosen account. After a failure it goes on with the next."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self.failures = 0

    def __call__(self, do: Callable[[Ledgers, str], Iterable[Any]]) -> Iterator[Any]:
        ledgers = open_ledgers()
        for key in chosen_accounts(self._options, ledgers):
            try:
                with naming(ledgers.endpoint):
                    yield from do(ledgers, key)
            except LedgerError as error:
                if _is_for_every_account(error):
                    raise
                self.failures += 1
                output.complain(f"{key}: {error}")


def _is_for_every_account(error: LedgerError) -> bool:
    """True if the next account will meet the same error: DynamoDB refuses, or is not there."""
    if isinstance(error, StoreError):
        return error.dynamodb_code is not None
    return isinstance(error, NoAnswerError)


def export_ledgers(options: argparse.Namespace) -> int:
    """Print the head and the entries of each chosen account, one a line."""
    each = _Each(options)
    for line in each(lambda ledgers, key: export(ledgers.store, key, read=ledgers.read)):
        output.show(line)
    return NOT_DONE if each.failures else DONE


def verify_ledgers(options: argparse.Namespace) -> int:
    """Print a report on each chosen account, as soon as the audit is done."""
    receipts = _receipts(options)
    unused_files = {receipt.account_key: file for file, receipt in receipts.items()}
    each = _Each(options)
    is_wrong = False
    is_undecided = False
    for report in _reports(options, [*receipts.values()], each):
        key = account_key(report.owner_id, report.unit)
        fields = report.model_dump(mode="json")
        is_empty = report.valid and not report.entries_checked
        if is_empty:
            fields["note"] = NOTE
            output.complain(f"{key}: {NOTE}")
        output.show(json.dumps(fields, ensure_ascii=False, separators=(",", ":")))
        output.flush()
        is_missing = is_empty and options.must_exist
        is_wrong |= is_missing or not (report.valid or report.is_undecided)
        is_undecided |= report.is_undecided
        unused_files.pop(key, None)
    if unused_files and not each.failures:
        file = next(iter(unused_files.values()))
        raise InvalidRequestError(
            f"{file}: is of an account that is not among these; add its owner"
        )
    if is_wrong:
        return WRONG
    return NOT_DONE if is_undecided or each.failures else DONE


def _reports(
    options: argparse.Namespace,
    receipts: Sequence[Receipt],
    each: _Each,
) -> Iterator[Report]:
    def audit(ledgers: Ledgers, key: str) -> Iterator[Report]:
        yield audit_store(ledgers.store, key, read=ledgers.read, receipts=receipts)

    if options.file is None:
        yield from each(audit)
        return
    with opened(options.file) as file:
        try:
            lines = (line.decode("utf-8", "replace").replace("\r\n", "\n") for line in file)
            yield from audit_export(lines, receipts)
        except InvalidRequestError as error:
            raise InvalidRequestError(f"{options.file}: {error}") from None


def print_receipt_keys(options: argparse.Namespace) -> int:
    """Print the public keys of receipts, as a JWK set."""
    output.show(json.dumps({"keys": _public_keys(*options.name)}))
    return DONE


def _receipts(options: argparse.Namespace) -> dict[str, Receipt]:
    """The receipts of the options, by file, with their signatures checked."""
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
        problem = "is not set; it names the key that signs receipts"
        raise InvalidRequestError(f"LEDGER_RECEIPT_KEY {problem}")
    keys = []
    for key in found:
        try:
            public = key.public() if isinstance(key, PemKey) else answer_of("KMS", key.public)
            keys.append(jwk(public, key.key_id))
        except (ValueError, TypeError):
            raise InvalidRequestError(f"{key.key_id}: is not a private key in PEM") from None
    return keys


def _text(file: str) -> str:
    return Path(file).read_text(encoding="utf-8", errors="replace")
