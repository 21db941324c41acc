"""A JWT issuer and an authorizer for `make run AUTH=jwt`, `make run-stack` and the tests.

Any program of this machine can read its key and make any token, so the issuer listens on the
loopback interface only, and no stack on AWS may trust it.
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
"""The port at which `make token` expects the issuer."""
AUDIENCE = "ledger"
ALGORITHM = "RS256"
KEY_ID = "local"
EXPIRES_SECONDS = 3600

Key = TypeVar("Key", rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey)


class Issuer:
    """Signs tokens with the key in `folder`, and publishes the public key.

    The first issuer in a folder makes the key.
    """

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
        """A token for an owner, or for an app with a scope. Another `key` forges a token."""
        now = int(time.time())
        claims = {
            "iss": self.url,
            "sub": owner_id,
            "aud": audience,
            "iat": now,
            "exp": now + expires_seconds,
            "scope": scope,
        }
        return jwt.encode(claims, key or self._key, ALGORITHM, headers={"kid": KEY_ID})

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Serve the discovery document and the key set, as an OpenID Connect issuer does."""
        public_key = json.loads(RSAAlgorithm.to_jwk(self.public_key))
        key = {**public_key, "kid": KEY_ID, "alg": ALGORITHM, "use": "sig"}
        key_set_path = "/.well-known/jwks.json"
        answers = {
            "/.well-known/openid-configuration": {
                "issuer": self.url,
                "jwks_uri": f"{self.url}{key_set_path}",
            },
            key_set_path: {"keys": [key]},
        }

        class Handler(small_server.Handler):
            def respond(self) -> None:
                body = json.dumps(answers.get(self.path, {})).encode()
                status = 200 if self.path in answers else 404
                self.answer(body, {"content-type": "application/json"}, status)

        with small_server.serving(Handler, self._port):
            yield


class JwtAuthorizer:
    """ASGI middleware with the rules of API Gateway's JWT authorizer.

    Only the claims of a valid token reach the app.
    """

    def __init__(self, app: ASGIApp, issuer: Issuer, audience: str = AUDIENCE) -> None:
        self._app = app
        self._issuer = issuer.url
        self._audience = audience
        self._key = issuer.public_key  # not read by HTTP, where a proxy can answer instead

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            header = dict(scope["headers"]).get(b"authorization", b"")
            jwt_context = {"claims": self._claims(header.decode("latin-1"))}
            scope["aws.event"] = {"requestContext": {"authorizer": {"jwt": jwt_context}}}
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
    if port == PORT:
        return "make -s token"
    return f"make -s token ISSUER_PORT={port}"


def new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def kept_key(path: Path, make: Callable[[], Key]) -> Key:
    """The key in a file; the first call makes the key."""
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
            with contextlib.suppress(FileExistsError):  # another process was faster
                os.link(file.name, path)
    return cast(Key, serialization.load_pem_private_key(path.read_bytes(), password=None))


def main() -> None:
    """Print a token: `make token OWNER=ada`, `make token OWNER=shop SCOPE=ledger/write`."""
    parser = argparse.ArgumentParser(prog="python -m infra.issuer", description=main.__doc__)
    parser.add_argument("--owner", required=True, help="the token's sub")
    parser.add_argument("--scope", default="")
    parser.add_argument("--audience", default=AUDIENCE)
    parser.add_argument(
        "--expires-seconds", type=int, default=EXPIRES_SECONDS, help="negative: already expired"
    )
    parser.add_argument("--port", type=int, default=PORT, help="the issuer's port")
    options = parser.parse_args()
    if not options.owner:
        sys.exit("ledger: the token needs an owner, as in: make token OWNER=ada")
    token = Issuer(options.port).token(
        options.owner,
        options.scope,
        audience=options.audience,
        expires_seconds=options.expires_seconds,
    )
    print(token)


if __name__ == "__main__":
    main()
