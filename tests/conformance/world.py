"""Two processes over one pair of tables, for many examples one after the other."""

from collections import Counter
from typing import TYPE_CHECKING, Any

from functions.example_app.operations import ExampleAppOperations
from infra.dynamodb import create_tables
from ledger_core.dynamodb import Page, SweepStore
from ledger_core.http import LedgerRouter, create_api, create_handler
from ledger_core.posting import OperationProcessor
from ledger_core.settings import AuthMode
from tests.conftest import ledger_tables
from tests.support import LambdaApi

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


class World:
    """The tables, and two processes that share nothing else."""

    def __init__(self, client: "DynamoDBClient", *, is_moto: bool) -> None:
        self.client = client
        self.is_moto = is_moto
        names = ledger_tables()
        self.store = SweepStore(
            client,
            entries_table=names["LEDGER_ENTRIES_TABLE"],
            accounts_table=names["LEDGER_ACCOUNTS_TABLE"],
        )
        self.processors = [OperationProcessor(self.store, ExampleAppOperations) for _ in range(2)]
        apps = [
            create_api("Example App", LedgerRouter(one), auth=AuthMode.NONE)
            for one in self.processors
        ]
        self.apis = [LambdaApi(create_handler(app)) for app in apps]
        self.examples = 0
        self.counted = Counter[str]()

    def begin(self) -> str:
        """What the ids of the next example's owners begin with."""
        # moto's transactions copy whole tables; DynamoDB Local is slow to create a table.
        if self.is_moto:
            for name in ledger_tables().values():
                self.client.delete_table(TableName=name)
            create_tables(self.client, ledger_tables())
        self.examples += 1
        return f"{self.examples}-"


class OwnAccounts(SweepStore):
    """A sweep's view of one example's owners, though the table holds those of others."""

    def __init__(self, store: SweepStore, prefix: str) -> None:
        vars(self).update(vars(store))
        self._prefix = prefix

    def accounts(self, **options: Any) -> Page:
        page = super().accounts(**options)
        return page._replace(
            accounts=[one for one in page.accounts if one.owner_id.startswith(self._prefix)]
        )
