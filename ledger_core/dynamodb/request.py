"""Each request to DynamoDB goes through here: its capacity is counted, and the clock is held
against its answer."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from botocore.exceptions import ClientError

from ledger_core.dynamodb.clock import SystemClock
from ledger_core.dynamodb.decode import units_from
from ledger_core.dynamodb.errors import translate_errors
from ledger_core.observability import current_request_metrics

__all__ = ["ClientError", "Request", "dynamodb_request"]

SIGNATURE_IS_OFF = {"InvalidSignatureException", "RequestExpired", "RequestTimeTooSkewed"}
"""Codes of what a clock that is minutes off leads to, and a wrong key too."""


class Request:
    """A request that is under way. The caller reports its answer by `read`, `wrote` or `failed`."""

    def __init__(self, clock: SystemClock) -> None:
        self._clock = clock
        self._since = clock.wall()

    def read(self, response: Mapping[str, Any]) -> None:
        """Count what was read."""
        current_request_metrics().read_units += units_from(response)
        self._hold_clock(response)

    def wrote(self, response: Mapping[str, Any]) -> None:
        """Count what was written."""
        current_request_metrics().write_units += units_from(response)
        self._hold_clock(response)

    def failed(self, response: Mapping[str, Any]) -> None:
        """Note the answer that is an error; one without a request id is not DynamoDB's."""
        if response.get("ResponseMetadata", {}).get("RequestId"):
            self._hold_clock(response)

    def _hold_clock(self, response: Mapping[str, Any]) -> None:
        headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        self._clock.hold(headers.get("date"), since=self._since)


@contextmanager
def dynamodb_request(clock: SystemClock) -> Iterator[Request]:
    """Measure the one request that is made inside, and hold `clock` against its answer.

    Raises:
        ContentionError, UnavailableError: the same request may succeed later (a write may even have
            been done).
        StoreError: it will not.
    """
    metrics = current_request_metrics()
    started = perf_counter()
    metrics.dynamodb_requests += 1
    request = Request(clock)
    with translate_errors("DynamoDB"):
        try:
            yield request
        except ClientError as error:
            request.failed(error.response)
            if error.response["Error"]["Code"] in SIGNATURE_IS_OFF:
                clock()
            raise
        finally:
            metrics.dynamodb_seconds += perf_counter() - started
