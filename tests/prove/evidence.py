"""The evidence of the tests: what they show, by their docstrings, and their counts."""

import inspect
from dataclasses import dataclass, field
from typing import Any

import pytest

__all__ = ["Evidence", "Proof"]


@dataclass
class Proof:
    """A test that was run."""

    area: str
    """The subject of its file."""
    name: str
    holds: str
    """The statement that the test shows."""
    outcome: str = "not run"
    seconds: float = 0.0
    counts: dict[str, Any] = field(default_factory=dict)


class Evidence:
    """A plugin of pytest that gathers it."""

    def __init__(self) -> None:
        self._by_id: dict[str, Proof] = {}

    @property
    def proofs(self) -> list[Proof]:
        """In the order in which they ran."""
        return list(self._by_id.values())

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            module, test = getattr(item, "module", None), getattr(item, "obj", None)
            area = (inspect.getdoc(module) or item.nodeid).partition("\n")[0]
            self._by_id[item.nodeid] = Proof(
                area, item.name, (inspect.getdoc(test) or "").partition("\n")[0]
            )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        proof = self._by_id[report.nodeid]
        proof.seconds += report.duration
        if report.when == "call" or not report.passed:
            proof.outcome = report.outcome
            proof.counts = dict(report.user_properties)
