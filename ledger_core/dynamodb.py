"""Around each request to DynamoDB: what it used is counted, and botocore's errors become ours. Nowhere else."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.parsers import ResponseParserError

from ledger_core.errors import ContentionError, LedgerError, StoreError, UnavailableError
from ledger_core.usage import Usage, current_usage

__all__ = ["ClientError", "dynamodb_request"]

ERRORS: Mapping[str, type[LedgerError]] = {
    # Codes of errors. All that are not here are StoreError, which is not tried again, unless the status is 5xx.
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


@contextmanager
def dynamodb_request() -> Iterator[Usage]:
    """Measure the one request that is made inside.

    Raises:
        ContentionError, UnavailableError: the same request may succeed later (a write may even have been done).
        StoreError: it will not.
    """
    usage, begun = current_usage(), perf_counter()
    usage.dynamodb_requests += 1
    try:
        yield usage
    except ClientError as error:
        raise _translated(error) from error
    except (HTTPClientError, BotoConnectionError, ResponseParserError) as error:
        raise UnavailableError(f"DynamoDB did not answer: {type(error).__name__}") from error
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
    if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500:
        return UnavailableError(f"DynamoDB failed: {code}")
    return StoreError(f"DynamoDB refused: {error}", dynamodb_code=code)
