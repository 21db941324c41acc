"""The report of what was proved: one HTML page that needs nothing else."""

import platform
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape
from itertools import groupby
from typing import Any

from tests.invariants import INVARIANTS, Answer, Outcome
from tests.prove.evidence import Proof
from tests.simulator.simulation import Simulation
from tests.simulator.world import FAULTS, Choices

__all__ = ["report"]

PICTURE_SEED = 2
PICTURE_STEPS = 160
LANE, TICK, BALANCE_HEIGHT = 22, 9, 90
COLOURS = {
    Outcome.ACCEPTED: "#2a9d5c",
    Outcome.DUPLICATE: "#4c78c8",
    Outcome.REFUSED: "#d9a520",
    Outcome.IN_DOUBT: "#c8443c",
}
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; width: 100% }
td { padding: .15em .8em .15em 0; vertical-align: top }
td.number { text-align: right; font-variant-numeric: tabular-nums }
.passed { color: #2a7d4c }
.failed { color: #b3261e }
.bar { background: #4c78c8; height: .8em }
summary { cursor: pointer }
pre { overflow-x: auto }
svg text { font: 11px sans-serif }
"""


def report(proofs: Sequence[Proof], *, begun: datetime, ended: datetime, mutants: str) -> str:
    """The page.

    Args:
        proofs: what tests have shown.
        begun, ended: when.
        mutants: what mutation testing printed.
    """
    outcomes = Counter(proof.outcome for proof in proofs)
    totals = Counter[str]()
    for proof in proofs:
        totals.update(
            {name: count for name, count in proof.counts.items() if isinstance(count, int)}
        )
    parts = [
        f"<h1>What is proved of the ledger</h1><p>{begun:%Y-%m-%d %H:%M} UTC, {(ended - begun).seconds // 60} minutes, "
        f"Python {platform.python_version()}: {outcomes['passed']:,} of {len(proofs):,} tests passed.</p>",
        _failures(proofs),
        f"<h2>How much was tried</h2>{_bars(totals.most_common())}",
        f"<h2>What is asked of every ledger afterwards</h2>{_invariants()}",
        "<h2>One history</h2><p>Each box is a request of a client in a simulated history; point at one to "
        "read it. They overlap, are lost and are repeated; the entries come in one order all the same, and the "
        f"balance, below them, goes from entry to entry and never below zero.</p>{_picture()}",
        "<h2>What each test shows</h2>",
        *(
            _area(area, list(of_area))
            for area, of_area in groupby(proofs, key=lambda proof: proof.area)
        ),
        f"<h2>Changes to the code that no test notices</h2><pre>{escape(mutants)}</pre>",
    ]
    title = "What is proved of the ledger"
    return f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{STYLE}</style>{''.join(parts)}\n"


def _failures(proofs: Iterable[Proof]) -> str:
    failed = [proof for proof in proofs if proof.outcome != "passed"]
    return "".join(f"<p class=failed>{escape(proof.name)}: {proof.outcome}</p>" for proof in failed)


def _bars(counts: Sequence[tuple[str, int]]) -> str:
    """Each count, and a bar by its number of digits."""
    rows = [
        f"<tr><td>{escape(name)}<td class=number>{count:,}<td width=50%><div class=bar style='width:{width}%'></div>"
        for name, count in counts
        if (width := 14 * len(str(count)))
    ]
    return (
        f"<table>{''.join(rows)}</table><p>A bar is longer by the same length for every digit.</p>"
    )


def _invariants() -> str:
    rows = [
        f"<tr><td>{one.__name__.replace('_', ' ')}<td>{escape(one.__doc__ or '')}"
        for one in INVARIANTS
    ]
    return f"<table>{''.join(rows)}</table>"


def _area(area: str, proofs: Sequence[Proof]) -> str:
    """One file of tests: what holds, how often it was tried with other values, and what was counted."""
    rows = []
    for holds, of_test in groupby(proofs, key=lambda proof: proof.holds):
        tests = list(of_test)
        counts = Counter[str]()
        texts: dict[str, Any] = {}
        for proof in tests:
            counts.update(
                {name: count for name, count in proof.counts.items() if isinstance(count, int)}
            )
            texts |= {
                name: text for name, text in proof.counts.items() if not isinstance(text, int)
            }
        told = [f"{count:,} {name}" for name, count in counts.items()]
        told += [f"{name} {text}" for name, text in texts.items() if len(tests) == 1]
        outcome = "passed" if all(proof.outcome == "passed" for proof in tests) else "failed"
        times = f" ({len(tests)} cases)" if len(tests) > 1 else ""
        rows.append(
            f"<tr><td class={outcome}>{outcome}<td>{escape(holds)}{times}<td>{escape(', '.join(told))}"
        )
    seconds = sum(proof.seconds for proof in proofs)
    return f"<details><summary>{escape(area)} ({seconds:,.0f} s)</summary><table>{''.join(rows)}</table></details>"


def _picture() -> str:
    """A simulated history of one owner, drawn: who asked when and was told what, and the balance."""
    simulation = Simulation(Choices(PICTURE_SEED), PICTURE_STEPS, owners=("ada",))
    simulation.run()
    told = simulation.answers
    instants = sorted({instant for one in told for instant in (one.begun, one.ended)})
    x = {instant: 10 + TICK * number for number, instant in enumerate(instants)}
    lanes = _lanes(told)
    bottom = LANE * (max(lanes) + 1) + 10 + BALANCE_HEIGHT
    boxes = [
        f"<rect x={x[one.begun]} y={LANE * lane + 4} width={max(x[one.ended] - x[one.begun], 3)} height={LANE - 6} "
        f"rx=3 fill='{COLOURS[one.outcome]}'><title>{escape(_told(one))}</title></rect>"
        for one, lane in zip(told, lanes, strict=True)
    ]
    new = sorted(
        (x[one.ended], one.entry) for one in told if one.outcome is Outcome.ACCEPTED and one.entry
    )
    highest = max([entry.balance_after for _, entry in new] or [1])
    points = [(10, 0), *((place, entry.balance_after) for place, entry in new)]
    line = " ".join(
        f"{place},{bottom - BALANCE_HEIGHT * balance / max(highest, 1):.0f}"
        for place, balance in points
    )
    faults = ", ".join(
        f"{simulation.world.faults[name]} {name}"
        for name in FAULTS
        if simulation.world.faults[name]
    )
    width = 20 + TICK * len(instants)
    return (
        f"<div style='overflow-x:auto'><svg width={width} height={bottom + 24}>{''.join(boxes)}"
        f"<polyline points='{line}' fill=none stroke='#222' stroke-width=1.5 />"
        f"<line x1=10 x2={width} y1={bottom} y2={bottom} stroke='#999' /><text x=10 y={bottom + 16}>balance 0; "
        f"seed {PICTURE_SEED}, {PICTURE_STEPS} steps; requests: {escape(faults)}; "
        f"{simulation.world.faults['crash']} crashes</text></svg></div><p>{_legend()}</p>"
    )


def _lanes(told: Sequence[Answer]) -> list[int]:
    """A lane for each answer, so that none lies over another."""
    free_from: list[float] = []
    lanes = []
    for one in told:
        lane = next(
            (number for number, since in enumerate(free_from) if since <= one.begun), len(free_from)
        )
        free_from[lane:] = [one.ended, *free_from[lane + 1 :]]
        lanes.append(lane)
    return lanes


def _legend() -> str:
    return " ".join(
        f"<span style='color:{colour}'>&#9632;</span> {outcome}"
        for outcome, colour in COLOURS.items()
    )


def _told(answer: Answer) -> str:
    request, entry = answer.request, answer.entry
    amount = "" if request.amount is None else f" {request.amount}"
    came = f": entry {entry.id}, balance {entry.balance_after}" if entry else ""
    return f"{request.operation}{amount} under {request.nonce}: {answer.outcome}{came}"
