"""The contract of each peer: the ledger's request and amounts, and an answer with the balance."""

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, Field

__all__ = ["AMOUNTS", "EntryRequest", "Operation", "PostedEntry", "entry_key"]

AMOUNT_MAX = 1_000_000_000
TEXT_LENGTH_MAX = 128


class Operation(StrEnum):
    """The body of a request."""

    SIGNUP_CREDIT = "SIGNUP_CREDIT"
    CREDIT_ADD = "CREDIT_ADD"
    CREDIT_SPEND = "CREDIT_SPEND"


AMOUNTS = {Operation.SIGNUP_CREDIT: 3, Operation.CREDIT_ADD: 1, Operation.CREDIT_SPEND: -1}
"""Credits, to be multiplied by the amount that the caller gives."""


class EntryRequest(BaseModel):
    """The body of `POST /ledger/entry`."""

    owner_id: str = Field(min_length=1, max_length=TEXT_LENGTH_MAX)
    operation: Operation
    nonce: str = Field(min_length=1, max_length=TEXT_LENGTH_MAX)
    amount: int = Field(default=1, ge=1, le=AMOUNT_MAX)

    @property
    def signed_amount(self) -> int:
        """By how many credits the balance moves."""
        return AMOUNTS[self.operation] * self.amount


class PostedEntry(BaseModel):
    """The answer to it."""

    owner_id: str
    operation: Operation
    nonce: str
    amount: int
    balance: int
    created_at: datetime


def entry_key(request: EntryRequest) -> str:
    """The key of an entry in DynamoDB."""
    return f"{request.owner_id}#{request.nonce}"
