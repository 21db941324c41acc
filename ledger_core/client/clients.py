"""The two clients: for threads, and for asyncio. Each sends, waits, and returns answers."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import datetime
from types import TracebackType
from typing import Self

import httpx

from ledger_core.client.answers import Balance, Page, Verification, original, read
from ledger_core.client.attempts import Attempts
from ledger_core.client.calls import Call
from ledger_core.errors import DuplicateNonceError
from ledger_core.keys import CREDIT
from ledger_core.models import LedgerEntry, OperationRequest

__all__ = ["TIMEOUT_SECONDS", "AsyncLedgerClient", "LedgerClient"]

TIMEOUT_SECONDS = 30.0
"""Of one call, with all of its attempts."""


class LedgerClient:
    """A client that waits for its answers. Several threads may share it.

    Args:
        base_url: the URL of the API, with its base path if it has one.
        token: gives a valid token, before each attempt; None for a ledger that asks for none.
        timeout_seconds: how long a call may take, with all of its attempts.
        transport: for tests, and for what httpx cannot do by itself.
    """

    def __init__(
        self,
        base_url: str,
        token: Callable[[], str] | None = None,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._http = httpx.Client(base_url=base_url, transport=transport)
        self._token = token
        self._timeout_seconds = timeout_seconds

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def post(self, request: OperationRequest) -> LedgerEntry:
        """Post an operation, and return its entry. The same request again gets the same entry.

        Raises:
            DuplicateNonceError: a different request used the nonce. The error has no `entry` if
                the token may not read it.
            InsufficientBalanceError: nothing is written, and the nonce is free. The error has no
                `balance` if the token may not read it.
            UnavailableError: the time is up. Post the request again, under the same nonce: it may
                be posted already.
            ContentionError: the same, and other requests keep the owner's ledger busy.
            LedgerError: the ledger refuses the request.
        """
        try:
            return read(LedgerEntry, self._send(Call.post(request)))
        except DuplicateNonceError as error:
            return original(error)

    def balance(self, owner_id: str, *, unit: str = CREDIT, at: datetime | None = None) -> Balance:
        """The balance now, or as it was at an instant (a time with its offset)."""
        return read(Balance, self._send(Call.balance(owner_id, unit, at)))

    def history(
        self,
        owner_id: str,
        *,
        unit: str = CREDIT,
        operation: str | None = None,
        app: str | None = None,
        since: datetime | None = None,
        before: datetime | None = None,
    ) -> Iterator[LedgerEntry]:
        """The entries from `since` (inclusive) to `before` (exclusive), newest first.

        Each page is one call.
        """
        call: Call | None = Call.history(owner_id, unit, operation, app, since, before)
        while call is not None:
            page = read(Page, self._send(call))
            yield from page.entries
            call = call.of_page(page.next_cursor)

    def verify(self, owner_id: str, *, unit: str = CREDIT) -> Verification:
        """Fold the entries of an account and compare the outcome with its balance."""
        return read(Verification, self._send(Call.verify(owner_id, unit)))

    def _send(self, call: Call) -> httpx.Response:
        attempts = Attempts(call, self._timeout_seconds)
        while True:
            token = self._token() if self._token else None
            outcome: httpx.Response | httpx.TransportError
            try:
                outcome = self._http.send(attempts.request(self._http, token))
            except httpx.TransportError as error:
                outcome = error
            answer = attempts.answer(outcome)
            if answer is not None:
                return answer
            time.sleep(attempts.pause_seconds)


class AsyncLedgerClient:
    """The same client for asyncio; its `token` is an `async def`. See `LedgerClient`."""

    def __init__(
        self,
        base_url: str,
        token: Callable[[], Awaitable[str]] | None = None,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._http = httpx.AsyncClient(base_url=base_url, transport=transport)
        self._token = token
        self._timeout_seconds = timeout_seconds

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def post(self, request: OperationRequest) -> LedgerEntry:
        """As `LedgerClient.post`."""
        try:
            return read(LedgerEntry, await self._send(Call.post(request)))
        except DuplicateNonceError as error:
            return original(error)

    async def balance(
        self, owner_id: str, *, unit: str = CREDIT, at: datetime | None = None
    ) -> Balance:
        """As `LedgerClient.balance`."""
        return read(Balance, await self._send(Call.balance(owner_id, unit, at)))

    async def history(
        self,
        owner_id: str,
        *,
        unit: str = CREDIT,
        operation: str | None = None,
        app: str | None = None,
        since: datetime | None = None,
        before: datetime | None = None,
    ) -> AsyncIterator[LedgerEntry]:
        """As `LedgerClient.history`."""
        call: Call | None = Call.history(owner_id, unit, operation, app, since, before)
        while call is not None:
            page = read(Page, await self._send(call))
            for entry in page.entries:
                yield entry
            call = call.of_page(page.next_cursor)

    async def verify(self, owner_id: str, *, unit: str = CREDIT) -> Verification:
        """As `LedgerClient.verify`."""
        return read(Verification, await self._send(Call.verify(owner_id, unit)))

    async def _send(self, call: Call) -> httpx.Response:
        attempts = Attempts(call, self._timeout_seconds)
        while True:
            token = await self._token() if self._token else None
            outcome: httpx.Response | httpx.TransportError
            try:
                outcome = await self._http.send(attempts.request(self._http, token))
            except httpx.TransportError as error:
                outcome = error
            answer = attempts.answer(outcome)
            if answer is not None:
                return answer
            await asyncio.sleep(attempts.pause_seconds)
