"""Two stacks in one account and region do not collide, also after one of them is deleted."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.issuer import Issuer
from infra.processes import free_port
from infra.stack import BUILT, MINISTACK, Stack, deploy, deployed

SECONDS_MAX = 60
SECOND = "ledger-2"
TOPIC = "arn:aws:sns:us-east-1:000000000000:alarms"
OTHER_PARAMETERS = (
    "Stage=prod",
    f"AlarmTopicArn={TOPIC}",
    "RewardsState=DISABLED",
    "ReceiptsState=DISABLED",
)
KEPT_OUTPUTS = {
    "AccountsTableName",
    "ApiFunctionLogGroupName",
    "EntriesTableName",
    "RewardsDeadLetterQueueUrl",
    "RewardsEventsDeadLetterQueueUrl",
}
"""The outputs that name resources which outlive their stack."""
LOG_PREFIXES = (f"/aws/lambda/{SECOND}/", f"/aws/vendedlogs/{SECOND}/")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tmp_path_factory.mktemp("stacks"))


@pytest.fixture(scope="module")
def first(folder: Path) -> Iterator[Stack]:
    if not (BUILT.exists() and MINISTACK.exists()):
        pytest.skip("NOT TESTED as deployed stacks: `make e2e` builds the stack and sets up AWS")
    with deployed(free_port(), Issuer(free_port(), folder)) as stack:
        yield stack


@pytest.fixture(scope="module")
def second(first: Stack, folder: Path) -> Stack:
    return deploy(Stack(first.endpoint, first.issuer, SECOND), folder, *OTHER_PARAMETERS)


def ask(stack: Stack, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
    """Send a request of an app that may do everything."""
    token = stack.issuer.token("shop", "ledger/read ledger/write")
    headers = {"Authorization": f"Bearer {token}", **headers}
    return httpx.request(method, stack.url + path, json=body, headers=headers, timeout=SECONDS_MAX)


def left(stack: Stack) -> set[str]:
    """The names of all tables, queues and log groups of the account."""
    tables = stack.client("dynamodb").list_tables()["TableNames"]
    queues = stack.client("sqs").list_queues()["QueueUrls"]
    groups = stack.client("logs").describe_log_groups()["logGroups"]
    return {
        *tables,
        *(url.rpartition("/")[2] for url in queues),
        *(group["logGroupName"] for group in groups),
    }


def test_a_second_stack_has_everything_of_its_own(first: Stack, second: Stack) -> None:
    """The stacks share no output, and an entry of one stack is not in the other."""
    assert not set(first.outputs.values()) & set(second.outputs.values())
    schedules = first.client("scheduler").list_schedules()["Schedules"]
    assert sorted(schedule["State"] for schedule in schedules) == ["DISABLED", "ENABLED"]
    assert len({schedule["Name"] for schedule in schedules}) == 2
    body = {"owner_id": "ada", "operation": "SIGNUP_CREDIT", "nonce": "signup"}
    assert ask(second, "POST", "/ledger/entry", body).status_code == 200
    answers = [ask(stack, "GET", "/ledger/ada/balance").json() for stack in (first, second)]
    assert [answer["balance"] for answer in answers] == [0, 3]


def test_prod_without_a_topic_is_no_stack(first: Stack, folder: Path) -> None:
    """A rule of the template refuses the stack before a resource is created."""
    with pytest.raises(RuntimeError, match="AlarmTopicArn"):
        deploy(
            Stack(first.endpoint, first.issuer, "ledger-3"),
            folder,
            "Stage=prod",
            "RewardsState=DISABLED",
        )
    assert not [name for name in left(first) if "ledger-3" in name]


def test_what_a_stack_leaves_is_not_in_the_way_of_the_next(
    first: Stack, second: Stack, folder: Path
) -> None:
    """A deleted stack leaves its ledgers, logs and dead letters; the same name works again."""
    cloudformation = first.client("cloudformation")
    before = second.outputs
    cloudformation.delete_stack(StackName=SECOND)
    deletion = cloudformation.get_waiter("stack_delete_complete")
    deletion.wait(StackName=SECOND, WaiterConfig={"Delay": 1})
    names = left(first)
    kept = {
        output
        for output, value in before.items()
        if value in names or value.rpartition("/")[2] in names
    }
    assert kept == KEPT_OUTPUTS
    assert len([name for name in names if name.startswith(LOG_PREFIXES)]) == 3
    again = deploy(Stack(first.endpoint, first.issuer, SECOND), folder, *OTHER_PARAMETERS)
    # The template names the log group; CloudFormation generates new names for the rest.
    assert again.outputs["ApiFunctionLogGroupName"] not in before.values()
    answers = [ask(stack, "GET", "/ledger/ada/balance") for stack in (first, again)]
    assert [answer.status_code for answer in answers] == [200, 200]
