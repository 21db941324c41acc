"""The store and the keys of a command. An endpoint that does not answer is named in 3 seconds."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ledger_core import wiring
from ledger_core.audit import Read
from ledger_core.dynamodb import SWEEP_CONFIG, SweepStore
from ledger_core.errors import StoreError, UnavailableError
from ledger_core.operations import BaseLedgerOperations
from ledger_core.posting import TIMEOUT_SECONDS, OperationProcessor

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

T = TypeVar("T")

__all__ = [
    "ANSWER_SECONDS_MAX",
    "Ledgers",
    "NoAnswerError",
    "answer_of",
    "naming",
    "open_ledgers",
    "open_sweeps",
]

ANSWER_SECONDS_MAX = 2.25
"""How long a command waits for the first answer. With its start it takes less than 3 seconds."""
STEP_SECONDS = 0.05
"""The length of a step of this wait. On a busy machine each step takes longer, and so the wait."""
REASONS = {
    "ConnectTimeoutError": "no connection in time",
    "ReadTimeoutError": "nothing in time",
    "EndpointConnectionError": "it cannot be reached",
    "ConnectionClosedError": "it closed the connection",
    "ProxyConnectionError": "the proxy cannot be reached",
    "SSLError": "its certificate is not trusted, or it does not speak TLS",
}
"""Why no answer came, by the name of botocore's error."""


class NoAnswerError(UnavailableError):
    """An endpoint does not answer. It will not answer the next call either."""


class Ledgers(NamedTuple):
    """The store that the environment names."""

    store: SweepStore
    read: Read
    endpoint: str


def open_ledgers() -> Ledgers:
    """The store, for reading the account of one owner after the other.

    Raises:
        NoAnswerError: DynamoDB does not answer.
    """
    return _opened(wiring.create_client())


def open_sweeps() -> Ledgers:
    """The store, for sweeps over all owners. Raises as `open_ledgers`."""
    return _opened(wiring.create_client(SWEEP_CONFIG))


def _opened(client: "DynamoDBClient") -> Ledgers:
    store = wiring.create_account_store(client)
    endpoint = client.meta.endpoint_url
    answer_of(endpoint, partial(_ask, store))
    processor = OperationProcessor(store, BaseLedgerOperations)

    def read(call: Callable[[], T]) -> T:
        return processor.budget(TIMEOUT_SECONDS).call(call)

    return Ledgers(store, read, endpoint)


def _ask(store: SweepStore) -> None:
    """Check that DynamoDB answers. A refusal is an answer: the role may lack this permission."""
    try:
        store.account("ledger", consistent=False)
    except StoreError:
        return
    except UnavailableError as error:
        if not getattr(error.__cause__, "response", None):
            raise


def answer_of(name: str, call: Callable[[], T]) -> T:
    """The result of a call, which is made once.

    Raises:
        NoAnswerError: `name` did not answer within ANSWER_SECONDS_MAX.
    """
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:
            answer.set_exception(error)

    Thread(target=run, daemon=True).start()
    for _ in range(int(ANSWER_SECONDS_MAX / STEP_SECONDS)):
        wait([answer], STEP_SECONDS)
        if answer.done():
            with naming(name):
                return answer.result()
    raise NoAnswerError(f"no answer from {name} (nothing in time)")


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Name the endpoint in an UnavailableError: by its URL if that is known, else by `name`."""
    try:
        yield
    except NoAnswerError:
        raise
    except UnavailableError as error:
        cause: Any = error.__cause__
        reason = REASONS.get(type(cause).__name__)
        if reason:
            url = cause.kwargs.get("endpoint_url", name)
            raise NoAnswerError(f"no answer from {url} ({reason})") from None
        if "did not answer" in str(error):
            raise NoAnswerError(f"no answer from {name} (another server answered)") from None
        if cause:
            raise UnavailableError(f"{name}: {error}") from cause
        raise
