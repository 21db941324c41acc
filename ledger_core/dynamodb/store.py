"""The ledger's two DynamoDB tables: the requests that read them, and the one transaction that
writes them.

It decides nothing: it says what DynamoDB said, as values of ours and as errors of ours.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from botocore.exceptions import ClientError

from ledger_core.account import Account, AccountChange
from ledger_core.dynamodb import decode, expressions
from ledger_core.dynamodb.clock import SystemClock
from ledger_core.dynamodb.request import dynamodb_request
from ledger_core.dynamodb.stored import StoredHead
from ledger_core.fields import TIME_STEP_MIN, format_time
from ledger_core.models import LedgerEntry

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

__all__ = ["INDEX_BY_ACCOUNT", "LedgerStore"]

INDEX_BY_ACCOUNT = "by_account"
HISTORY_QUERIES_MAX = 4
"""Requests that one filtered page of history may take before it is handed out short."""
HISTORY_EVALUATED_MAX = 1000
"""Entries that one such request looks at."""
NO_FILTERS: Mapping[str, str] = MappingProxyType({})


class Times(NamedTuple):
    """From when to when a query goes: what it adds to the condition, and its values."""

    condition: str
    values: Mapping[str, str]

    @classmethod
    def between(cls, since: datetime | None, until: datetime | None) -> Self:
        """Times that the ledger may have written; None: before or after all of them."""
        values = {
            ":since": format_time(since) if since else "0",
            ":until": format_time(until) if until else "9999-12-31T23:59:59.999999Z",
        }
        return cls(" AND created_at BETWEEN :since AND :until", values)

    @classmethod
    def up_to(cls, until: str | None) -> Self:
        """Any text; None: without an end."""
        return cls("", {}) if until is None else cls(" AND created_at <= :until", {":until": until})


class LedgerStore:
    """Reads and writes accounts through a boto3 DynamoDB client, which must not retry on its own.

    `key` is the key of an account in all methods, `nonce` a stored nonce; see `ledger_core.keys`.

    Every method raises ContentionError or UnavailableError when the same call may succeed later (a
    write may even have been done), and StoreError when it will not.

    Attributes:
        clock: this machine's, held against every answer; for who writes.
    """

    def __init__(
        self, client: "DynamoDBClient", *, entries_table: str, accounts_table: str
    ) -> None:
        self._client = client
        self._entries_table = entries_table
        self._accounts_table = accounts_table
        self.clock = SystemClock()

    def account(self, key: str, *, consistent: bool) -> Account:
        """An account: one read unit when strongly consistent, half a unit when not."""
        return decode.account_from(key, self._account(key, consistent=consistent))

    def stored_head(self, key: str) -> StoredHead:
        """The head of an account whatever is in it, for audits; strongly consistent."""
        return decode.stored_head_from(key, self._account(key, consistent=True))

    def transact(self, changes: Sequence[AccountChange], *, token: str) -> list[decode.Cancelled]:
        """Write changes of several accounts, all or nothing: empty when done, else why each was
        not.

        An account has at most ENTRIES_MAX entries in it, and all of them together 100 items.
        `token` (at most 36 characters) makes it once only: the same changes sent again under the
        same token within ten minutes are written once, and it says so each time. One request;
        `ledger_core/README.md` has the write units.
        """
        tables = {"entries_table": self._entries_table, "accounts_table": self._accounts_table}
        items = [expressions.transact_items(change, **tables) for change in changes]
        with dynamodb_request(self.clock) as request:
            try:
                response = self._client.transact_write_items(
                    ClientRequestToken=token,
                    TransactItems=[item for of_change in items for item in of_change],
                    ReturnConsumedCapacity="TOTAL",
                )
                request.wrote(response)
            except ClientError as error:
                request.failed(error.response)
                if len(error.response.get("CancellationReasons", ())) != sum(map(len, items)):
                    raise
                reasons = iter(error.response["CancellationReasons"])
                return [
                    decode.cancelled_from(change.before.key, list(islice(reasons, len(of_change))))
                    for change, of_change in zip(changes, items, strict=True)
                ]
        return []

    def look_up(self, key: str, nonce: str) -> tuple[LedgerEntry | None, Account]:
        """The entry under a nonce, if there is one, and the account, both of the same instant; one
        request."""
        keys = {
            self._entries_table: expressions.key_of_entry(key, nonce),
            self._accounts_table: expressions.key_of_account(key),
        }
        with dynamodb_request(self.clock) as request:
            response = self._client.transact_get_items(
                TransactItems=[
                    {"Get": {"TableName": table, "Key": key}} for table, key in keys.items()
                ],
                ReturnConsumedCapacity="TOTAL",
            )
            request.read(response)
        entry, row = (answer.get("Item") for answer in response["Responses"])
        return (decode.entry_from(entry) if entry else None), decode.account_from(key, row)

    def latest(self, key: str, *, at: datetime | None = None) -> LedgerEntry | None:
        """The last entry, or the last at or before an instant; one eventually consistent request of
        the index."""
        found = self._query(key, Times.between(None, at), newest_first=True, limit=1)["Items"]
        return decode.entry_from(found[0]) if found else None

    def page(
        self,
        key: str,
        *,
        since: datetime | None = None,
        before: datetime | None = None,
        operation: str | None = None,
        app: str | None = None,
        limit: int,
        read: Callable[[Callable[[], Any]], Any] = lambda call: call(),
    ) -> tuple[list[LedgerEntry], datetime | None]:
        """Entries in [since, before), newest first, and the `before` of the next page (None: there
        is none).

        One eventually consistent request without `operation` and `app`; with either up to
        HISTORY_QUERIES_MAX, and a page may be short, even empty, though more entries follow. Each
        is made through `read`, as by `RetryBudget.call`.
        """
        entries: list[LedgerEntry] = []
        wanted = {"operation": operation, "app": app}
        filters = {name: value for name, value in wanted.items() if value is not None}
        evaluated = HISTORY_EVALUATED_MAX if filters else limit + 1
        for _ in range(HISTORY_QUERIES_MAX):
            until = before - TIME_STEP_MIN if before else None
            if since and until and since > until:
                return entries, None
            query = partial(
                self._query,
                key,
                Times.between(since, until),
                filters=filters,
                limit=evaluated,
            )
            response = read(partial(query, newest_first=True))
            for item in response["Items"]:
                if len(entries) == limit:
                    return entries, entries[-1].created_at
                entries.append(decode.entry_from(item))
            if "LastEvaluatedKey" not in response:
                return entries, None
            before = datetime.fromisoformat(response["LastEvaluatedKey"]["created_at"]["S"])
        return entries, before

    def rows(
        self, key: str, *, until: str | None, start: Mapping[str, Any] | None = None
    ) -> tuple[list[dict[str, Any]], Mapping[str, Any] | None]:
        """Stored entries up to a time, as its text, oldest first, whatever is in them, and the
        `start` of the rest (None: that was all).

        One eventually consistent request, of a megabyte at most.
        """
        response = self._query(key, Times.up_to(until), newest_first=False, start=start)
        return [decode.row_from(item) for item in response["Items"]], response.get(
            "LastEvaluatedKey"
        )

    def last_row(self, key: str, *, until: str | None = None) -> dict[str, Any] | None:
        """The last of them; one eventually consistent request of the index."""
        found = self._query(key, Times.up_to(until), newest_first=True, limit=1)["Items"]
        return decode.row_from(found[0]) if found else None

    def table_ids(
        self, key: str, *, start: Mapping[str, Any] | None = None
    ) -> tuple[list[int], Mapping[str, Any] | None]:
        """The ids of the entries that the table has, less those that no index shows as they are
        without a time; and the `start` of the rest.

        One strongly consistent request, of a megabyte at most of the entries of all owners: there
        is no other way to look for what the index does not show.
        """
        options: dict[str, Any] = {"ExclusiveStartKey": start} if start else {}
        with dynamodb_request(self.clock) as request:
            response = self._client.scan(
                TableName=self._entries_table,
                FilterExpression="account = :account",
                ExpressionAttributeValues={":account": {"S": key}},
                ProjectionExpression="id, created_at",
                ConsistentRead=True,
                ReturnConsumedCapacity="TOTAL",
                **options,
            )
            request.read(response)
        rows = [
            decode.row_from(item) for item in response["Items"] if "S" in item.get("created_at", {})
        ]
        ids = [row["id"] for row in rows if type(row.get("id")) is int]
        return ids, response.get("LastEvaluatedKey")

    def _account(self, key: str, *, consistent: bool) -> Mapping[str, Any] | None:
        with dynamodb_request(self.clock) as request:
            response = self._client.get_item(
                TableName=self._accounts_table,
                Key=expressions.key_of_account(key),
                ConsistentRead=consistent,
                ReturnConsumedCapacity="TOTAL",
            )
            request.read(response)
        return response.get("Item")

    def _query(
        self,
        key: str,
        times: Times,
        *,
        newest_first: bool,
        filters: Mapping[str, str] = NO_FILTERS,
        limit: int | None = None,
        start: Mapping[str, Any] | None = None,
    ) -> Mapping[str, Any]:
        values, options = {":account": key, **times.values}, dict[str, Any]()
        if filters:
            options = {
                "FilterExpression": " AND ".join(f"#{name} = :{name}" for name in filters),
                "ExpressionAttributeNames": {f"#{name}": name for name in filters},
            }
            values |= {f":{name}": value for name, value in filters.items()}
        if limit:
            options["Limit"] = limit
        if start:
            options["ExclusiveStartKey"] = start
        with dynamodb_request(self.clock) as request:
            response = self._client.query(
                TableName=self._entries_table,
                IndexName=INDEX_BY_ACCOUNT,
                KeyConditionExpression="account = :account" + times.condition,
                ExpressionAttributeValues={name: {"S": value} for name, value in values.items()},
                ScanIndexForward=not newest_first,
                ReturnConsumedCapacity="TOTAL",
                **options,
            )
            request.read(response)
            return response
