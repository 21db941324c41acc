"""Keys that sign receipts: one that never leaves KMS, or one in a file; both on the curve P-256.

What they sign and their public halves are in the forms of JOSE; it takes no library that the
functions do not have.
"""

import base64
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from ledger_core.dynamodb.errors import translate_errors
from ledger_core.errors import InvalidRequestError, UnavailableError

__all__ = ["KmsKey", "PemKey", "ReceiptKey", "base64url", "jwk"]

NUMBER_BYTES = 32
P256 = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
"""What the DER of a public key on this curve begins with; the two numbers of its point follow."""


class ReceiptKey(Protocol):
    """A private key on P-256, wherever it is, its name, and the name of the ledger that it signs
    for."""

    @property
    def key_id(self) -> str: ...

    @property
    def issuer(self) -> str: ...

    def sign(self, message: bytes) -> bytes:
        """The signature as JOSE has it: of ECDSA over the message's SHA-256, its two numbers."""

    def public(self) -> bytes:
        """The public half, a SubjectPublicKeyInfo in DER."""


class KmsKey:
    """A key that never leaves KMS. The client is made when it is first needed: most functions never
    sign.

    Its methods raise UnavailableError when the same call may succeed later, and StoreError when it
    will not.
    """

    def __init__(self, client: Callable[[], Any], name: str, issuer: str = "ledger") -> None:
        self._new_client = client
        self._name = name
        self.key_id = name.rpartition("/")[2]
        self.issuer = issuer

    @cached_property
    def _client(self) -> Any:
        return self._new_client()

    def sign(self, message: bytes) -> bytes:
        with translate_errors("KMS"):
            response = self._client.sign(
                KeyId=self._name,
                Message=message,
                MessageType="RAW",
                SigningAlgorithm="ECDSA_SHA_256",
            )
            return _raw(_part(response, "Signature"))

    def public(self) -> bytes:
        with translate_errors("KMS"):
            return _part(self._client.get_public_key(KeyId=self._name), "PublicKey")


class PemKey:
    """A key in a file, for one machine. It needs `cryptography`, which functions do not have."""

    key_id = "local"

    def __init__(self, path: Path, issuer: str = "ledger") -> None:
        self._path = path
        self.issuer = issuer

    @cached_property
    def _key(self) -> Any:
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        return load_pem_private_key(self._path.read_bytes(), password=None)

    def sign(self, message: bytes) -> bytes:
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.hashes import SHA256

        return _raw(self._key.sign(message, ec.ECDSA(SHA256())))

    def public(self) -> bytes:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return bytes(
            self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        )


def jwk(public: bytes, key_id: str | None = None) -> dict[str, str]:
    """A public key as JOSE has it (RFC 7517).

    Raises:
        InvalidRequestError: it is on another curve.
    """
    x, y = public[len(P256) : -NUMBER_BYTES], public[-NUMBER_BYTES:]
    if not public.startswith(P256) or len(x) != len(y):
        raise InvalidRequestError("this is no public key on the curve P-256")
    key = {
        "kty": "EC",
        "crv": "P-256",
        "x": base64url(x),
        "y": base64url(y),
        "alg": "ES256",
        "use": "sig",
    }
    return key | ({"kid": key_id} if key_id else {})


def base64url(data: bytes) -> str:
    """As JOSE writes bytes."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _part(response: Mapping[str, Any], name: str) -> bytes:
    if not response.get(name):  # a proxy may answer 200 to a request that it never handed on
        raise UnavailableError(f"The answer has no {name}: it is not KMS's.")
    return bytes(response[name])


def _raw(der: bytes) -> bytes:
    """The two numbers of a signature; in DER each has its length before it."""
    end = 4 + der[3]
    return b"".join(
        int.from_bytes(number, "big").to_bytes(NUMBER_BYTES, "big")
        for number in (der[4:end], der[end + 2 :])
    )
