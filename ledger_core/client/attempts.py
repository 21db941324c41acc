"""When the client sends a call again: within its time, with full jitter. It does no I/O."""

import time
from random import uniform

import httpx

from ledger_core.client.answers import error_of
from ledger_core.client.calls import Call
from ledger_core.errors import ContentionError, UnavailableError

__all__ = ["Attempts"]

PAUSE_SECONDS_MIN = 0.1
PAUSE_SECONDS_MAX = 5.0
"""A pause is random, up to a limit that doubles from the first to the second of these."""


class Attempts:
    """The attempts of one call."""

    def __init__(self, call: Call, timeout_seconds: float) -> None:
        self._call = call
        self._deadline = time.monotonic() + timeout_seconds
        self._limit_seconds = PAUSE_SECONDS_MIN
        self.pause_seconds = 0.0

    def request(self, http: httpx.Client | httpx.AsyncClient, token: str | None) -> httpx.Request:
        """What to send now, with the time that is left for it."""
        call = self._call
        headers = dict(call.headers)
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        seconds_left = max(self._deadline - time.monotonic(), 0.0)
        return http.build_request(
            call.method,
            call.path,
            params=call.params,
            json=call.body,
            headers=headers,
            timeout=min(seconds_left, call.attempt_seconds_max),
        )

    def answer(self, outcome: httpx.Response | httpx.TransportError) -> httpx.Response | None:
        """The answer; or None: send the call again after `pause_seconds`.

        Raises:
            LedgerError: the answer is a refusal, or there is no time for another attempt.
        """
        if isinstance(outcome, httpx.Response):
            if outcome.is_success:
                return outcome
            error = error_of(outcome)
            if not isinstance(error, ContentionError | UnavailableError):
                raise error
            pause_seconds_min = _retry_after_seconds(outcome)
        else:
            # The text of a transport's error may hold a header, and so the token.
            reason = type(outcome).__name__
            error = UnavailableError(f"answer: missing ({reason}); send the same request again")
            pause_seconds_min = 0.0
        jitter = uniform(0.0, self._limit_seconds)  # noqa: S311  # spreads load, keeps no secret
        self._limit_seconds = min(2 * self._limit_seconds, PAUSE_SECONDS_MAX)
        self.pause_seconds = pause_seconds_min + jitter
        if time.monotonic() + self.pause_seconds >= self._deadline:
            raise error
        return None


def _retry_after_seconds(response: httpx.Response) -> float:
    text = response.headers.get("retry-after", "")
    return float(text) if text.isdecimal() else 0.0
