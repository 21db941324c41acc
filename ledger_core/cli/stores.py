"""The store and the keys of a command. An endpoint that does not answer is named within three seconds."""

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
"""How long a command waits for a first answer. With the time that it takes to start, people know within 3 seconds."""
STEP_SECONDS = 0.05
"""It waits in steps, which take longer where the machine has too much to do to be quick itself."""
REASONS = {
    "ConnectTimeoutError": "no connection in time",
    "ReadTimeoutError": "nothing in time",
    "EndpointConnectionError": "it cannot be reached",
    "ConnectionClosedError": "it closed the connection",
    "ProxyConnectionError": "the proxy cannot be reached",
    "SSLError": "its certificate is not trusted, or it does not speak TLS",
}
"""What came instead of an answer, by botocore's names."""


class NoAnswerError(UnavailableError):
    """Somebody does not answer, and will not answer the next call either."""


class Ledgers(NamedTuple):
    """The store that the environment names."""

    store: SweepStore
    read: Read
    endpoint: str


def open_ledgers() -> Ledgers:
    """The store, for reading one owner's ledger after the other.

    Raises:
        NoAnswerError: it does not answer.
    """
    return _opened(wiring.create_client())


def open_sweeps() -> Ledgers:
    """The store, for sweeping all owners. Raises as `open_ledgers`."""
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
    """See whether anybody is there: whatever DynamoDB says is an answer, and a reader may be refused this call."""
    try:
        store.account("ledger", consistent=False)
    except StoreError:
        return
    except UnavailableError as error:
        if not getattr(error.__cause__, "response", None):
            raise


def answer_of(name: str, call: Callable[[], T]) -> T:
    """What a call answers, made once.

    Raises:
        NoAnswerError: nothing, within ANSWER_SECONDS_MAX; it says that `name` did not.
    """
    answer: Future[T] = Future()

    def answering() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:
            answer.set_exception(error)

    Thread(target=answering, daemon=True).start()
    for _ in range(int(ANSWER_SECONDS_MAX / STEP_SECONDS)):
        wait([answer], STEP_SECONDS)
        if answer.done():
            with naming(name):
                return answer.result()
    raise NoAnswerError(f"no answer from {name} (nothing in time)")


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Say who did not answer, by the URL where it is known, else by name."""
    try:
        yield
    except NoAnswerError:
        raise
    except UnavailableError as error:
        cause: Any = error.__cause__
        reason = REASONS.get(type(cause).__name__)
        if reason:
            raise NoAnswerError(
                f"no answer from {cause.kwargs.get('endpoint_url', name)} ({reason})"
            ) from None
        if "did not answer" in str(error):
            raise NoAnswerError(
                f"no answer from {name} (what came instead is not its own)"
            ) from None
        raise (UnavailableError(f"{name}: {error}") if cause else error) from cause
