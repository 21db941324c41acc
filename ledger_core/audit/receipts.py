"""Receipts: signed heads that owners keep, and hold against the ledger later. They show what its
chain alone cannot.

A receipt is a JWT, a compact JWS (RFC 7515) signed ES256, that any JOSE library checks; checking it
here takes one.
"""

import base64
import binascii
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError

from ledger_core.account import Head
from ledger_core.audit.findings import Discrepancy
from ledger_core.dynamodb import ReceiptKey, base64url, jwk
from ledger_core.errors import InvalidRequestError
from ledger_core.fields import format_time
from ledger_core.keys import CREDIT, account_key
from ledger_core.models import LedgerEntry

__all__ = ["TYPE", "Held", "Receipt", "read_keys", "read_receipt", "signed"]

TYPE = "ledger-receipt+jwt"
"""So that no other token that somebody signs is taken for a receipt, nor a receipt for a token (RFC
8725)."""


class Receipt(BaseModel):
    """What is signed: `iss`, the ledger; the head of the account that `sub` has in `unit`; the
    time.

    `iat` is in seconds since 1970. `unit` is absent when it is CREDIT.
    """

    model_config = ConfigDict(frozen=True)

    iss: StrictStr
    sub: StrictStr
    unit: StrictStr = Field(default=CREDIT, exclude_if=lambda unit: bool(unit == CREDIT))
    balance: StrictInt
    entry_count: Annotated[StrictInt, Field(ge=0)]
    head_hash: StrictStr
    updated_at: StrictStr | None
    iat: StrictInt

    @classmethod
    def of(cls, head: Head, now: datetime, issuer: str) -> Self:
        """The receipt of a head, as of `now`."""
        return cls(
            iss=issuer,
            sub=head.owner_id,
            unit=head.unit,
            balance=head.balance,
            entry_count=head.entry_count,
            head_hash=head.head_hash,
            updated_at=format_time(head.updated_at) if head.updated_at else None,
            iat=int(now.timestamp()),
        )

    @property
    def account_key(self) -> str:
        """The key of the account that it is of."""
        return account_key(self.sub, self.unit)


class Held:
    """The receipts of one account, held against its entries as they pass."""

    def __init__(self, account: Head, receipts: Iterable[Receipt]) -> None:
        # A receipt of an account without entries says nothing that a ledger could contradict.
        self._receipts = [
            receipt
            for receipt in receipts
            if receipt.account_key == account.key and receipt.entry_count
        ]
        self._ids = {receipt.entry_count for receipt in self._receipts}
        self._hashes: dict[int, str] = {}

    def against(self, entry: LedgerEntry, computed: str) -> None:
        """The next entry, and the hash that its fields ask for, which counts, whatever hash it says
        it has."""
        if entry.id in self._ids:
            self._hashes.setdefault(entry.id, computed)
            there = (entry.id, computed, entry.balance_after)
            self._receipts = [
                one
                for one in self._receipts
                if (one.entry_count, one.head_hash, one.balance) != there
            ]

    def contradictions(self) -> list[Discrepancy]:
        """Each receipt that no entry bears out; `found` is the hash that is there instead, null if
        no entry is."""
        return [
            Discrepancy(
                entry_id=one.entry_count, field="receipt", expected=one.head_hash, found=found
            )
            for one in self._receipts
            for found in [self._hashes.get(one.entry_count)]
        ]


def signed(receipt: Receipt, key: ReceiptKey) -> str:
    """The receipt as a compact JWS."""
    header = {"alg": "ES256", "kid": key.key_id, "typ": TYPE}
    parts = [
        json.dumps(part, ensure_ascii=False, separators=(",", ":"))
        for part in (header, receipt.model_dump())
    ]
    message = ".".join(base64url(part.encode()) for part in parts)
    return f"{message}.{base64url(key.sign(message.encode()))}"


def read_keys(text: str) -> list[Mapping[str, Any]]:
    """The public keys of a JWK set, or the one of a PEM file."""
    try:
        if "-----BEGIN PUBLIC KEY-----" in text:
            body = "".join(line for line in text.splitlines() if not line.startswith("-----"))
            return [jwk(base64.b64decode(body))]
        keys = json.loads(text)["keys"]
        return [key for key in keys if key["kty"] == "EC"]
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise InvalidRequestError("holds no public keys: neither a JWK set nor PEM") from None


def read_receipt(text: str, keys: Sequence[Mapping[str, Any]]) -> Receipt:
    """What a receipt says, which may stand alone or in the answer that it came in.

    Raises:
        InvalidRequestError: it is none, or one of the `keys` did not sign it.
    """
    try:
        import jwt

        if not jwt.algorithms.has_crypto:
            raise ImportError
    except ImportError:
        raise InvalidRequestError(
            "needs a library to be checked: pip install 'pyjwt[crypto]'"
        ) from None
    try:
        token = str(json.loads(text)["receipt"]) if text.lstrip().startswith("{") else text.strip()
        header = jwt.get_unverified_header(token)
        known = [key for key in keys if key.get("kid") in {None, header.get("kid")}]
        if header.get("typ") != TYPE or not known:
            raise InvalidRequestError(
                "is no receipt, or signed with a key that is not among the given ones"
            )
        options: Any = {"verify_aud": False, "verify_iat": False}
        public = jwt.PyJWK(dict(known[0]), "ES256")
        return Receipt.model_validate(
            jwt.decode(token, public, algorithms=["ES256"], options=options)
        )
    except (jwt.PyJWTError, KeyError, TypeError, ValueError) as error:
        reason = "its claims are none" if isinstance(error, ValidationError) else error
        raise InvalidRequestError(f"is not signed by this key: {reason}") from None
