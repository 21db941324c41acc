"""Every test here runs on both stores."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


@pytest.fixture(params=["moto", "real"])
def client(request: pytest.FixtureRequest) -> "DynamoDBClient":
    client: DynamoDBClient = request.getfixturevalue(f"{request.param}_client")
    return client
