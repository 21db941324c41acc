"""Tables on one machine: created when DynamoDB said so, and not before."""

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
    "another shape": Page(b'{"TableDescription": 3}', REQUEST_ID),
    "another table": Page(created("another"), REQUEST_ID),
    "no request id": Page(created("entries-1")),
    "in use, without a request id": Page(IN_USE, status=400),
}


def client_of(url: str, monkeypatch: pytest.MonkeyPatch) -> "DynamoDBClient":
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", url)
    return create_client()


ONE: Mapping[str, str] = {"LEDGER_ENTRIES_TABLE": "entries-1"}


@pytest.mark.parametrize("kind", NO_ANSWERS)
def test_answer_that_is_not_dynamodb_s_creates_nothing(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """It is asked some times, and then told where the answers come from."""
    with impostor(NO_ANSWERS[kind]) as server:
        with pytest.raises(RuntimeError, match=f"the server at {server.url} is not DynamoDB"):
            create_tables(client_of(server.url, monkeypatch), ONE)
        assert len(server.seen) == CREATE_TRIES_MAX


@pytest.mark.parametrize("kind", NO_ANSWERS)
def test_answer_that_is_not_dynamodb_s_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Once DynamoDB says that the table is there, be it new or not, it is."""
    for said in (Page(created("entries-1"), REQUEST_ID), Page(IN_USE, REQUEST_ID, 400)):
        with impostor(NO_ANSWERS[kind], said) as server:
            create_tables(client_of(server.url, monkeypatch), ONE)
            assert len(server.seen) == 2


def test_tables_that_are_there_are_left_alone(client: "DynamoDBClient") -> None:
    """Created twice, they are there once."""
    before = client.list_tables()["TableNames"]
    create_tables(client, ledger_tables())
    assert client.list_tables()["TableNames"] == before
