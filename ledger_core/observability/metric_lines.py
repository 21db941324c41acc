"""Structured log lines in the embedded metric format, from which CloudWatch makes metrics."""

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
"""The environment variable that names the service of the metrics; in a stack, the stack."""
LOG_VARIABLE = "LEDGER_LOG"
"""The environment variable with the style of a server's log lines: `json` (default) or `short`."""
UNITS = {
    "Latency": "Milliseconds",
    "RewardsDeviation": "Percent",
    "RewardsPerSecond": "Count/Second",
    "RewardsRunTime": "Seconds",
}
"""The unit of a metric, if it is not a count."""

SHORT_FIELDS = ("method", "route", "status", "code", "operation")
"""The fields of a short line, in their order."""

_ENCODER = JSONEncoder(separators=(",", ":"))


class MetricLines:
    """Writes log lines with metrics, which have the dimension `service`."""

    def __init__(self) -> None:
        self._service = os.environ.get(SERVICE_VARIABLE) or "ledger"

    def write(
        self,
        fields: Mapping[str, Any],
        metrics: Mapping[str, float],
        *,
        by: str | None = None,
    ) -> None:
        """Write a line to standard output.

        Args:
            fields: the fields of the line; a field that is None is left out.
            metrics: the metrics of the line; a count of 0 is left out.
            by: a field that is a second dimension. CloudWatch then keeps each metric twice: for
                all values of the field together, and for each value.
        """
        counted = {name: number for name, number in metrics.items() if number or name in UNITS}
        dimensions = [["service"]]
        if by:
            dimensions.append(["service", by])
        directive = {
            "Namespace": METRICS_NAMESPACE,
            "Dimensions": dimensions,
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
    """`SHORT` is for people at a terminal, `JSON` for CloudWatch."""

    SHORT = "short"
    JSON = "json"


class ShortLines:
    """Writes short lines for a person at a terminal, without metrics."""

    def write(self, fields: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Write a line to standard output, and flush it."""
        values = " ".join(str(fields.get(name) or "-") for name in SHORT_FIELDS)
        sys.stdout.write(f"{strftime('%H:%M:%S')} {values} {metrics['Latency']:.1f} ms\n")
        sys.stdout.flush()


def request_lines() -> MetricLines | ShortLines:
    """The writer of requests' lines. In Lambda it always writes JSON, for CloudWatch's metrics."""
    is_in_lambda = "AWS_LAMBDA_FUNCTION_NAME" in os.environ
    if os.environ.get(LOG_VARIABLE) == LogStyle.SHORT and not is_in_lambda:
        return ShortLines()
    return MetricLines()
