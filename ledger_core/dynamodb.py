"""Around each request to DynamoDB: what it used is counted, the clock is held against the answer, and botocore's errors
become ours. Nowhere else."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    MetadataRetrievalError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.parsers import ResponseParserError

from ledger_core.clock import SystemClock
from ledger_core.errors import ContentionError, LedgerError, StoreError, UnavailableError
from ledger_core.responses import units_from
from ledger_core.usage import current_usage

__all__ = ["ClientError", "Request", "dynamodb_request"]

ERRORS: Mapping[str, type[LedgerError]] = {
    # Codes of errors. All that are not here are StoreError, which is not tried again, unless the status is 5xx.
    "ExpiredToken": UnavailableError,  # until the credentials are renewed
    "ExpiredTokenException": UnavailableError,
    "InternalServerError": UnavailableError,
    "ProvisionedThroughputExceededException": UnavailableError,
    "RequestLimitExceeded": UnavailableError,
    "ServiceUnavailable": UnavailableError,
    "ThrottlingException": UnavailableError,
    "TransactionInProgressException": UnavailableError,  # an earlier try under the same token is still on its way
    # Codes of the reasons why a transaction was cancelled.
    "ProvisionedThroughputExceeded": UnavailableError,
    "ThrottlingError": UnavailableError,
    "TransactionConflict": ContentionError,
}
SIGNATURE_IS_OFF = {"InvalidSignatureException", "RequestExpired", "RequestTimeTooSkewed"}
"""Codes of what a clock that is minutes off leads to, and a wrong key too."""
TRANSIENT = {408, 429}
"""Statuses that something between us and DynamoDB may answer with, for a while."""
UNREADABLE = (ResponseParserError, ValueError, TypeError, AttributeError, LookupError)
"""What botocore raises when a body is not DynamoDB's: no JSON, no UTF-8, or JSON of another shape."""


class Request:
    """One that is under way: whoever has the answer says so, by what kind of request it was."""

    def __init__(self, clock: SystemClock) -> None:
        self._clock = clock
        self._since = clock.wall()

    def read(self, response: Mapping[str, Any]) -> None:
        """Count what was read."""
        current_usage().read_units += units_from(response)
        self._hold_clock(response)

    def wrote(self, response: Mapping[str, Any]) -> None:
        """Count what was written."""
        current_usage().write_units += units_from(response)
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
        ContentionError, UnavailableError: the same request may succeed later (a write may even have been done).
        StoreError: it will not.
    """
    usage, begun = current_usage(), perf_counter()
    usage.dynamodb_requests += 1
    request = Request(clock)
    try:
        yield request
    except ClientError as error:
        request.failed(error.response)
        if error.response["Error"]["Code"] in SIGNATURE_IS_OFF:
            clock()
        raise _translated(error) from error
    except (HTTPClientError, BotoConnectionError, *UNREADABLE) as error:
        raise UnavailableError(f"DynamoDB did not answer: {type(error).__name__}") from error
    except (CredentialRetrievalError, MetadataRetrievalError) as error:
        raise UnavailableError(f"no credentials could be had: {type(error).__name__}") from error
    except BotoCoreError as error:
        code = type(error).__name__
        raise StoreError(f"the call to DynamoDB could not be made: {error}", dynamodb_code=code) from error
    finally:
        usage.dynamodb_seconds += perf_counter() - begun


def _translated(error: ClientError) -> LedgerError:
    code = error.response["Error"]["Code"]
    reasons = [reason["Code"] for reason in error.response.get("CancellationReasons", ())]
    for candidate in (*reasons, code):
        if candidate in ERRORS:
            return ERRORS[candidate](f"DynamoDB is busy: {candidate}")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if status >= 500 or status in TRANSIENT or code == str(status):  # botocore's code for a body that names no error
        return UnavailableError(f"DynamoDB failed: {code}")
    return StoreError(f"DynamoDB refused: {error}", dynamodb_code=code)
