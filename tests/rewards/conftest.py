"""The scheduled function's surroundings: DynamoDB Local for the guarantees, moto for SQS."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import boto3
import pytest
from botocore.config import Config

from functions.wiring import SWEEP_CONFIG, create_client
from infra.dynamodb import moto
from tests.rewards.harness import Cloud

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


@pytest.fixture
def cloud(real_client: "DynamoDBClient") -> Iterator[Cloud]:
    """Empty tables in DynamoDB Local, whose first large transaction takes seconds; empty queues in moto."""
    assert real_client is not None
    patient = create_client(SWEEP_CONFIG.merge(Config(read_timeout=60)))
    with moto():
        yield Cloud(patient, boto3.client("sqs", region_name="us-east-1"), dict(os.environ))
