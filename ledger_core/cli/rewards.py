"""The command `ledger rewards`: count, print the costs, ask, grant. It may be stopped and rerun."""

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
"""Rewards that a segment grants on AWS. It is one partition: 1,000 write units a second."""
SWEEP_SECONDS_MAX = 24 * 60 * 60.0
BAR_WIDTH = 30


def now() -> datetime:
    """The current time, in UTC."""
    return datetime.now(UTC)


def grant_rewards(options: argparse.Namespace) -> int:
    """Post a scheduled operation to all eligible owners."""
    reward = _reward(options)
    if not (options.dry_run or options.yes or (sys.stdin and sys.stdin.isatty())):
        raise InvalidRequestError(
            "standard input: is not a terminal, so it cannot confirm; "
            "--yes grants without asking, --dry-run only counts"
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
        raise InvalidRequestError(f"period: {doubt}; --force grants it anyway")
    return reward


def _operations(name: str | None) -> type[BaseLedgerOperations]:
    """An app's operations, by their name `module:Class`.

    Raises:
        InvalidRequestError: there is no such class, or its module cannot be imported.
    """
    if not name:
        raise InvalidRequestError("--app: is missing; give module:Operations, or set LEDGER_APP")
    module, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), attribute)):
        raise InvalidRequestError(f"--app: must have the form module:Operations: {name!r}")
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
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
    writes = planned.granted * WRITE_UNITS_PER_REWARD
    reads = 2 * planned.read_units  # to count, and to grant
    rate = REWARDS_PER_SECOND * segments
    seconds = planned.granted / rate
    dollars = writes * WRITE_UNIT_DOLLARS + reads * READ_UNIT_DOLLARS
    output.say(
        f"{reward.operation} {reward.amount:+d} for {reward.period}, under the nonce {reward.nonce}"
    )
    output.say(
        f"owners: {planned.owners:,}, of whom get it: {planned.granted:,}, "
        f"have it: {planned.already:,}, are not eligible: {planned.skipped:,}, "
        f"cannot get it: {planned.failed:,}"
    )
    output.say(
        f"about {writes:,} write units and {reads:,.0f} read units, "
        f"${dollars:,.2f} at list price, {seconds:,.0f} s at {rate:,} owners a second"
    )


def _confirmed(reward: Reward, owners: int) -> bool:
    amount = _counted(abs(reward.amount), "credit")
    recipients = f"about {_counted(owners, 'owner')}"
    question = f"Grant {amount} to {recipients}?"
    if reward.amount < 0:
        question = f"Take {amount} from {recipients}?"
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.buffer.readline().strip().lower() in {b"y", b"yes"}


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _swept(
    new_sweep: Callable[..., Sweep],
    reward: Reward,
    planned: Tally,
    segments: int,
    doing: str,
) -> Tally:
    """The tally of a sweep over all owners, by a thread for each segment, with a progress bar."""
    progress = _Progress(planned.owners, doing)
    stopping = Event()

    def sweep_to_end(segment: Segment) -> Tally:
        while not segment.finished:
            before = segment.place
            # A sweep that is stopped sees that its time is up.
            sweep = new_sweep(monotonic=lambda: inf if stopping.is_set() else monotonic())
            segment = sweep.run(segment, seconds=SWEEP_SECONDS_MAX, on_page=progress.add)
            if not segment.finished and segment.place == before:
                busy = len(segment.postponed)
                problem = f"{busy} are written to all the time; run it again later"
                raise UnavailableError(f"owners: {problem}")
        return segment.tally

    total = Tally()
    try:
        with ThreadPoolExecutor(segments) as threads:
            try:
                parts = Segment.all_of(reward, segments, datetime.now(UTC))
                for tally in threads.map(sweep_to_end, parts):
                    total.add(tally)
            except BaseException:
                stopping.set()
                raise
    finally:
        progress.end()
    return total


class _Progress:
    """A bar on a terminal's standard error. Threads may share it."""

    def __init__(self, owners: int, doing: str) -> None:
        self._owners = owners
        self._doing = doing
        self._seen = Tally()
        self._begun = monotonic()
        self._lock = Lock()

    def add(self, tally: Tally) -> None:
        """Count a page of a segment, and draw the bar anew."""
        with self._lock:
            self._seen.add(tally)
            if sys.stderr.isatty():
                print(f"\r{self._line()}\x1b[K", end="", file=sys.stderr)

    def end(self) -> None:
        """End the line of the bar."""
        if sys.stderr.isatty():
            print(file=sys.stderr)

    def _line(self) -> str:
        seen = self._seen.owners
        rate = seen / max(monotonic() - self._begun, 0.001)
        line = f"{seen:,} owners, {rate:,.0f}/s"
        if self._owners:
            share = min(seen / self._owners, 1)
            line = f"[{'#' * int(share * BAR_WIDTH):{BAR_WIDTH}}] {share:4.0%} {line}"
        if self._owners > seen > 0:
            line += f", {(self._owners - seen) / rate:,.0f} s left"
        return f"{self._doing} {line}"
