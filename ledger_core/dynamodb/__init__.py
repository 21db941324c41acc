"""DynamoDB, KMS and SQS: the only package that imports botocore. It decides nothing."""

from ledger_core.dynamodb.client import (
    CLIENT_CONFIG,
    SWEEP_CONFIG,
    ClientConfig,
    create_dynamodb_client,
    create_kms_client,
    create_sqs_client,
)
from ledger_core.dynamodb.clock import SystemClock
from ledger_core.dynamodb.decode import Cancelled
from ledger_core.dynamodb.expressions import ENTRIES_MAX
from ledger_core.dynamodb.request import dynamodb_request
from ledger_core.dynamodb.signing import KmsKey, PemKey, ReceiptKey, base64url, jwk
from ledger_core.dynamodb.store import LedgerStore
from ledger_core.dynamodb.stored import (
    HEAD_FIELDS,
    KEYS,
    StoredHead,
    reported,
    respelt,
    same,
    unknown_fields,
    written_fields,
)
from ledger_core.dynamodb.sweep_store import LOOK_UPS_MAX, WRITES_MAX, Page, SweepStore

__all__ = [
    "CLIENT_CONFIG",
    "ENTRIES_MAX",
    "HEAD_FIELDS",
    "KEYS",
    "LOOK_UPS_MAX",
    "SWEEP_CONFIG",
    "WRITES_MAX",
    "Cancelled",
    "ClientConfig",
    "KmsKey",
    "LedgerStore",
    "Page",
    "PemKey",
    "ReceiptKey",
    "StoredHead",
    "SweepStore",
    "SystemClock",
    "base64url",
    "create_dynamodb_client",
    "create_kms_client",
    "create_sqs_client",
    "dynamodb_request",
    "jwk",
    "reported",
    "respelt",
    "same",
    "unknown_fields",
    "written_fields",
]
