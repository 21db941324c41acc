"""Two stacks in one account and region: neither is in the other's way, nor is what one leaves behind."""

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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tmp_path_factory.mktemp("stacks"))


@pytest.fixture(scope="module")
def first(folder: Path) -> Iterator[Stack]:
    if not (BUILT.exists() and MINISTACK.exists()):
        pytest.skip(
            "NOT TESTED as deployed stacks: `make e2e` builds them and sets up what they are deployed to"
        )
    with deployed(free_port(), Issuer(free_port(), folder)) as stack:
        yield stack


@pytest.fixture(scope="module")
def second(first: Stack, folder: Path) -> Stack:
    return deploy(Stack(first.endpoint, first.issuer, SECOND), folder, *OTHER_PARAMETERS)


def ask(stack: Stack, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
    """A request of an application that may do everything."""
    token = stack.issuer.token("shop", "ledger/read ledger/write")
    told = {"Authorization": f"Bearer {token}", **headers}
    return httpx.request(method, stack.url + path, json=body, headers=told, timeout=SECONDS_MAX)


def left(stack: Stack) -> set[str]:
    """The names of all tables, queues and log groups that there are, of whatever stack."""
    found = set(stack.client("dynamodb").list_tables()["TableNames"])
    found |= {url.rpartition("/")[2] for url in stack.client("sqs").list_queues()["QueueUrls"]}
    return found | {
        one["logGroupName"] for one in stack.client("logs").describe_log_groups()["logGroups"]
    }


def test_a_second_stack_has_everything_of_its_own(first: Stack, second: Stack) -> None:
    """They share nothing that either puts out, and what is posted to one is not in the other."""
    assert not set(first.outputs.values()) & set(second.outputs.values())
    schedules = first.client("scheduler").list_schedules()["Schedules"]
    assert sorted(one["State"] for one in schedules) == ["DISABLED", "ENABLED"]
    assert len({one["Name"] for one in schedules}) == 2
    body = {"owner_id": "ada", "operation": "SIGNUP_CREDIT", "nonce": "signup"}
    assert ask(second, "POST", "/ledger/entry", body).status_code == 200
    told = [ask(stack, "GET", "/ledger/ada/balance").json()["balance"] for stack in (first, second)]
    assert told == [0, 3]


def test_prod_without_a_topic_is_no_stack(first: Stack, folder: Path) -> None:
    """CloudFormation refuses it by the template's rule, before anything is made."""
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
    """Ledgers, logs and dead letters outlive it; one of the same name can be made again, and the other goes on."""
    cloudformation, before = first.client("cloudformation"), second.outputs
    cloudformation.delete_stack(StackName=SECOND)
    cloudformation.get_waiter("stack_delete_complete").wait(
        StackName=SECOND, WaiterConfig={"Delay": 1}
    )
    there = left(first)
    kept = {"EntriesTableName", "AccountsTableName", "ApiFunctionLogGroupName"}
    kept |= {"RewardsDeadLetterQueueUrl", "RewardsEventsDeadLetterQueueUrl"}
    assert {
        name for name in before if before[name].rpartition("/")[2] in there or before[name] in there
    } == kept
    assert (
        len(
            [
                name
                for name in there
                if name.startswith(("/aws/lambda/ledger-2/", "/aws/vendedlogs/ledger-2/"))
            ]
        )
        == 3
    )
    again = deploy(Stack(first.endpoint, first.issuer, SECOND), folder, *OTHER_PARAMETERS)
    # Names that CloudFormation makes up are new each time on AWS; this one is the template's.
    assert again.outputs["ApiFunctionLogGroupName"] not in before.values()
    told = [ask(stack, "GET", "/ledger/ada/balance").status_code for stack in (first, again)]
    assert told == [200, 200]
