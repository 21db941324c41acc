"""A JWT issuer and an authorizer on this machine, for `make run AUTH=jwt`, `make run-stack` and the tests.

A reader of its key can make any token, so it listens on the loopback interface only, and no deployed stack trusts it.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import RSAAlgorithm
from starlette.types import ASGIApp, Receive, Scope, Send

from infra import small_server
from infra.dynamodb import CACHE

__all__ = ["AUDIENCE", "PORT", "Issuer", "JwtAuthorizer", "kept_key", "make_token", "new_key"]

PORT = 8010
"""Where `make token` takes the issuer to be."""
AUDIENCE = "ledger"
ALGORITHM = "RS256"
KEY_ID = "local"
EXPIRES_SECONDS = 3600

Key = TypeVar("Key", rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey)


class Issuer:
    """Signs tokens with the key in `folder`, which is made the first time, and publishes the public half of it."""

    def __init__(self, port: int = PORT, folder: Path = CACHE) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._port = port
        self._key = kept_key(folder / "issuer.pem", new_key)

    @property
    def public_key(self) -> rsa.RSAPublicKey:
        return self._key.public_key()

    def token(
        self,
        owner_id: str,
        scope: str = "",
        *,
        audience: str = AUDIENCE,
        expires_seconds: int = EXPIRES_SECONDS,
        key: rsa.RSAPrivateKey | None = None,
    ) -> str:
        """A token for an owner, or for an application that has a scope; another `key` than the issuer's forges one."""
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": audience,
            "iat": now,
            "exp": now + expires_seconds,
            "scope": scope,
        }
        return jwt.encode(
            claims | {"sub": owner_id}, key or self._key, ALGORITHM, headers={"kid": KEY_ID}
        )

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Answer for the discovery document and the key set, as an OpenID Connect issuer does."""
        key_set = {
            **json.loads(RSAAlgorithm.to_jwk(self.public_key)),
            "kid": KEY_ID,
            "alg": ALGORITHM,
        }
        documents = {
            "/.well-known/openid-configuration": {
                "issuer": self.url,
                "jwks_uri": f"{self.url}/.well-known/jwks.json",
            },
            "/.well-known/jwks.json": {"keys": [{**key_set, "use": "sig"}]},
        }

        class Documents(small_server.Handler):
            def respond(self) -> None:
                body = json.dumps(documents.get(self.path, {})).encode()
                self.answer(
                    body,
                    {"content-type": "application/json"},
                    200 if self.path in documents else 404,
                )

        with small_server.serving(Documents, self._port):
            yield


class JwtAuthorizer:
    """ASGI middleware that does what API Gateway's JWT authorizer does: only a valid token's claims reach the app."""

    def __init__(self, app: ASGIApp, issuer: Issuer, audience: str = AUDIENCE) -> None:
        self._app = app
        self._issuer = issuer.url
        self._audience = audience
        self._key = issuer.public_key  # not asked for over HTTP, where a proxy might answer instead

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            claims = self._claims(
                dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
            )
            scope["aws.event"] = {"requestContext": {"authorizer": {"jwt": {"claims": claims}}}}
        await self._app(scope, receive, send)

    def _claims(self, authorization: str) -> Mapping[str, Any]:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return {}
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._key,
                algorithms=[ALGORITHM],
                audience=self._audience,
                issuer=self._issuer,
                options={"require": ["exp"]},
            )
        except jwt.PyJWTError:
            return {}
        return claims


def make_token(port: int) -> str:
    """The command that prints tokens of the issuer at `port`."""
    return "make -s token" + ("" if port == PORT else f" ISSUER_PORT={port}")


def new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def kept_key(path: Path, make: Callable[[], Key]) -> Key:
    """The key that is in a file, where it is put the first time."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        pem = make().private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        with tempfile.NamedTemporaryFile(dir=path.parent) as file:  # readable by its owner only
            file.write(pem)
            file.flush()
            with contextlib.suppress(FileExistsError):  # somebody else was faster
                os.link(file.name, path)
    return cast(Key, serialization.load_pem_private_key(path.read_bytes(), password=None))


def main() -> None:
    """Print a token: `make token OWNER=ada`, `make token OWNER=shop SCOPE="ledger/read ledger/write"`."""
    parser = argparse.ArgumentParser(prog="python -m infra.issuer", description=main.__doc__)
    parser.add_argument("--owner", required=True, help="the token's sub")
    parser.add_argument("--scope", default="")
    parser.add_argument("--audience", default=AUDIENCE)
    parser.add_argument(
        "--expires-seconds", type=int, default=EXPIRES_SECONDS, help="negative: it has expired"
    )
    parser.add_argument("--port", type=int, default=PORT, help="the issuer's")
    options = parser.parse_args()
    if not options.owner:
        sys.exit("ledger: who is the token for? As in: make token OWNER=ada")
    issuer = Issuer(options.port)
    audience, expires = options.audience, options.expires_seconds
    print(issuer.token(options.owner, options.scope, audience=audience, expires_seconds=expires))


if __name__ == "__main__":
    main()
