"""The report of the proofs: an HTML page without other files."""

import platform
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape
from itertools import groupby

from tests.invariants import INVARIANTS, Answer, Outcome
from tests.prove.evidence import Proof
from tests.simulator.simulation import Simulation
from tests.simulator.world import FAULTS, Choices

__all__ = ["report"]

PICTURE_SEED = 2
PICTURE_STEPS = 160
ROW_HEIGHT = 22
TICK_WIDTH = 9
BALANCE_HEIGHT = 90
COLOURS = {
    Outcome.ACCEPTED: "#2a9d5c",
    Outcome.DUPLICATE: "#4c78c8",
    Outcome.REFUSED: "#d9a520",
    Outcome.IN_DOUBT: "#c8443c",
}
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222 }
body { max-width: 60em; margin: 2em auto; padding: 0 1em }
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


TITLE = "What is proved of the ledger"
HISTORY = (
    "Each box is a request of a client in a simulated history; point at a box to read it. The "
    "requests overlap, are lost and are repeated, but the entries have one order. The balance, "
    "below them, changes with each entry and is never below zero."
)


def report(proofs: Sequence[Proof], *, begun: datetime, ended: datetime, mutants: str) -> str:
    """The page.

    Args:
        proofs: the results of the tests.
        begun, ended: the time of the run.
        mutants: the output of mutation testing.
    """
    outcomes = Counter(proof.outcome for proof in proofs)
    totals = _totals(proofs)
    areas = groupby(proofs, key=lambda proof: proof.area)
    minutes = (ended - begun).seconds // 60
    parts = [
        f"<h1>{TITLE}</h1><p>{begun:%Y-%m-%d %H:%M} UTC, {minutes} minutes, "
        f"Python {platform.python_version()}: {outcomes['passed']:,} of {len(proofs):,} tests "
        "passed.</p>",
        _failures(proofs),
        f"<h2>How much was tried</h2>{_bars(totals.most_common())}",
        f"<h2>The invariants of each ledger</h2>{_invariants()}",
        f"<h2>A history</h2><p>{HISTORY}</p>{_picture()}",
        "<h2>What each test shows</h2>",
        *(_area(area, list(of_area)) for area, of_area in areas),
        f"<h2>Changes to the code that no test notices</h2><pre>{escape(mutants)}</pre>",
    ]
    head = f"<!doctype html><meta charset=utf-8><title>{TITLE}</title><style>{STYLE}</style>"
    return f"{head}{''.join(parts)}\n"


def _totals(proofs: Iterable[Proof]) -> Counter[str]:
    totals = Counter[str]()
    for proof in proofs:
        for name, count in proof.counts.items():
            if isinstance(count, int):
                totals[name] += count
    return totals


def _failures(proofs: Iterable[Proof]) -> str:
    failed = [proof for proof in proofs if proof.outcome != "passed"]
    return "".join(f"<p class=failed>{escape(proof.name)}: {proof.outcome}</p>" for proof in failed)


def _bars(counts: Sequence[tuple[str, int]]) -> str:
    """Each count, with a bar by its number of digits."""
    rows = []
    for name, count in counts:
        bar = f"<div class=bar style='width:{14 * len(str(count))}%'></div>"
        rows.append(f"<tr><td>{escape(name)}<td class=number>{count:,}<td width=50%>{bar}")
    return f"<table>{''.join(rows)}</table><p>Each digit makes a bar longer by the same length.</p>"


def _invariants() -> str:
    rows = [
        f"<tr><td>{invariant.__name__.replace('_', ' ')}<td>{escape(invariant.__doc__ or '')}"
        for invariant in INVARIANTS
    ]
    return f"<table>{''.join(rows)}</table>"


def _area(area: str, proofs: Sequence[Proof]) -> str:
    """A file of tests: what each test shows, its number of cases, and its counts."""
    rows = []
    for holds, of_test in groupby(proofs, key=lambda proof: proof.holds):
        tests = list(of_test)
        figures = [f"{count:,} {name}" for name, count in _totals(tests).items()]
        if len(tests) == 1:
            values = tests[0].counts.items()
            figures += [f"{name} {text}" for name, text in values if not isinstance(text, int)]
        outcome = "passed" if all(proof.outcome == "passed" for proof in tests) else "failed"
        times = f" ({len(tests)} cases)" if len(tests) > 1 else ""
        cells = (f"{escape(holds)}{times}", escape(", ".join(figures)))
        rows.append(f"<tr><td class={outcome}>{outcome}<td>{'<td>'.join(cells)}")
    seconds = sum(proof.seconds for proof in proofs)
    summary = f"<summary>{escape(area)} ({seconds:,.0f} s)</summary>"
    return f"<details>{summary}<table>{''.join(rows)}</table></details>"


def _picture() -> str:
    """A drawing of a simulated history of an owner: the requests, their answers, the balance."""
    simulation = Simulation(Choices(PICTURE_SEED), PICTURE_STEPS, owners=("ada",))
    simulation.run()
    answers = simulation.answers
    instants = sorted({instant for answer in answers for instant in (answer.begun, answer.ended)})
    x = {instant: 10 + TICK_WIDTH * number for number, instant in enumerate(instants)}
    rows = _rows(answers)
    bottom = ROW_HEIGHT * (max(rows) + 1) + 10 + BALANCE_HEIGHT
    boxes = []
    for answer, row in zip(answers, rows, strict=True):
        left = x[answer.begun]
        width = max(x[answer.ended] - left, 3)
        boxes.append(
            f"<rect x={left} y={ROW_HEIGHT * row + 4} width={width} height={ROW_HEIGHT - 6} "
            f"rx=3 fill='{COLOURS[answer.outcome]}'><title>{escape(_text(answer))}</title></rect>"
        )
    new = sorted(
        (x[answer.ended], answer.entry)
        for answer in answers
        if answer.outcome is Outcome.ACCEPTED and answer.entry
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
    width = 20 + TICK_WIDTH * len(instants)
    return (
        f"<div style='overflow-x:auto'><svg width={width} height={bottom + 24}>{''.join(boxes)}"
        f"<polyline points='{line}' fill=none stroke='#222' stroke-width=1.5 />"
        f"<line x1=10 x2={width} y1={bottom} y2={bottom} stroke='#999' />"
        f"<text x=10 y={bottom + 16}>balance 0; "
        f"seed {PICTURE_SEED}, {PICTURE_STEPS} steps; requests: {escape(faults)}; "
        f"{simulation.world.faults['crash']} crashes</text></svg></div><p>{_legend()}</p>"
    )


def _rows(answers: Sequence[Answer]) -> list[int]:
    """A row for each answer, so that no box covers another."""
    free_from: list[float] = []
    rows = []
    for answer in answers:
        free = [number for number, since in enumerate(free_from) if since <= answer.begun]
        if free:
            row = free[0]
            free_from[row] = answer.ended
        else:
            row = len(free_from)
            free_from.append(answer.ended)
        rows.append(row)
    return rows


def _legend() -> str:
    return " ".join(
        f"<span style='color:{colour}'>&#9632;</span> {outcome}"
        for outcome, colour in COLOURS.items()
    )


def _text(answer: Answer) -> str:
    request = answer.request
    entry = answer.entry
    amount = "" if request.amount is None else f" {request.amount}"
    result = f": entry {entry.id}, balance {entry.balance_after}" if entry else ""
    return f"{request.operation}{amount} under {request.nonce}: {answer.outcome}{result}"
