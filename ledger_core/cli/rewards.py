"""`ledger rewards`: count, say what it will take, ask, grant. It may be ended at any moment, and run again."""

import argparse
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from math import inf
from threading import Event, Lock
from time import monotonic

from ledger_core.cli import output
from ledger_core.cli.codes import DONE, NOT_DONE, WRONG
from ledger_core.cli.prices import READ_UNIT_DOLLARS, WRITE_UNIT_DOLLARS, WRITE_UNITS_PER_REWARD
from ledger_core.cli.stores import naming, open_sweeps
from ledger_core.errors import InvalidRequestError, UnavailableError
from ledger_core.operations import BaseLedgerOperations
from ledger_core.periods import Period, PeriodKind
from ledger_core.rewards import Reward, Segment, Sweep, Tally

__all__ = ["grant_rewards", "now"]

REWARDS_PER_SECOND = 500
"""What one segment grants on AWS: its owners are on one partition, which takes 1,000 write units a second."""
SWEEP_SECONDS_MAX = 24 * 60 * 60.0
BAR_WIDTH = 30


def now() -> datetime:
    """The time; UTC."""
    return datetime.now(UTC)


def grant_rewards(options: argparse.Namespace) -> int:
    """Post a scheduled operation to all eligible owners."""
    reward = _reward(options)
    if not (options.dry_run or options.yes or (sys.stdin and sys.stdin.isatty())):
        raise InvalidRequestError(
            "standard input is no terminal, so nobody can be asked: --yes grants without asking, --dry-run only counts"
        )
    ledgers = open_sweeps()
    with naming(ledgers.endpoint):
        sweep = partial(Sweep, ledgers.store, reward)
        tally = _swept(partial(sweep, dry_run=True), reward, Tally(), options.segments, "counting")
        _estimate(reward, tally, options.segments)
        if not options.dry_run:
            if not (options.yes or _confirmed(reward, tally.granted)):
                output.complain("not confirmed: nothing was granted")
                return NOT_DONE
            tally = _swept(sweep, reward, tally, options.segments, "granting")
    output.show(tally.model_dump_json())
    return WRONG if tally.failed else DONE


def _reward(options: argparse.Namespace) -> Reward:
    period = Period.of(PeriodKind(options.period), options.date)
    reward = Reward.of(_operations(options.app), options.operation, period)
    doubt = period.doubt(now(), options.time_zone)
    if doubt and not options.force:
        raise InvalidRequestError(f"period: {doubt}; with --force it is granted all the same")
    return reward


def _operations(name: str | None) -> type[BaseLedgerOperations]:
    """An app's operations, which it is told by name, as servers are told an app.

    Raises:
        InvalidRequestError: there are none of this name.
    """
    if not name:
        raise InvalidRequestError(
            "--app, or LEDGER_APP, has to say whose rules apply: module:Operations"
        )
    module, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), attribute)):
        raise InvalidRequestError(f"--app: must be written as module:Operations: {name!r}")
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        raise InvalidRequestError(f"--app: there is no module {error.name!r}") from None
    except (Exception, SystemExit) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InvalidRequestError(f"--app: {module} cannot be imported: {reason}") from None
    if not (isinstance(found, type) and issubclass(found, BaseLedgerOperations)):
        raise InvalidRequestError(f"--app: {module} has no class {attribute!r} of operations")
    return found


def _estimate(reward: Reward, planned: Tally, segments: int) -> None:
    writes, reads = planned.granted * WRITE_UNITS_PER_REWARD, planned.read_units
    rate = REWARDS_PER_SECOND * segments
    dollars = writes * WRITE_UNIT_DOLLARS + 2 * reads * READ_UNIT_DOLLARS
    output.say(
        f"{reward.operation} {reward.amount:+d} for {reward.period}, under the nonce {reward.nonce}"
    )
    output.say(
        f"owners: {planned.owners:,}, of whom get it: {planned.granted:,}, have it: {planned.already:,}, "
        f"are not eligible: {planned.skipped:,}, cannot get it: {planned.failed:,}"
    )
    output.say(
        f"about {writes:,} write units and {2 * reads:,.0f} read units, ${dollars:,.2f} at list price, "
        f"{planned.granted / rate:,.0f} s at {rate:,} owners a second"
    )


def _confirmed(reward: Reward, owners: int) -> bool:
    amount, whom = _counted(abs(reward.amount), "credit"), f"about {_counted(owners, 'owner')}"
    question = f"Take {amount} from {whom}?" if reward.amount < 0 else f"Grant {amount} to {whom}?"
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.buffer.readline().strip().lower() in {b"y", b"yes"}


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _swept(
    new_sweep: Callable[..., Sweep], reward: Reward, planned: Tally, segments: int, doing: str
) -> Tally:
    """What came of one sweep over all owners, several segments at a time, with a bar on the way."""
    seen, begun, lock, stopping = Tally(), monotonic(), Lock(), Event()

    def on_page(tally: Tally) -> None:
        with lock:
            seen.add(tally)
            show()

    def show() -> None:
        rate = seen.owners / max(monotonic() - begun, 0.001)
        share = min(seen.owners / planned.owners, 1) if planned.owners else 0
        bar = (
            f"[{'#' * int(share * BAR_WIDTH):{BAR_WIDTH}}] {share:4.0%} " if planned.owners else ""
        )
        left = (
            f", {(planned.owners - seen.owners) / rate:,.0f} s left"
            if planned.owners > seen.owners
            else ""
        )
        if sys.stderr.isatty():
            print(
                f"\r{doing} {bar}{seen.owners:,} owners, {rate:,.0f}/s{left}\x1b[K",
                end="",
                file=sys.stderr,
            )

    def finished(segment: Segment) -> Tally:
        while not segment.finished:
            before = segment.place
            sweep = new_sweep(monotonic=lambda: inf if stopping.is_set() else monotonic())
            segment = sweep.run(segment, seconds=SWEEP_SECONDS_MAX, on_page=on_page)
            if not segment.finished and segment.place == before:
                raise UnavailableError(
                    f"{len(segment.postponed)} owners are written to all the time: run it again"
                )
        return segment.tally

    total = Tally()
    try:
        with ThreadPoolExecutor(segments) as threads:
            try:
                for tally in threads.map(
                    finished, Segment.all_of(reward, segments, datetime.now(UTC))
                ):
                    total.add(tally)
            except BaseException:
                stopping.set()  # for all of them the time is up
                raise
    finally:
        if sys.stderr.isatty():
            print(file=sys.stderr)
    return total
