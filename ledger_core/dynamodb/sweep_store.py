"""All owners' accounts: read page by page, written to many at a time. For sweeps, such as the daily
reward."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from ledger_core.account import Account
from ledger_core.dynamodb.decode import account_from
from ledger_core.dynamodb.expressions import key_of_account, key_of_entry
from ledger_core.dynamodb.request import dynamodb_request
from ledger_core.dynamodb.store import LedgerStore
from ledger_core.errors import StoreError

__all__ = ["LOOK_UPS_MAX", "WRITES_MAX", "Page", "SweepStore"]

WRITES_MAX = 50
"""Owners that one transaction writes to: DynamoDB takes 100 items, and each owner has an entry and
a balance."""
LOOK_UPS_MAX = 100
"""Entries that one transaction looks up."""


class Page(NamedTuple):
    """Some of all accounts."""

    accounts: list[Account]
    """Accounts that have entries."""
    malformed: dict[str, StoreError]
    """The keys of accounts whose row cannot be read, and why."""
    start: str | None
    """The key of the account before the next page; None on the last page."""
    empty: Sequence[str] = ()
    """The keys of accounts whose row has no entry."""


class SweepStore(LedgerStore):
    """What sweeping all owners takes, beyond what one owner's ledger does. Errors as for
    LedgerStore."""

    def accounts(self, *, segment: int, segments: int, start: str | None, limit: int) -> "Page":
        """A page of one of the `segments` into which the balances are divided, strongly consistent;
        one request."""
        options: dict[str, Any] = {"ExclusiveStartKey": key_of_account(start)} if start else {}
        with dynamodb_request(self.clock) as request:
            response = self._client.scan(
                TableName=self._accounts_table,
                Segment=segment,
                TotalSegments=segments,
                Limit=limit,
                ConsistentRead=True,
                ReturnConsumedCapacity="TOTAL",
                **options,
            )
            request.read(response)
        accounts, malformed, empty = [], {}, []
        for item in response["Items"]:
            key = item["account"]["S"]
            try:
                account = account_from(key, item)
            except StoreError as error:
                malformed[key] = error
            else:
                if account.entry_count:
                    accounts.append(account)
                else:
                    empty.append(key)
        last = response.get("LastEvaluatedKey")
        return Page(accounts, malformed, last["account"]["S"] if last else None, empty)

    def accounts_with(self, nonce: str, accounts: Sequence[str]) -> set[str]:
        """Those of up to LOOK_UPS_MAX accounts that have an entry under a nonce; two read units
        each.

        One request, by the accounts' keys and the stored nonce.
        """
        keys = [key_of_entry(account, nonce) for account in accounts]
        with dynamodb_request(self.clock) as request:
            response = self._client.transact_get_items(
                TransactItems=[
                    {
                        "Get": {
                            "TableName": self._entries_table,
                            "Key": key,
                            "ProjectionExpression": "account",
                        }
                    }
                    for key in keys
                ],
                ReturnConsumedCapacity="TOTAL",
            )
            request.read(response)
        return {
            answer["Item"]["account"]["S"] for answer in response["Responses"] if "Item" in answer
        }
