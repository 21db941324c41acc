"""What the client sends: one `Call` for each endpoint."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import quote

from pydantic import TypeAdapter, ValidationError

from ledger_core.errors import InvalidRequestError
from ledger_core.fields import OwnerId
from ledger_core.keys import CREDIT
from ledger_core.models import OperationRequest

__all__ = ["ATTEMPT_SECONDS_MAX", "PAGE_ENTRIES", "Call"]

ATTEMPT_SECONDS_MAX = 6.0
"""What one attempt may wait for, so that a lost answer leaves time for the next attempt."""
VERIFY_SECONDS_MAX = 30.0
"""The ledger reads every entry; API Gateway waits no longer than this."""
PAGE_ENTRIES = 100

OWNER_ID: TypeAdapter[str] = TypeAdapter(OwnerId)


class Call(NamedTuple):
    """A request, without the token and the time that is left for it."""

    method: str
    path: str
    params: Mapping[str, str | int] = {}
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = {}
    attempt_seconds_max: float = ATTEMPT_SECONDS_MAX

    @classmethod
    def post(cls, request: OperationRequest) -> "Call":
        """Post an operation. The nonce is in the header, whose replays get the original answer.

        The header holds only ASCII without a comma. Any other nonce is in the body.
        """
        body = request.model_dump(mode="json", exclude_none=True)
        headers = {}
        if request.nonce.isascii() and "," not in request.nonce:
            nonce = body.pop("nonce").replace("\\", "\\\\").replace('"', '\\"')
            headers["idempotency-key"] = f'"{nonce}"'
        return cls("POST", "/ledger/entry", body=body, headers=headers)

    @classmethod
    def balance(cls, owner_id: str, unit: str, at: datetime | None) -> "Call":
        """Read a balance."""
        return cls("GET", _path(owner_id, "balance"), {**_unit(unit), **_times(at=at)})

    @classmethod
    def history(
        cls,
        owner_id: str,
        unit: str,
        operation: str | None,
        app: str | None,
        since: datetime | None,
        before: datetime | None,
    ) -> "Call":
        """Read the first page of a history."""
        times = _times(**{"from": since, "to": before})
        params: dict[str, str | int] = {**_unit(unit), "limit": PAGE_ENTRIES, **times}
        if operation is not None:
            params["operation"] = str(operation)
        if app is not None:
            params["app"] = app
        return cls("GET", _path(owner_id, "entries"), params)

    @classmethod
    def verify(cls, owner_id: str, unit: str) -> "Call":
        """Audit an account."""
        path = _path(owner_id, "verify")
        return cls("GET", path, _unit(unit), attempt_seconds_max=VERIFY_SECONDS_MAX)

    def of_page(self, cursor: str | None) -> "Call | None":
        """The same call for the next page; None after the last page."""
        return None if cursor is None else self._replace(params={**self.params, "cursor": cursor})


def _path(owner_id: str, name: str) -> str:
    try:
        return f"/ledger/{quote(OWNER_ID.validate_python(owner_id), safe='')}/{name}"
    except ValidationError as error:
        raise InvalidRequestError(f"owner_id: {error.errors()[0]['msg']}") from None


def _unit(unit: str) -> dict[str, str]:
    return {} if unit == CREDIT else {"unit": unit}


def _times(**times: datetime | None) -> dict[str, str]:
    return {name: time.isoformat() for name, time in times.items() if time}
