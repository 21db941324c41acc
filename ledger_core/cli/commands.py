"""The commands, their arguments, and what is told when one cannot be done."""

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

DESCRIPTION = (
    "Export ledgers, verify them in the store or in an export, with receipts; grant rewards."
)
APP_VARIABLE = "LEDGER_APP"
SEGMENTS_AT_ONCE_MAX = 8


def run(arguments: Sequence[str] | None) -> int:
    """Run one command; its exit code."""
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
        "export", help="print ledgers as JSON Lines: each one's head, then its entries"
    )
    _add_owners(exporting)
    exporting.set_defaults(run=export_ledgers)
    verifying = commands.add_parser(
        "verify", help="print one report per ledger, as JSON; exit with 1 unless all are valid"
    )
    _add_owners(verifying).add_argument(
        "--file", help="an export; -: standard input; no store is needed"
    )
    verifying.add_argument(
        "--receipt",
        action="append",
        default=[],
        metavar="FILE",
        help="a receipt that it must bear out; may be given again",
    )
    verifying.add_argument(
        "--key", metavar="FILE", help="who signed them, a JWK set or PEM; else LEDGER_RECEIPT_KEY"
    )
    verifying.add_argument(
        "--issuer",
        metavar="NAME",
        default=os.environ.get(SERVICE_VARIABLE),
        help=f"the ledger that receipts must be of; else {SERVICE_VARIABLE}, else any",
    )
    verifying.add_argument(
        "--must-exist", action="store_true", help="an owner who has no entry is not valid"
    )
    verifying.set_defaults(run=verify_ledgers)
    publishing = commands.add_parser(
        "receipt-key", help="print the public keys that receipts are checked with, as JWKs"
    )
    publishing.add_argument(
        "name", nargs="*", help="KMS keys, of now and before; else LEDGER_RECEIPT_KEY"
    )
    publishing.set_defaults(run=print_receipt_keys)
    _add_rewards(
        commands.add_parser(
            "rewards",
            help="post a scheduled operation to all eligible owners; print what came of it, as JSON",
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
        help="whose ledgers; -: those on standard input, a line each",
    )
    source.add_argument(
        "--owners-file", metavar="FILE", help="whose ledgers, a line each; -: standard input"
    )
    source.add_argument(
        "--all", action="store_true", help="the ledgers of all owners who have a balance"
    )
    return source


def _add_rewards(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--app",
        metavar="MODULE:OPERATIONS",
        default=os.environ.get(APP_VARIABLE),
        help=f"whose rules apply: what may be posted, and who is eligible; else {APP_VARIABLE}",
    )
    parser.add_argument(
        "--date", type=_day, required=True, metavar="DAY", help="a day of the period: 2026-11-22"
    )
    parser.add_argument("--operation", default=str(LedgerOperationType.DAILY_REWARD))
    parser.add_argument(
        "--period", choices=[str(kind) for kind in PeriodKind], default=str(PeriodKind.DAY)
    )
    parser.add_argument(
        "--time-zone", default="UTC", metavar="ZONE", help="of the schedule: by it today is told"
    )
    parser.add_argument(
        "--segments",
        type=int,
        choices=range(1, SEGMENTS_AT_ONCE_MAX + 1),
        default=1,
        help="parts to sweep at once",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="write nothing: count, and say what it would take"
    )
    parser.add_argument("--yes", action="store_true", help="do not ask before it grants")
    parser.add_argument(
        "--force", action="store_true", help="though the period is to come, or long over"
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
