"""The tables and queues of the scheduled function: DynamoDB Local, and SQS by moto."""

import os
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

import boto3
import pytest
from botocore.config import Config

from infra.dynamodb import create_tables, moto
from ledger_core.dynamodb import SWEEP_CONFIG
from tests.conftest import ledger_tables
from tests.fakes.cloud import Cloud

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


@pytest.fixture(scope="session")
def patient_client(dynamodb_local_endpoint: str) -> "DynamoDBClient":
    """A client for all tests, which waits for the slow first answers of DynamoDB Local."""
    patient = SWEEP_CONFIG.merge(Config(read_timeout=60))
    return boto3.client(
        "dynamodb", endpoint_url=dynamodb_local_endpoint, region_name="us-east-1", config=patient
    )


@pytest.fixture
def cloud(
    patient_client: "DynamoDBClient", dynamodb_local_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cloud]:
    """Empty tables in DynamoDB Local, empty queues in moto."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", dynamodb_local_endpoint)
    create_tables(patient_client, ledger_tables())
    with moto():
        yield Cloud(
            patient_client, _session().client("sqs", region_name="us-east-1"), dict(os.environ)
        )


@cache
def _session() -> boto3.Session:
    return boto3.Session()
