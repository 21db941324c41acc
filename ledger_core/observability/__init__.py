"""Count what a request uses, and write the log lines that CloudWatch makes metrics of."""

from ledger_core.observability.metric_lines import (
    LOG_VARIABLE,
    SERVICE_VARIABLE,
    LogStyle,
    MetricLines,
    request_lines,
)
from ledger_core.observability.request_metrics import (
    RequestMetrics,
    current_request_metrics,
    measure_request,
)

__all__ = [
    "LOG_VARIABLE",
    "SERVICE_VARIABLE",
    "LogStyle",
    "MetricLines",
    "RequestMetrics",
    "current_request_metrics",
    "measure_request",
    "request_lines",
]
