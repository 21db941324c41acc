"""The commands and their arguments."""

import argparse
import os
import re
from collections.abc import Sequence
from datetime import date

from ledger_core.cli import output
from ledger_core.cli.codes import NOT_DONE
from ledger_core.cli.ledgers import export_ledgers, print_receipt_keys, verify_ledgers
from ledger_core.cli.rewards import grant_rewards
from ledger_core.errors import LedgerError
from ledger_core.fields import UNIT_PATTERN
from ledger_core.observability import SERVICE_VARIABLE
from ledger_core.operations import LedgerOperationType
from ledger_core.periods import PeriodKind

__all__ = ["APP_VARIABLE", "SEGMENTS_AT_ONCE_MAX", "run"]

DESCRIPTION = "Export and verify accounts, print the keys of receipts, grant rewards."
APP_VARIABLE = "LEDGER_APP"
SEGMENTS_AT_ONCE_MAX = 8


def run(arguments: Sequence[str] | None) -> int:
    """Run a command, and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except LedgerError as error:
        output.complain(str(error))
    return NOT_DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ledger", description=DESCRIPTION)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    exporting = commands.add_parser(
        "export", help="print accounts as JSON Lines: the head of each, then its entries"
    )
    _add_owners(exporting)
    exporting.set_defaults(run=export_ledgers)
    verifying = commands.add_parser(
        "verify", help="print a report on each account, as JSON; exit with 1 unless all are valid"
    )
    _add_owners(verifying).add_argument(
        "--file", help="read an export instead of the store; -: standard input"
    )
    verifying.add_argument(
        "--receipt",
        action="append",
        default=[],
        metavar="FILE",
        help="a receipt to compare an account with; may be given again",
    )
    verifying.add_argument(
        "--key",
        metavar="FILE",
        help="public keys of the receipts, a JWK set or PEM; else LEDGER_RECEIPT_KEY",
    )
    verifying.add_argument(
        "--issuer",
        metavar="NAME",
        default=os.environ.get(SERVICE_VARIABLE),
        help=f"the ledger that receipts must be of; else {SERVICE_VARIABLE}, else any",
    )
    verifying.add_argument(
        "--must-exist", action="store_true", help="an owner without an entry is not valid"
    )
    verifying.set_defaults(run=verify_ledgers)
    publishing = commands.add_parser(
        "receipt-key", help="print the public keys of receipts, as a JWK set"
    )
    publishing.add_argument(
        "name", nargs="*", help="KMS keys, present and former; else LEDGER_RECEIPT_KEY"
    )
    publishing.set_defaults(run=print_receipt_keys)
    _add_rewards(
        commands.add_parser(
            "rewards",
            help="post a scheduled operation to all eligible owners; print the counts, as JSON",
        )
    )
    return parser


def _add_owners(parser: argparse.ArgumentParser) -> "argparse._MutuallyExclusiveGroup":
    parser.add_argument(
        "--unit",
        type=_unit,
        help="what the accounts count in; else CREDIT, and with --all every unit",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "owner_id",
        nargs="*",
        default=[],
        help="owners; -: read them from standard input, one a line",
    )
    source.add_argument(
        "--owners-file", metavar="FILE", help="a file of owners, one a line; -: standard input"
    )
    source.add_argument("--all", action="store_true", help="all owners who have an account")
    return source


def _add_rewards(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--app",
        metavar="MODULE:OPERATIONS",
        default=os.environ.get(APP_VARIABLE),
        help=f"the app's operations, and which owners are eligible; else {APP_VARIABLE}",
    )
    parser.add_argument(
        "--date", type=_day, required=True, metavar="DAY", help="a day of the period: 2026-11-22"
    )
    parser.add_argument("--operation", default=str(LedgerOperationType.DAILY_REWARD))
    parser.add_argument(
        "--period", choices=[str(kind) for kind in PeriodKind], default=str(PeriodKind.DAY)
    )
    parser.add_argument(
        "--time-zone", default="UTC", metavar="ZONE", help="the time zone of the schedule"
    )
    parser.add_argument(
        "--segments",
        type=int,
        choices=range(1, SEGMENTS_AT_ONCE_MAX + 1),
        default=1,
        help="segments that are swept at once",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="write nothing: count the owners and the costs"
    )
    parser.add_argument("--yes", action="store_true", help="grant without asking")
    parser.add_argument(
        "--force",
        action="store_true",
        help="grant even if the period is in the future or long over",
    )
    parser.set_defaults(run=grant_rewards)


def _unit(text: str) -> str:
    if not re.fullmatch(UNIT_PATTERN, text):
        raise argparse.ArgumentTypeError(f"must be the name of a unit, as GEMS: {text!r}")
    return text


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a day, as 2026-11-22: {text!r}") from None
