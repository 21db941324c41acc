"""`ledger`, for people: export an owner's ledger, verify one in the store or in an export."""

import argparse
import sys
from collections.abc import Iterator, Sequence

from functions.wiring import create_processor
from ledger_core.audit import Report, audit_export, audit_store, export
from ledger_core.errors import LedgerError
from ledger_core.operations import BaseLedgerOperations

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when all is well, 1 when a ledger does not add up, 2 when the command could not be done."""
    options = _parser().parse_args(arguments)
    try:
        return _export(options.owner_id) if options.command == "export" else _verify(options)
    except (LedgerError, OSError) as error:
        print(f"ledger: {error}", file=sys.stderr)
        return 2


def _export(owner_ids: Sequence[str]) -> int:
    processor = create_processor(BaseLedgerOperations)
    for owner_id in owner_ids:
        for line in export(processor.store, owner_id, read=processor.read):
            print(line)
    return 0


def _verify(options: argparse.Namespace) -> int:
    valid = True
    for report in _reports(options):
        print(report.model_dump_json())
        valid = valid and report.valid
    return 0 if valid else 1


def _reports(options: argparse.Namespace) -> Iterator[Report]:
    if options.file is None:
        processor = create_processor(BaseLedgerOperations)
        for owner_id in options.owner_id:
            yield audit_store(processor.store, owner_id, read=processor.read)
    else:
        with open(options.file, encoding="utf-8", errors="replace") as lines:
            yield from audit_export(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ledger", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    exporting = commands.add_parser("export", help="print ledgers as JSON Lines: each one's head, then its entries")
    exporting.add_argument("owner_id", nargs="+")
    verifying = commands.add_parser(
        "verify", help="print one report per ledger, as JSON; exit with 1 unless all are valid"
    )
    source = verifying.add_mutually_exclusive_group(required=True)
    source.add_argument("owner_id", nargs="*", default=[])
    source.add_argument("--file", help="an export; no store is needed")
    return parser


if __name__ == "__main__":
    sys.exit(main())
