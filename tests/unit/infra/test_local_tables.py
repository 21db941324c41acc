"""Local tables are created only when DynamoDB has confirmed it."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pytest

from infra.dynamodb import CREATE_TRIES_MAX, create_tables
from ledger_core.wiring import create_client
from tests.conftest import ledger_tables
from tests.fakes.impostor import HTML, Page, impostor

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

REQUEST_ID = {"x-amzn-requestid": "R1"}
IN_USE = b'{"__type": "com.amazonaws.dynamodb.v20120810#ResourceInUseException"}'


def created(name: str) -> bytes:
    return json.dumps({"TableDescription": {"TableName": name}}).encode()


NO_ANSWERS = {
    "empty": Page(b""),
    "HTML": Page(HTML),
    "HTML, with a request id": Page(HTML, REQUEST_ID),
    "cut JSON": Page(b'{"TableDescr', REQUEST_ID),
    "a list": Page(b"[]", REQUEST_ID),
    "a text": Page(b'"created"', REQUEST_ID),
    "null": Page(b"null", REQUEST_ID),
    "no text": Page(b"\xff\xfe", REQUEST_ID),
    "no description": Page(b'{"TableDescription": 3}', REQUEST_ID),
    "another table": Page(created("another"), REQUEST_ID),
    "no request id": Page(created("entries-1")),
    "in use, without a request id": Page(IN_USE, status=400),
}


def client_of(url: str, monkeypatch: pytest.MonkeyPatch) -> "DynamoDBClient":
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", url)
    return create_client()


TABLE: Mapping[str, str] = {"LEDGER_ENTRIES_TABLE": "entries-1"}


@pytest.mark.parametrize("kind", NO_ANSWERS)
def test_answer_that_is_not_from_dynamodb_is_an_error(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """After some tries, the error names the server."""
    with impostor(NO_ANSWERS[kind]) as server:
        with pytest.raises(RuntimeError, match=f"the server at {server.url} is not DynamoDB"):
            create_tables(client_of(server.url, monkeypatch), TABLE)
        assert len(server.seen) == CREATE_TRIES_MAX


@pytest.mark.parametrize("kind", NO_ANSWERS)
def test_answer_that_is_not_from_dynamodb_is_followed_by_a_retry(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The second try is answered by DynamoDB, with a new or an existing table."""
    for page in (Page(created("entries-1"), REQUEST_ID), Page(IN_USE, REQUEST_ID, 400)):
        with impostor(NO_ANSWERS[kind], page) as server:
            create_tables(client_of(server.url, monkeypatch), TABLE)
            assert len(server.seen) == 2


def test_existing_tables_are_left_alone(client: "DynamoDBClient") -> None:
    """A second call creates no table."""
    before = client.list_tables()["TableNames"]
    create_tables(client, ledger_tables())
    assert client.list_tables()["TableNames"] == before
