"""`ledger`, for people: export ledgers, verify them in the store or in an export, with receipts; grant rewards."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from functools import partial
from math import inf
from pathlib import Path
from threading import Event, Lock
from time import monotonic
from typing import Any

from functions.example_app.operations import ExampleAppOperations
from functions.prices import READ_UNIT_DOLLARS, WRITE_UNIT_DOLLARS, WRITE_UNITS_PER_REWARD
from functions.wiring import create_account_store, create_processor, create_receipt_key
from ledger_core.audit import Report, audit_export, audit_store, export
from ledger_core.errors import InvalidRequestError, LedgerError, UnavailableError
from ledger_core.keys import jwk
from ledger_core.operations import BaseLedgerOperations, LedgerOperationType
from ledger_core.periods import Period, PeriodKind
from ledger_core.receipts import Receipt, read_keys, read_receipt
from ledger_core.rewards import Reward, Segment, Tally
from ledger_core.sweep import Sweep

__all__ = ["main"]

REWARDS_PER_SECOND = 500
"""What one segment grants on AWS: its owners are on one partition, which takes 1,000 write units a second."""
SWEEP_SECONDS_MAX = 24 * 60 * 60.0
SEGMENTS_AT_ONCE_MAX = 8
BAR_WIDTH = 30


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 when all is well, 1 when a ledger does not add up or an owner could not be rewarded, 2 when the command could
        not be done, 130 when it was interrupted.
    """
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (LedgerError, OSError) as error:
        print(f"ledger: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ledger: ended; what was done stays done, run it again for the rest", file=sys.stderr)
        return 130


def _export(options: argparse.Namespace) -> int:
    processor = create_processor(BaseLedgerOperations)
    for owner_id in options.owner_id:
        for line in export(processor.store, owner_id, read=processor.read):
            print(line)
    return 0


def _verify(options: argparse.Namespace) -> int:
    tampered, undecided, receipts = False, False, _receipts(options)
    missing = {receipt.sub: file for file, receipt in receipts.items()}
    for report in _reports(options, [*receipts.values()]):
        print(report.model_dump_json())
        tampered |= not (report.valid or report.is_undecided)
        undecided |= report.is_undecided
        missing.pop(report.owner_id, None)
    for file in missing.values():
        raise InvalidRequestError(f"{file}: is of an owner whose ledger is not among these")
    return 1 if tampered else 2 if undecided else 0


def _reports(options: argparse.Namespace, receipts: Sequence[Receipt]) -> Iterator[Report]:
    if options.file is None:
        processor = create_processor(BaseLedgerOperations)
        for owner_id in options.owner_id:
            yield audit_store(processor.store, owner_id, read=processor.read, receipts=receipts)
    else:
        with open(options.file, encoding="utf-8", errors="replace") as lines:
            yield from audit_export(lines, receipts)


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
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{file}: {error}" if file else str(error)) from None
    return receipts


def _receipt_key(options: argparse.Namespace) -> int:
    print(json.dumps({"keys": _public_keys(*options.name)}))
    return 0


def _public_keys(*names: str) -> list[dict[str, str]]:
    keys = [key for name in names or (None,) if (key := create_receipt_key(name))]
    if not keys:
        raise InvalidRequestError("LEDGER_RECEIPT_KEY is not set: it names the key that signs receipts")
    return [jwk(key.public(), key.key_id) for key in keys]


def _text(file: str) -> str:
    return Path(file).read_text(encoding="utf-8", errors="replace")


def _rewards(options: argparse.Namespace) -> int:
    """Count first, say what it will take, then grant. It may be ended at any moment, and run again."""
    reward = Reward.of(ExampleAppOperations, options.operation, Period.of(PeriodKind(options.period), options.date))
    store = create_account_store()
    planned = _swept(partial(Sweep, store, reward, dry_run=True), reward, Tally(), options.segments, "counting")
    writes, reads = planned.granted * WRITE_UNITS_PER_REWARD, planned.read_units
    rate = REWARDS_PER_SECOND * options.segments
    dollars = writes * WRITE_UNIT_DOLLARS + 2 * reads * READ_UNIT_DOLLARS
    _say(f"{reward.operation} {reward.amount:+d} for {reward.period}, under the nonce {reward.nonce}")
    _say(
        f"owners: {planned.owners:,}, of whom get it: {planned.granted:,}, have it: {planned.already:,}, "
        f"are not eligible: {planned.skipped:,}, cannot get it: {planned.failed:,}"
    )
    _say(
        f"about {writes:,} write units and {2 * reads:,.0f} read units, ${dollars:,.2f} at list price, "
        f"{planned.granted / rate:,.0f} s at {rate:,} owners a second"
    )
    if not options.dry_run:
        planned = _swept(partial(Sweep, store, reward), reward, planned, options.segments, "granting")
    print(planned.model_dump_json())
    return 1 if planned.failed else 0


def _swept(new_sweep: Callable[..., Sweep], reward: Reward, planned: Tally, segments: int, doing: str) -> Tally:
    """What came of one sweep over all owners, several segments at a time, with a bar on the way."""
    seen, begun, lock, stopping = Tally(), monotonic(), Lock(), Event()

    def on_page(tally: Tally) -> None:
        with lock:
            seen.add(tally)
            show()

    def show() -> None:
        rate = seen.owners / max(monotonic() - begun, 0.001)
        share = min(seen.owners / planned.owners, 1) if planned.owners else 0
        bar = f"[{'#' * int(share * BAR_WIDTH):{BAR_WIDTH}}] {share:4.0%} " if planned.owners else ""
        left = f", {(planned.owners - seen.owners) / rate:,.0f} s left" if planned.owners > seen.owners else ""
        if sys.stderr.isatty():
            print(f"\r{doing} {bar}{seen.owners:,} owners, {rate:,.0f}/s{left}\x1b[K", end="", file=sys.stderr)

    def finished(segment: Segment) -> Tally:
        while not segment.finished:
            before = segment.place
            sweep = new_sweep(monotonic=lambda: inf if stopping.is_set() else monotonic())
            segment = sweep.run(segment, seconds=SWEEP_SECONDS_MAX, on_page=on_page)
            if not segment.finished and segment.place == before:
                raise UnavailableError(f"{len(segment.stragglers)} owners are written to all the time: run it again")
        return segment.tally

    total = Tally()
    try:
        with ThreadPoolExecutor(segments) as threads:
            try:
                for tally in threads.map(finished, Segment.all_of(reward, segments, datetime.now(UTC))):
                    total.add(tally)
            except BaseException:
                stopping.set()  # for all of them the time is up
                raise
    finally:
        if sys.stderr.isatty():
            print(file=sys.stderr)
    return total


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ledger", description=__doc__)
    commands = parser.add_subparsers(required=True)
    exporting = commands.add_parser("export", help="print ledgers as JSON Lines: each one's head, then its entries")
    exporting.add_argument("owner_id", nargs="+")
    exporting.set_defaults(run=_export)
    verifying = commands.add_parser(
        "verify", help="print one report per ledger, as JSON; exit with 1 unless all are valid"
    )
    source = verifying.add_mutually_exclusive_group(required=True)
    source.add_argument("owner_id", nargs="*", default=[])
    source.add_argument("--file", help="an export; no store is needed")
    verifying.add_argument("--receipt", nargs="+", default=[], metavar="FILE", help="receipts that it must bear out")
    verifying.add_argument("--key", metavar="FILE", help="who signed them, a JWK set or PEM; else LEDGER_RECEIPT_KEY")
    verifying.set_defaults(run=_verify)
    publishing = commands.add_parser(
        "receipt-key", help="print the public keys that receipts are checked with, as JWKs"
    )
    publishing.add_argument("name", nargs="*", help="KMS keys, of now and before; else LEDGER_RECEIPT_KEY")
    publishing.set_defaults(run=_receipt_key)
    rewarding = commands.add_parser(
        "rewards", help="post a scheduled operation to all eligible owners; print what came of it, as JSON"
    )
    rewarding.add_argument("--date", type=date.fromisoformat, required=True, help="a day of the period: 2026-11-22")
    rewarding.add_argument("--operation", default=str(LedgerOperationType.DAILY_REWARD))
    rewarding.add_argument("--period", choices=list(PeriodKind), default=str(PeriodKind.DAY))
    rewarding.add_argument(
        "--segments", type=int, choices=range(1, SEGMENTS_AT_ONCE_MAX + 1), default=1, help="parts to sweep at once"
    )
    rewarding.add_argument("--dry-run", action="store_true", help="write nothing: count, and say what it would take")
    rewarding.set_defaults(run=_rewards)
    return parser


if __name__ == "__main__":
    sys.exit(main())
