"""Clients that are generated from the OpenAPI document, in Python and TypeScript, use a ledger.

The document is that of a server that needs tokens, and the clients call this server.
"""

import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from infra import small_server
from infra.dynamodb import CACHE, create_tables, moto
from infra.issuer import Issuer, JwtAuthorizer
from infra.openapi import PATH
from infra.processes import free_port
from ledger_core.account import Account
from tests.conftest import ledger_tables
from tests.fakes.server import serving
from tests.support import NOON, ROOT, operation

HERE = Path(__file__).parent
MODULES = CACHE / "npm/node_modules"
"""What `make test` installs from package-lock.json."""
METADATA = {"invoice": "2026-117", "a.b:c": "ü"}
MESSAGES = {
    401: "Unauthorized",
    403: "Forbidden",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
"""What API Gateway says by itself."""
PROBLEMS = [
    [402, "insufficient_balance", "CheckingBalance"],
    [409, "duplicate_nonce", "CheckingNonce"],
    [422, "invalid", "Validating"],
]


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A server's URL, and a token for an app that may read and write."""
    issuer = Issuer(free_port(), tmp_path_factory.mktemp("issuer"))
    with pytest.MonkeyPatch.context() as monkeypatch, issuer.serving(), moto() as client:
        create_tables(client, ledger_tables())
        monkeypatch.setenv("LEDGER_AUTH", "jwt")
        with serving(client, around=lambda app: JwtAuthorizer(app, issuer)) as http:
            yield str(http.base_url), issuer.token("shop", "ledger/read ledger/write")


@pytest.fixture(scope="module")
def document(ledger: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The document, which anybody gets."""
    path = tmp_path_factory.mktemp("document") / "openapi.json"
    path.write_bytes(httpx.get(f"{ledger[0]}/openapi.json").content)
    return path


@pytest.fixture(scope="module")
def gateway() -> Iterator[str]:
    """Answers as API Gateway itself does, with the status that a path names."""

    class Messages(small_server.Handler):
        def respond(self) -> None:
            status = int(self.path.split("/")[2])
            self.answer(
                json.dumps({"message": MESSAGES[status]}).encode(),
                {"content-type": "application/json"},
                status,
            )

    with small_server.serving(Messages) as url:
        yield url


@pytest.fixture
def python(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The Python client: its classes, and its functions by the ends of their names."""
    (tmp_path / "config.yml").write_text("post_hooks: []")
    command = [
        str(Path(sys.executable).parent / "openapi-python-client"),
        "generate",
        "--path",
        str(document),
    ]
    command += [
        "--config",
        str(tmp_path / "config.yml"),
        "--output-path",
        str(tmp_path / "made_client"),
    ]
    done = subprocess.run(
        [*command, "--meta", "none", "--fail-on-warning"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    monkeypatch.syspath_prepend(tmp_path)
    api = {
        name: importlib.import_module(f"made_client.api.ledger.{module}")
        for name, module in {
            "post": "post_entry",
            "balance": "get_balance",
            "entries": "get_entries",
            "verify": "verify_ledger",
        }.items()
    }
    made = importlib.import_module("made_client")
    return SimpleNamespace(
        models=importlib.import_module("made_client.models"), client=made.AuthenticatedClient, **api
    )


def test_python_client(ledger: tuple[str, str], gateway: str, python: SimpleNamespace) -> None:
    """It posts, reads, replays, and knows the problems and the messages of the gateway."""
    url, token = ledger
    models = python.models
    with python.client(base_url=url, token=token) as client:

        def post(key: str | None = None, **fields: Any) -> Any:
            body = models.EntryRequest.from_dict({"owner_id": "python", **fields})
            return python.post.sync_detailed(
                client=client, body=body, **({"idempotency_key": key} if key else {})
            )

        add: Mapping[str, Any] = {"operation": "CREDIT_ADD", "amount": 7, "metadata": METADATA}
        first, again = post("key", **add), post("key", **add)
        assert (first.parsed.metadata.to_dict(), first.parsed) == (METADATA, again.parsed)
        assert [answer.headers.get("Idempotency-Replayed") for answer in (first, again)] == [
            None,
            "true",
        ]
        poor = post(operation="CREDIT_SPEND", nonce="order-1", amount=500).parsed
        used = post(operation="CREDIT_SPEND", nonce="key").parsed
        bad = post(owner_id="a#b", operation="CREDIT_SPEND", nonce="n").parsed
        assert [[one.status, one.code, one.state] for one in (poor, used, bad)] == PROBLEMS
        assert (poor.required, poor.balance, used.entry) == (500, 7, first.parsed)

        assert python.balance.sync(client=client, owner_id="python").balance == 7
        history = python.entries.sync(client=client, owner_id="python", limit=1)
        assert [entry.metadata.to_dict() for entry in history.entries] == [METADATA]
        assert python.verify.sync(client=client, owner_id="nobody").head.updated_at is None
    with python.client(base_url=gateway, token=token) as client:
        told = {
            status: python.balance.sync_detailed(client=client, owner_id=str(status))
            for status in MESSAGES
        }
    assert {status: answer.parsed.message for status, answer in told.items()} == MESSAGES


def node(*command: str | Path, folder: Path) -> str:
    done = subprocess.run(
        ["node", *map(str, command)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_typescript_client(
    ledger: tuple[str, str], gateway: str, document: Path, tmp_path: Path
) -> None:
    """The same, by types that `tsc --strict` is content with."""
    if not MODULES.exists():
        pytest.skip(
            "NOT TESTED with TypeScript: it needs Node.js and npm; `make test` installs the rest"
        )
    (tmp_path / "node_modules").symlink_to(MODULES)
    shutil.copy(HERE / "client.mts", tmp_path)
    node(MODULES / "openapi-typescript/bin/cli.js", document, "-o", "schema.d.mts", folder=tmp_path)
    options = ["--strict", "--module", "nodenext", "--target", "es2022", "--lib", "es2022,dom"]
    node(MODULES / "typescript/bin/tsc", *options, "client.mts", folder=tmp_path)
    got = json.loads(node("client.mjs", ledger[0], gateway, ledger[1], folder=tmp_path))
    assert got == {
        "kept": METADATA,
        "replayed": [None, "true"],
        "same": True,
        "problems": PROBLEMS,
        "required": 500,
        "original": 1,
        "credits": 7,
        "history": [METADATA],
        "next": None,
        "updated": None,
        "messages": [[status, message] for status, message in MESSAGES.items()],
    }


def test_hash_is_recomputed_with_canonicalize(ledger: tuple[str, str], tmp_path: Path) -> None:
    """SHA-256 of Node, after an implementation of RFC 8785, gives the hash of each entry."""
    if not (MODULES / "canonicalize").exists():
        pytest.skip("NOT TESTED with Node: it needs Node.js and npm; `make test` installs the rest")
    url, token = ledger
    add = {"owner_id": "añø-日本-😀", "operation": "CREDIT_ADD", "amount": 7}
    bodies = [
        {**add, "nonce": "plain"},
        {**add, "nonce": "empty", "metadata": {}},
        {
            **add,
            "nonce": 'ø "quoted" \\',
            "metadata": {**METADATA, "Z": "日本 😀", "a": 'a\n"b"/\\\u2028\x7f'},
        },
    ]
    answers = [
        httpx.post(f"{url}/ledger/entry", json=body, headers={"Authorization": f"Bearer {token}"})
        for body in bodies
    ]
    entries = [answer.raise_for_status().json() for answer in answers]
    assert [(entry["v"], "metadata" in entry) for entry in entries] == [
        (1, False),
        (1, False),
        (1, True),
    ]
    gem = Account(owner_id="ada", unit="GEMS").next_entry(
        operation(), amount=3, now=NOON, app="game"
    )
    entries.append(json.loads(gem.model_dump_json()))
    assert (entries[-1]["unit"], entries[-1]["app"]) == ("GEMS", "game")
    (tmp_path / "node_modules").symlink_to(MODULES)
    (tmp_path / "entries.json").write_text(
        json.dumps(entries, ensure_ascii=False), encoding="utf-8"
    )
    shutil.copy(HERE / "hash.mjs", tmp_path)
    hashes = json.loads(node("hash.mjs", "entries.json", folder=tmp_path))
    assert hashes == [entry["hash"] for entry in entries]


def test_document_passes_every_rule_of_spectral() -> None:
    """Spectral finds nothing in the committed document, by all of its rules for OpenAPI."""
    spectral = MODULES / "@stoplight/spectral-cli/dist/index.js"
    if not spectral.exists():
        pytest.skip(
            "NOT TESTED with Spectral: it needs Node.js and npm; `make test` installs the rest"
        )
    rules = ("--ruleset", str(HERE / "spectral.yaml"), "--fail-severity", "hint")
    assert "No results" in node(spectral, "lint", *rules, PATH, folder=HERE)


def test_tools_are_pinned() -> None:
    """Each is of one version, and what comes with it is locked, without the name of any host."""
    wanted = json.loads((HERE / "package.json").read_text())["dependencies"]
    assert all(version.replace(".", "").isdigit() for version in wanted.values())
    lock = (HERE / "package-lock.json").read_text()
    assert json.loads(lock)["packages"][""]["dependencies"] == wanted
    assert "resolved" not in lock
    assert "tests/clients/package-lock.json" in (ROOT / "Makefile").read_text()
