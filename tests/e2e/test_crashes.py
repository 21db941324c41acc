"""`make run` killed at random moments under load: no acknowledged entry is lost or doubled."""

import signal
from random import Random

import httpx
import pytest

from ledger_core.wiring import create_store
from tests.e2e.load import Clients, Note, check_all, fresh_seed, kill_at_random, note, sender
from tests.e2e.server import Server
from tests.support import DEEP

CLIENTS = 12
OWNERS = [f"owner-{number}" for number in range(6)]


KILLS = [pytest.param(True, 45 if DEEP else 2, id="DynamoDB stays")]
if DEEP:  # test_main_job.py kills DynamoDB too, in every run
    KILLS.append(pytest.param(False, 5, id="DynamoDB ends too"))


@pytest.mark.parametrize(("dynamodb_stays", "kills"), KILLS)
def test_killed_server_keeps_what_it_acknowledged(
    server: Server,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Note,
    dynamodb_stays: bool,
    kills: int,
) -> None:
    """Clients without an answer ask again under the same nonces; all answers fit the ledgers."""
    if dynamodb_stays:
        request.getfixturevalue("real_client")  # the server uses the DynamoDB of this fixture
    seed = fresh_seed()

    def kill(_chance: Random) -> bool:
        server.stop(signal.SIGKILL)
        server.start()
        return True

    server.start()
    with httpx.Client(base_url=server.url, timeout=30) as http:
        clients = Clients([sender(http)] * CLIENTS, seed, OWNERS)
        kill_at_random(clients, seed, kills, kill)
    for name, value in server.place.items():
        monkeypatch.setenv(name, value)
    record_property("kills", kills)
    assert note(clients.answers, record_property)["in doubt"] >= kills, f"SEED={seed}"
    check_all(create_store(), clients.answers, seed)
