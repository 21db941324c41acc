"""`make run AUTH=jwt` and `make token`: real tokens on one machine."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from infra.issuer import AUDIENCE, Issuer, JwtAuthorizer, new_key
from infra.processes import free_port
from tests.e2e.server import Server
from tests.support import ROOT


def token(*options: str) -> str:
    """The token that `make token` prints."""
    command = [sys.executable, "-m", "infra.issuer", *options]
    make = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return make.stdout.strip()


def test_server_takes_the_tokens_that_the_command_prints(
    dynamodb_local_endpoint: str, tmp_path: Path
) -> None:
    """An owner's token reads only its ledger, an app's token posts; only health needs no token."""
    port = str(free_port())
    server = Server(tmp_path, "--auth", "jwt", "--issuer-port", port)
    server.start()
    try:
        body = {"owner_id": "ada", "operation": "SIGNUP_CREDIT", "nonce": "n"}

        def ask(path: str, *options: str) -> int:
            headers = bearer(*options) if options else {}
            return httpx.get(server.url + path, headers=headers).status_code

        def bearer(*options: str) -> dict[str, str]:
            return {"Authorization": f"Bearer {token('--port', port, *options)}"}

        shop = bearer("--owner", "shop", "--scope", "ledger/write")
        assert httpx.post(f"{server.url}/ledger/entry", json=body, headers=shop).status_code == 200
        assert httpx.post(f"{server.url}/ledger/entry", json=body).status_code == 401
        assert ask("/health") == 200
        assert ask("/ledger/ada/balance") == 401
        assert ask("/ledger/ada/balance", "--owner", "ada") == 200
        assert ask("/ledger/ada/balance", "--owner", "eve") == 403
        assert ask("/ledger/ada/balance", "--owner", "eve", "--scope", "openid ledger/read") == 200
        assert ask("/ledger/ada/balance", "--owner", "ada", "--expires-seconds", "-1") == 401
        assert ask("/ledger/ada/balance", "--owner", "ada", "--audience", "another-app") == 401
    finally:
        assert "LEDGER_AUTH=jwt" in server.stop(signal.SIGINT)


def signed(issuer: Issuer, algorithm: str = "RS256", key: Any = None, **changes: Any) -> str:
    """A valid token with changed claims; a claim that is None is left out."""
    claims = jwt.decode(issuer.token("ada"), options={"verify_signature": False}) | changes
    kept = {name: value for name, value in claims.items() if value is not None}
    if key is None:
        key = issuer._key
    return jwt.encode(kept, key, algorithm, headers={"kid": "local"})


FORGERIES: dict[str, Callable[[Issuer], str]] = {
    "another key": lambda issuer: issuer.token("ada", key=new_key()),
    "another issuer with the same key": lambda issuer: signed(issuer, iss="http://127.0.0.1:1"),
    "another audience": lambda issuer: signed(issuer, aud="another-app"),
    "expired": lambda issuer: signed(issuer, exp=1),
    "never expires": lambda issuer: signed(issuer, exp=None),
    "not yet": lambda issuer: signed(issuer, nbf=2**40),
    "no signature": lambda issuer: signed(issuer, "none", ""),
    "a secret": lambda issuer: signed(issuer, "HS256", "k" * 32),
    "an unknown key": lambda issuer: jwt.encode(
        {"sub": "ada"}, new_key(), "RS256", headers={"kid": "other"}
    ),
    "not a token": lambda issuer: "ada",
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_forged_tokens_are_turned_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgery: str
) -> None:
    """Only the issuer's key signs a token, by RS256; a proxy cannot replace the key."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["aws.event"]["requestContext"]["authorizer"]["jwt"]["claims"])
        await Response()(scope, receive, send)

    async def ask(*tokens: str) -> None:
        transport = httpx.ASGITransport(JwtAuthorizer(app, issuer))
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as http:
            for sent in tokens:
                await http.get("/", headers={"Authorization": f"Bearer {sent}"})

    issuer = Issuer(free_port(), tmp_path)
    forged = FORGERIES[forgery](issuer)
    with issuer.serving():
        asyncio.get_event_loop().run_until_complete(ask(forged, issuer.token("ada")))
    refused, accepted = seen
    assert (refused, accepted["sub"]) == ({}, "ada")


def test_key_is_kept_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    """Tokens outlive the issuer's process, and no other user of the machine can sign them."""
    issuer = Issuer(free_port(), tmp_path)
    assert (tmp_path / "issuer.pem").stat().st_mode & 0o777 == 0o600
    public = Issuer(free_port(), tmp_path)._key.public_key()
    assert jwt.decode(issuer.token("ada"), public, ["RS256"], audience=AUDIENCE)["sub"] == "ada"


def test_token_needs_an_owner() -> None:
    """`make token` without an owner says what is missing."""
    done = subprocess.run(
        ["make", "-s", "token"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode
    assert "make token OWNER=ada" in done.stderr
