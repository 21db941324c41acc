"""Receipts: signed heads, which show tampering that the hashes of a ledger alone cannot."""

import base64
import json
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import jwt
import pytest
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    InvalidRegionError,
    NoRegionError,
)
from botocore.parsers import ResponseParserError
from botocore.session import Session
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from functions.example_app.app import create_app
from infra.issuer import kept_key
from ledger_core import UnavailableError
from ledger_core.account import GENESIS_HASH, Head
from ledger_core.audit import Receipt, read_keys, read_receipt, signed
from ledger_core.audit.receipts import TYPE
from ledger_core.dynamodb import KmsKey, jwk
from ledger_core.errors import InvalidRequestError, StoreError
from ledger_core.fields import BALANCE_MAX, OWNER_ID_LENGTH_MAX
from ledger_core.http import create_handler
from ledger_core.wiring import create_receipt_key
from tests.support import NOON, Answer, LambdaApi, wire

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

HEAD = Head(owner_id="ada", balance=7, entry_count=2, head_hash="a" * 64, updated_at=NOON)
RECEIPT = Receipt.of(HEAD, NOON, "ledger")


@pytest.fixture(params=["kms", "pem"])
def key_name(request: pytest.FixtureRequest, client: "DynamoDBClient", tmp_path: Path) -> str:
    """The name of a KMS key, as in the template, and of a key file, as `make run` makes it."""
    if request.param == "kms":
        kms = boto3.client("kms", region_name="us-east-1")
        key = kms.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")
        return str(key["KeyMetadata"]["Arn"])
    kept_key(tmp_path / "receipts.pem", lambda: ec.generate_private_key(ec.SECP256R1()))
    return str(tmp_path / "receipts.pem")


@pytest.fixture(params=["http_api", "rest_api"])
def api(
    request: pytest.FixtureRequest,
    client: "DynamoDBClient",
    key_name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> LambdaApi:
    """The Example App with a key, called by API Gateway's HTTP API and by its REST API."""
    monkeypatch.setenv("LEDGER_RECEIPT_KEY", key_name)
    return LambdaApi(create_handler(create_app(client)), rest_api=request.param == "rest_api")


def post(api: LambdaApi, amount: int, nonce: str) -> Answer:
    body = {"owner_id": "ada", "operation": "CREDIT_ADD", "nonce": nonce, "amount": amount}
    return api("POST", "/ledger/entry", {**body, "metadata": {"note": "secret-note"}})


def public_keys(name: str) -> list[Any]:
    key = create_receipt_key(name)
    assert key
    return [jwk(key.public(), key.key_id)]


def test_receipt_is_a_signed_head(
    api: LambdaApi, client: "DynamoDBClient", key_name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """A receipt is a JWT of the head, made from one read of the account and never logged."""
    post(api, 3, "secret-nonce-1")
    entry = post(api, 4, "secret-nonce-2").body
    sent = wire(client)
    answer = api("GET", "/ledger/ada/receipt")
    assert (answer.status, list(answer.body), sent) == (200, ["receipt"], ["GetItem"])
    receipt = answer.body["receipt"]
    (key,) = public_keys(key_name)
    claims = jwt.decode(receipt, jwt.PyJWK(key), algorithms=["ES256"])
    assert claims == {
        "iss": "ledger",
        "sub": "ada",
        "balance": 7,
        "entry_count": 2,
        "head_hash": entry["hash"],
        "updated_at": entry["created_at"],
        "iat": claims["iat"],
    }
    kid = key_name.rpartition("/")[2] if key_name.startswith("arn:") else "local"
    assert jwt.get_unverified_header(receipt) == {"alg": "ES256", "kid": kid, "typ": TYPE}
    assert read_receipt(json.dumps(answer.body), [key]) == Receipt(**claims)
    out = "".join(capfd.readouterr())
    assert not [part for part in (*receipt.split("."), "secret-nonce") if part in out]


def test_receipt_of_an_owner_without_an_account(api: LambdaApi) -> None:
    """The receipt has no credits, no entries and the genesis hash."""
    receipt = api("GET", "/ledger/nobody/receipt").body["receipt"]
    claims = jwt.decode(receipt, options={"verify_signature": False})
    assert (claims["balance"], claims["entry_count"], claims["head_hash"]) == (0, 0, GENESIS_HASH)
    assert claims["updated_at"] is None


def test_app_without_a_key_gives_no_receipts(client: "DynamoDBClient") -> None:
    """The answer is a 404 that names the missing setting; OpenAPI still describes the route."""
    api = LambdaApi(create_handler(create_app(client)))
    answer = api("GET", "/ledger/ada/receipt")
    assert (answer.status, answer.body["code"]) == (404, "not_found")
    assert "LEDGER_RECEIPT_KEY" in answer.body["detail"]
    path = api("GET", "/openapi.json").body["paths"]["/ledger/{owner_id}/receipt"]
    assert {"200", "403", "404", "422", "500", "503"} <= set(path["get"]["responses"])


def test_every_signature_has_its_64_bytes(key_name: str) -> None:
    """Short numbers are padded; the longest receipt is short enough for KMS."""
    key = create_receipt_key(key_name)
    assert key
    head = Head(
        owner_id="\U0001f600" * OWNER_ID_LENGTH_MAX, balance=BALANCE_MAX, entry_count=BALANCE_MAX
    )
    for number in range(50):
        token = signed(Receipt.of(head, NOON + timedelta(seconds=number), "ledger"), key)
        assert len(token) < 4096  # the most that KMS signs in one call
        assert len(base64.urlsafe_b64decode(token.rpartition(".")[2] + "==")) == 64
        assert read_receipt(token, public_keys(key_name)).sub == head.owner_id


def other_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def by(key: Any, algorithm: str = "ES256", claims: Any = None, **header: Any) -> str:
    return jwt.encode(
        claims or RECEIPT.model_dump(),
        key,
        algorithm,
        headers={"kid": "local", "typ": TYPE} | header,
    )


def altered(token: str) -> str:
    header, _, signature = token.split(".")
    claims = json.dumps({**RECEIPT.model_dump(), "balance": 700}).encode()
    return ".".join([header, base64.urlsafe_b64encode(claims).rstrip(b"=").decode(), signature])


def der_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


FORGERIES: dict[str, Callable[[ec.EllipticCurvePrivateKey], str]] = {
    "other claims": lambda key: altered(by(key)),
    "another key": lambda key: by(other_key()),
    "no signature": lambda key: by(None, "none"),
    "a shared secret": lambda key: by("k" * 32, "HS256"),
    "another curve": lambda key: by(ec.generate_private_key(ec.SECP384R1()), "ES384"),
    "another key id": lambda key: by(key, kid="other"),
    "no key id": lambda key: jwt.encode(RECEIPT.model_dump(), key, "ES256", headers={"typ": TYPE}),
    "a token that is no receipt": lambda key: by(key, typ="JWT"),
    "claims that are no head": lambda key: by(key, claims={"sub": "ada"}),
    "a balance that is text": lambda key: by(key, claims={**RECEIPT.model_dump(), "balance": "7"}),
    "nothing": lambda key: "",
    "text": lambda key: "a.b.c",
    "an answer without a receipt": lambda key: "{}",
    "an answer that is no JSON": lambda key: "{",
    "a list": lambda key: '{"receipt": []}',
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_forged_receipt_is_refused(forgery: str) -> None:
    """A token is a receipt only if one of the keys signed it as a receipt."""
    key = other_key()
    keys = [jwk(der_of(key), "local")]
    assert read_receipt(by(key), keys) == RECEIPT
    with pytest.raises(InvalidRequestError):
        read_receipt(FORGERIES[forgery](key), keys)


def pem_of(key: ec.EllipticCurvePrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def test_public_keys_come_as_jwk_set_or_pem() -> None:
    """Both forms verify a receipt; a JWK set may hold older keys; other texts are refused."""
    key = other_key()
    older = other_key()
    jwks = [jwk(der_of(older), "older"), jwk(der_of(key), "local")]
    keys = json.dumps({"keys": [{"kty": "RSA"}, *jwks]})
    for text in (keys, pem_of(key)):
        assert read_receipt(by(key), read_keys(text)) == RECEIPT
    assert read_receipt(by(older, kid="older"), read_keys(keys)) == RECEIPT
    for text in ("", "{}", "[]", '{"keys": [{}]}', pem_of(ec.generate_private_key(ec.SECP384R1()))):
        with pytest.raises(InvalidRequestError):
            read_keys(text)


@pytest.mark.parametrize("module", ["jwt", "cryptography"])
def test_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """If a library for checking is missing, the error says what to install."""
    if module == "jwt":
        monkeypatch.setitem(sys.modules, "jwt", None)
    else:
        monkeypatch.setattr(jwt.algorithms, "has_crypto", False)
    with pytest.raises(InvalidRequestError, match=r"pip install 'pyjwt\[crypto\]'"):
        read_receipt("", [])


def client_error(code: str, status: int) -> ClientError:
    error: Any = {
        "Error": {"Code": code, "Message": "m"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(error, "Sign")


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (client_error("ThrottlingException", 400), UnavailableError),
        (client_error("KMSInternalException", 500), UnavailableError),
        (client_error("KeyUnavailableException", 500), UnavailableError),
        (client_error("408", 408), UnavailableError),
        (client_error("TooManyRequests", 429), UnavailableError),
        (client_error("ExpiredTokenException", 400), UnavailableError),
        (
            CredentialRetrievalError(provider="container-role", error_msg="no answer"),
            UnavailableError,
        ),
        (
            RuntimeError("the refreshed credentials are still expired."),
            UnavailableError,
        ),
        (ResponseParserError("half an answer"), UnavailableError),
        (ConnectTimeoutError(endpoint_url="http://kms"), UnavailableError),
        (client_error("AccessDeniedException", 400), StoreError),
        (client_error("DisabledException", 400), StoreError),
        (NoRegionError(), StoreError),
        (InvalidRegionError(region_name="nowhere at all"), StoreError),
        (RuntimeError("a bug"), RuntimeError),
    ],
)
def test_error_of_kms_is_translated(error: Exception, raised: type[Exception]) -> None:
    """A temporary error of KMS becomes unavailable, and a permanent error becomes internal."""

    class Kms:
        def sign(self, **_: Any) -> Any:
            raise error

    with pytest.raises(raised):
        KmsKey(Kms, "key").sign(b"")


def test_lasting_temporary_error_of_kms_is_503_with_retry_after(
    client: "DynamoDBClient", monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer has Retry-After, as every 503 has."""

    class Kms:
        def sign(self, **_: Any) -> Any:
            raise CredentialRetrievalError(provider="container-role", error_msg="no answer")

    monkeypatch.setattr("ledger_core.http.executor.TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr("functions.example_app.app.create_receipt_key", lambda: KmsKey(Kms, "key"))
    answer = LambdaApi(create_handler(create_app(client)))("GET", "/ledger/ada/receipt")
    assert (answer.status, answer.body["code"]) == (503, "unavailable")
    assert answer.headers["retry-after"] == "1"


def test_200_that_is_not_from_kms_is_no_signature() -> None:
    """An answer without a signature or a key is a lost answer."""

    class Proxy:
        def sign(self, **_: Any) -> Any:
            return {"ResponseMetadata": {"HTTPStatusCode": 200}}

        get_public_key = sign

    key = KmsKey(Proxy, "key")
    with pytest.raises(UnavailableError):
        key.sign(b"")
    with pytest.raises(UnavailableError):
        key.public()


def test_first_receipt_makes_the_only_client_of_kms(
    client: "DynamoDBClient", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a cold start nor another request makes a client of KMS."""
    made: list[str] = []
    key = boto3.client("kms", region_name="us-east-1").create_key(
        KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY"
    )
    new_client: Any = Session.create_client

    def counted(session: Session, service: str, *arguments: Any, **options: Any) -> Any:
        made.append(service)
        return new_client(session, service, *arguments, **options)

    monkeypatch.setattr(Session, "create_client", counted)
    monkeypatch.setenv("LEDGER_RECEIPT_KEY", key["KeyMetadata"]["KeyId"])
    api = LambdaApi(create_handler(create_app(client)))
    post(api, 1, "n")
    assert made == []
    assert {api("GET", "/ledger/ada/receipt").status for _ in range(2)} == {200}
    assert made == ["kms"]
