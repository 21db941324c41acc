"""Structured log lines from which CloudWatch makes metrics as well, in its embedded metric format."""

import os
import sys
from collections.abc import Mapping
from enum import StrEnum
from json import JSONEncoder
from time import strftime, time
from typing import Any

__all__ = [
    "LOG_VARIABLE",
    "METRICS_NAMESPACE",
    "SERVICE_VARIABLE",
    "LogStyle",
    "MetricLines",
    "ShortLines",
    "request_lines",
]

METRICS_NAMESPACE = "SharedLedger"
SERVICE_VARIABLE = "LEDGER_SERVICE"
"""The environment's name for what the metrics are of; in a stack, the stack."""
LOG_VARIABLE = "LEDGER_LOG"
"""The environment's name for how a request is logged, where nobody makes metrics of it; JSON unless it says `short`."""
UNITS = {
    "Latency": "Milliseconds",
    "RewardsDeviation": "Percent",
    "RewardsPerSecond": "Count/Second",
    "RewardsRunTime": "Seconds",
}
"""Of the metrics that are no counts."""

_ENCODER = JSONEncoder(separators=(",", ":"))


class MetricLines:
    """Writes lines whose metrics have the dimension `service`, and once more with another one if a line has it."""

    def __init__(self) -> None:
        self._service = os.environ.get(SERVICE_VARIABLE) or "ledger"

    def write(
        self, fields: Mapping[str, Any], metrics: Mapping[str, float], *, by: str | None = None
    ) -> None:
        """Write one line to the standard output.

        Args:
            fields: of the line; those that are None are left out.
            metrics: of the line; counts that are 0 are left out.
            by: a field whose values the metrics are counted by as well, beside the sum of them all.
        """
        counted = {name: number for name, number in metrics.items() if number or name in UNITS}
        directive = {
            "Namespace": METRICS_NAMESPACE,
            "Dimensions": [["service"], *([["service", by]] if by else [])],
            "Metrics": [{"Name": name, "Unit": UNITS.get(name, "Count")} for name in counted],
        }
        line = {
            "_aws": {"Timestamp": int(time() * 1000), "CloudWatchMetrics": [directive]},
            "service": self._service,
            **{name: value for name, value in fields.items() if value is not None},
            **counted,
        }
        sys.stdout.write(f"{_ENCODER.encode(line)}\n")


class LogStyle(StrEnum):
    """For people at a terminal, or for CloudWatch."""

    SHORT = "short"
    JSON = "json"


class ShortLines:
    """Writes what a person wants to see of a request while it runs, and no metrics."""

    def write(self, fields: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Write one line to the standard output, at once."""
        what = [
            str(fields.get(name) or "-")
            for name in ("method", "route", "status", "code", "operation")
        ]
        sys.stdout.write(f"{strftime('%H:%M:%S')} {' '.join(what)} {metrics['Latency']:.1f} ms\n")
        sys.stdout.flush()


def request_lines() -> MetricLines | ShortLines:
    """How requests are logged here; in Lambda always as JSON, of which CloudWatch makes metrics."""
    is_short = (
        os.environ.get(LOG_VARIABLE) == LogStyle.SHORT
        and "AWS_LAMBDA_FUNCTION_NAME" not in os.environ
    )
    return ShortLines() if is_short else MetricLines()
