"""What goes wrong in a call to AWS, as errors of ours: those after which the same call may succeed,
and the others."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    MetadataRetrievalError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.parsers import ResponseParserError

from ledger_core.errors import ContentionError, LedgerError, StoreError, UnavailableError

__all__ = ["busy_error", "translate_errors"]

ERRORS: Mapping[str, type[LedgerError]] = {
    # Codes of errors. All that are not here are StoreError, which is not tried again, unless the
    # status is 5xx.
    "ExpiredToken": UnavailableError,  # until the credentials are renewed
    "ExpiredTokenException": UnavailableError,
    "InternalServerError": UnavailableError,
    "ProvisionedThroughputExceededException": UnavailableError,
    "RequestLimitExceeded": UnavailableError,
    "ServiceUnavailable": UnavailableError,
    "ThrottlingException": UnavailableError,
    # an earlier try under the same token is still on its way
    "TransactionInProgressException": UnavailableError,
    # Codes of the reasons why DynamoDB cancelled a transaction.
    "ProvisionedThroughputExceeded": UnavailableError,
    "ThrottlingError": UnavailableError,
    "TransactionConflict": ContentionError,
}
TRANSIENT = {408, 429}
"""Statuses that something between us and AWS may answer with, for a while."""
UNREADABLE = (ResponseParserError, ValueError, TypeError, AttributeError, LookupError)
"""What botocore raises when a body is not AWS's: no JSON, no UTF-8, or JSON of another shape."""
EXPIRED = "credentials are still expired"
"""In a RuntimeError of botocore's: the credential provider gave credentials that have expired."""


@contextmanager
def translate_errors(service: str) -> Iterator[None]:
    """Around one call of a service.

    Raises:
        ContentionError, UnavailableError: the same call may succeed later (what was asked for may
            even have been done).
        StoreError: it will not.
    """
    try:
        yield
    except ClientError as error:
        raise _translated(service, error) from error
    except (CredentialRetrievalError, MetadataRetrievalError) as error:
        raise UnavailableError(f"no credentials could be had: {type(error).__name__}") from error
    except (HTTPClientError, BotoConnectionError) as error:
        raise UnavailableError(f"{service} did not answer: {type(error).__name__}") from error
    except BotoCoreError as error:
        code = type(error).__name__
        raise StoreError(
            f"the call to {service} could not be made: {error}", dynamodb_code=code
        ) from error
    except UNREADABLE as error:
        raise UnavailableError(f"{service} did not answer: {type(error).__name__}") from error
    except RuntimeError as error:
        if EXPIRED not in str(error):
            raise
        raise UnavailableError("no credentials could be had but expired ones") from error


def busy_error(service: str, code: str) -> LedgerError:
    """The error for a code of ERRORS: the same call may succeed later."""
    return ERRORS[code](f"{service} is busy: {code}")


def _translated(service: str, error: ClientError) -> LedgerError:
    code = error.response["Error"]["Code"]
    reasons = [reason["Code"] for reason in error.response.get("CancellationReasons", ())]
    for candidate in (*reasons, code):
        if candidate in ERRORS:
            return busy_error(service, candidate)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    # botocore's code for a body that names no error is the status
    if status >= 500 or status in TRANSIENT or code == str(status):
        return UnavailableError(f"{service} failed: {code}")
    return StoreError(f"{service} refused: {error}", dynamodb_code=code)
