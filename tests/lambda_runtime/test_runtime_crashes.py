"""Lambda's processes are killed under load: no acknowledged entry is lost or doubled."""

from typing import TYPE_CHECKING, Any

from ledger_core.wiring import create_store
from tests.e2e.load import Clients, Note, Send, check_all, fresh_seed, kill_at_random, note
from tests.lambda_runtime.conftest import Start
from tests.lambda_runtime.emulator import Runtime
from tests.support import DEEP, Answer, LambdaApi

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

ENVIRONMENTS = 4
KILLS = 50 if DEEP else 2
OWNERS = ["ada", "bob"]


def test_killed_function_keeps_what_it_acknowledged(
    start: Start, real_client: "DynamoDBClient", record_property: Note
) -> None:
    """Environments that work side by side are killed; a repeated request finds the outcome."""
    seed, environments = fresh_seed(), [start() for _ in range(ENVIRONMENTS)]
    clients = Clients([sender(one) for one in environments], seed, OWNERS)
    kill_at_random(clients, seed, KILLS, lambda chance: chance.choice(environments).kill())
    record_property("kills", KILLS)
    assert note(clients.answers, record_property)["in doubt"] > 0, f"SEED={seed}"
    check_all(create_store(real_client), clients.answers, seed)


def sender(runtime: Runtime) -> Send:
    """Sends once; a function that is killed gives no answer."""
    api = LambdaApi(runtime)

    def send(method: str, path: str, body: object = None, **options: Any) -> Answer | None:
        try:
            return api(method, path, body, **options)
        except KeyError:
            return None

    return send
