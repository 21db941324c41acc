"""Structured log lines from which CloudWatch makes metrics as well, in its embedded metric format."""

import json
import sys
from collections.abc import Mapping
from typing import Any

from aws_lambda_powertools.metrics import EphemeralMetrics, MetricUnit

__all__ = ["METRICS_NAMESPACE", "MetricLines"]

METRICS_NAMESPACE = "SharedLedger"
UNITS = {
    "Latency": MetricUnit.Milliseconds,
    "RewardsDeviation": MetricUnit.Percent,
    "RewardsPerSecond": MetricUnit.CountPerSecond,
    "RewardsRunTime": MetricUnit.Seconds,
}
"""Of the metrics that are no counts."""


class MetricLines:
    """Writes lines under the dimension `service`, which is POWERTOOLS_SERVICE_NAME."""

    def __init__(self) -> None:
        self._metrics = EphemeralMetrics(namespace=METRICS_NAMESPACE)

    def write(self, fields: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Write one line to the standard output: fields that are not None, metrics, of which counts are not 0."""
        try:
            for name, value in fields.items():
                if value is not None:
                    self._metrics.add_metadata(name, value)
            for name, number in metrics.items():
                if number or name in UNITS:
                    self._metrics.add_metric(name, UNITS.get(name, MetricUnit.Count), number)
            sys.stdout.write(f"{json.dumps(self._metrics.serialize_metric_set(), separators=(',', ':'))}\n")
        finally:
            self._metrics.clear_metrics()
