"""A ledger over HTTP, for apps in another process. It needs httpx: the extra `client`.

    with LedgerClient("https://ledger.example", token=get_token) as ledger:
        entry = ledger.post(request)

A call that gets no answer, or whose answer says "later", is sent again while the client's time
lasts. A post keeps its nonce, so it happens once. Every failure is a LedgerError, and no message
of an error holds the token.
"""

from ledger_core.client.answers import Balance, Finding, RefusedError, Verification
from ledger_core.client.clients import AsyncLedgerClient, LedgerClient

__all__ = [
    "AsyncLedgerClient",
    "Balance",
    "Finding",
    "LedgerClient",
    "RefusedError",
    "Verification",
]
