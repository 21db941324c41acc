"""moto for tests: the answers of `mock_aws`, without what takes longer than most tests.

`mock_aws` prepares a mock of `requests` too, and a client takes as long to create: 20 ms in all.
Here only botocore is mocked, and the tests of one process share a client.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config
from moto.core.base_backend import BackendDict
from moto.core.model_instances import reset_model_data
from moto.core.models import botocore_stubber

from infra.dynamodb import OneCallAtATime
from infra.environment import REGION

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


@contextmanager
def quick_moto() -> Iterator["DynamoDBClient"]:
    """An empty moto, and the client; what a test registers with the client ends with the test."""
    client = _client()
    with pytest.MonkeyPatch.context() as monkeypatch:
        forget = _remember_registrations(client.meta.events, monkeypatch)
        botocore_stubber.enabled = True
        try:
            yield OneCallAtATime(client)  # type: ignore[misc]  # stands in
        finally:
            botocore_stubber.enabled = False
            BackendDict.reset()
            reset_model_data()
            forget()


@cache
def _client() -> Any:
    """The client of all tests, whatever endpoint the first of them has in its environment."""
    config = Config(ignore_configured_endpoint_urls=True)  # type: ignore[call-arg]  # not in the stubs
    return boto3.Session().client("dynamodb", region_name=REGION, config=config)


def _remember_registrations(events: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Note every handler that is registered from now on. The function unregisters them all."""
    registered: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def noting(register: Callable[..., None]) -> Callable[..., None]:
        def note(*arguments: Any, **options: Any) -> None:
            registered.append((arguments, options))
            register(*arguments, **options)

        return note

    for name in ("register", "register_first", "register_last"):
        monkeypatch.setattr(events, name, noting(getattr(events, name)))

    def forget() -> None:
        for arguments, options in registered:
            events.unregister(*arguments, **options)

    return forget
