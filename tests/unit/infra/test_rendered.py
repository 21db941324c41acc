"""What AWS says of the template as it is deployed, with every choice that there is: its schemas, and a second fake."""

import json
import re
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore import xform_name
from botocore.session import get_session
from moto import mock_aws

from tests.fakes.aws_calls import calls
from tests.fakes.cloudformation import ACCOUNT, Rendered, transformed, walk
from tests.fakes.service_model import objections
from tests.support import ROOT

pytestmark = pytest.mark.slow

TOPIC = f"arn:aws:sns:eu-central-1:{ACCOUNT}:alarms"
CHOICES: dict[str, tuple[dict[str, str], ...]] = {
    "Stage": ({"Stage": "dev"}, {"Stage": "prod", "AlarmTopicArn": TOPIC}),
    "ReceiptsState": ({"ReceiptsState": "ENABLED"}, {"ReceiptsState": "DISABLED"}),
    "RewardsState": ({"RewardsState": "ENABLED"}, {"RewardsState": "DISABLED"}),
    "AllowedOrigins": ({}, {"AllowedOrigins": "https://app.example,https://admin.example:8443"}),
    "ReservedConcurrency": (
        {},
        {
            "ReservedConcurrency": "50",
            "DynamoDBEndpoint": "https://dynamodb-fips.us-east-1.amazonaws.com",
            "SnapStart": "None",
        },
    ),
}
"""What conditions of the template ask; each combination of these is deployed by somebody."""
COMBINATIONS = [
    {name: value for part in parts for name, value in part.items()}
    for parts in product(*CHOICES.values())
]
FAKED = {"cloudwatch", "dynamodb", "iam", "kms", "logs", "scheduler", "sqs"}
"""Of the services, those that the second fake makes the same things of."""
REGIONS = ["us-east-1", "eu-central-1", "ap-southeast-2"]


def test_every_condition_is_tried_both_ways() -> None:
    """The combinations below have each of the template's conditions true in one and false in another."""
    stacks = [Rendered(**parameters) for parameters in COMBINATIONS]
    for condition in transformed()["Conditions"]:
        assert {stack.holds(condition) for stack in stacks} == {True, False}, condition


def test_aws_s_own_schemas_take_every_combination() -> None:
    """Types, lengths, ranges, patterns and choices of all arguments, by the models from which AWS makes its clients."""
    for parameters in COMBINATIONS:
        made = list(calls(Rendered(**parameters)))
        assert len(made) > 60
        assert [objection for call in made for objection in objections(*call)] == [], parameters


LONGEST = {
    "Architecture": "x86_64",
    "MemorySize": "10240",
    "DynamoDBEndpoint": "https://" + "d" * 92,
    "BasePath": "/" + "b" * 49,
    "ReceiptsState": "DISABLED",
    "AllowedOrigins": ",".join(f"https://{'o' * 60}-{number}.example" for number in range(20)),
}


def test_the_longest_parameters_and_name_are_taken_too() -> None:
    """Nothing that is put together of parameters becomes longer than AWS takes, under the longest name of a stack."""
    declared = transformed()["Parameters"]
    for name in ("DynamoDBEndpoint", "BasePath"):
        assert len(LONGEST[name]) == declared[name]["MaxLength"]
    longest = Rendered(stack="s" * 128, region="ap-southeast-2", **LONGEST)
    found = [one for call in calls(longest) for one in objections(*call)]
    assert not [
        one for one in found if "Description" in one or "Dashboard" in one or "logGroupName" in one
    ], found


@pytest.mark.parametrize(
    ("service", "operation", "arguments", "objection"),
    [
        ("cloudwatch", "PutDashboard", {"DashboardName": "a b", "DashboardBody": "{}"}, ""),
        ("cloudwatch", "PutDashboard", {"DashboardName": "a"}, "lacks DashboardBody"),
        ("logs", "CreateLogGroup", {"logGroupName": "/a b"}, "does not match"),
        ("logs", "CreateLogGroup", {"logGroupName": ""}, "is 0"),
        ("scheduler", "CreateSchedule", {"FlexibleTimeWindow": {"Mode": "off"}}, "not one of"),
        ("lambda", "PublishVersion", {"FunctionName": "f", "Description": "d" * 257}, "is 257"),
        (
            "lambda",
            "CreateAlias",
            {"FunctionName": "f", "Name": "7", "FunctionVersion": "7"},
            "does not match",
        ),
        ("sqs", "CreateQueue", {"QueueName": "q", "Attribute": {}}, "does not know Attribute"),
        ("apigatewayv2", "CreateApi", {"Name": "a", "ProtocolType": "HTTPS"}, "not one of"),
    ],
)
def test_schemas_find_what_is_wrong(
    service: str, operation: str, arguments: dict[str, Any], objection: str
) -> None:
    """What the schemas say is looked at: a wrong name, length, choice or form is told; dashboards' names have none."""
    found = objections(service, operation, arguments)
    assert not objection or [one for one in found if objection in one]


def test_a_second_fake_makes_all_of_it() -> None:
    """moto takes dashboard, alarms, schedule, roles, key, queues, tables and log groups, with all that they hold."""
    made = [call for call in calls(Rendered(Stage="prod", AlarmTopicArn=TOPIC)) if call[0] in FAKED]
    assert {service for service, _, _ in made} == FAKED
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
    with mock_aws():
        clients: dict[str, Any] = {name: boto3.client(name, "us-east-1", **keys) for name in FAKED}  # type: ignore[call-overload]
        for service, operation, arguments in made:
            getattr(clients[service], xform_name(operation))(**arguments)
        assert len(clients["cloudwatch"].describe_alarms()["MetricAlarms"]) == 15
        assert len(clients["iam"].list_roles()["Roles"]) == 3


@pytest.fixture(scope="module")
def documents() -> list[str]:
    """The template with nothing left to put in, as the linter reads it."""
    rendered = [Rendered(**parameters) for parameters in (COMBINATIONS[0], COMBINATIONS[-1])]
    return [json.dumps(stack.document()) for stack in rendered]


def test_schemas_of_the_resources_take_them_in_every_region(
    documents: list[str], tmp_path: Path
) -> None:
    """CloudFormation's own schemas, with what regions lack, have nothing against what is deployed."""
    paths = [tmp_path / f"{number}.json" for number in range(len(documents))]
    for path, text in zip(paths, documents, strict=True):
        path.write_text(text)
    command = [
        str(Path(sys.executable).with_name("cfn-lint")),
        "--regions",
        *REGIONS,
        "--ignore-checks",
        "W",
        "--",
    ]
    done = subprocess.run([*command, *map(str, paths)], capture_output=True, text=True, check=False)
    assert done.stdout == ""


def statements(rendered: Rendered) -> list[dict[str, Any]]:
    """The statements of all policies: of roles, and of what they are about."""
    found = [
        one
        for one in walk(list(rendered.properties.values()))
        if isinstance(one, dict) and "Effect" in one
    ]
    assert len(found) > 25
    return found


NO_OPERATIONS = {
    "lambda:InvokeFunction",
    "sts:AssumeRole",
    "xray:PutTelemetryRecords",
    "xray:PutTraceSegments",
}
PARTIQL = {"dynamodb:PartiQLInsert", "dynamodb:PartiQLUpdate", "dynamodb:PartiQLDelete"}


def test_policies_name_actions_that_there_are() -> None:
    """An action that is misspelt allows nothing, or denies nothing, and nobody is told."""
    for statement in statements(Rendered()):
        actions = (
            statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        )
        for action in actions:
            service, _, name = action.partition(":")
            known = {
                f"{service}:{one}"
                for one in get_session().get_service_model(service).operation_names
            }
            assert action in known | NO_OPERATIONS | PARTIQL, action
            assert name.isalpha()


CONDITION_KEYS = {
    "aws:PrincipalArn",
    "aws:SourceAccount",
    "aws:ViaAWSService",
    "dynamodb:EnclosingOperation",
    "kms:SigningAlgorithm",
}


def test_policies_ask_for_keys_that_there_are() -> None:
    """A condition whose key is misspelt is never met, or always."""
    conditions = [one["Condition"] for one in statements(Rendered()) if "Condition" in one]
    asked = {key for condition in conditions for test in condition.values() for key in test}
    assert asked == CONDITION_KEYS


UNIQUE_WITHIN = {
    ("AWS::ApiGatewayV2::Authorizer", "Name"),  # its API
    ("AWS::ApiGatewayV2::Stage", "StageName"),  # its API
    ("AWS::Lambda::Alias", "Name"),  # its function
    ("AWS::CloudWatch::Alarm", "MetricName"),  # no name of the alarm's
}
"""Names that need not be unique beyond a resource of the stack."""
OF_ALL_REGIONS = {"AWS::CloudWatch::Dashboard", "AWS::IAM::Role"}


def own_names(rendered: Rendered) -> dict[tuple[str, str], str]:
    """Each name that the template gives a resource, by its logical id and the property."""
    return {
        (name, key): value
        for name, resource in rendered.resources.items()
        for key, value in rendered.properties[name].items()
        if key.endswith("Name") and isinstance(value, str)
        if (resource["Type"], key) not in UNIQUE_WITHIN
        if value != rendered.parameters.get(key) and not key.startswith("Function")
    }


def test_no_name_is_the_same_in_two_stacks() -> None:
    """Not in one region, nor in two, nor when a stack is made again beside what outlived the first."""
    prod, dev, elsewhere = (
        own_names(Rendered()),
        own_names(Rendered(stack="dev")),
        Rendered(region="eu-central-1"),
    )
    assert len(prod) == 5
    assert not {name for name in prod if prod[name] == dev[name]}
    there = own_names(elsewhere)
    assert not {
        name
        for name in prod
        if elsewhere.resources[name[0]]["Type"] in OF_ALL_REGIONS and prod[name] == there[name]
    }
    again = own_names(Rendered(created="again"))
    outliving = {
        one
        for one, resource in elsewhere.resources.items()
        if resource.get("DeletionPolicy", "Delete") != "Delete"
    }
    assert not {name for name in prod if name[0] in outliving and prod[name] == again[name]}


COMMANDS = {"SOURCE", "filter", "fields", "sort", "limit"}
WORDS = {"ispresent", "desc", "complete"}


def test_queries_ask_for_what_the_log_has() -> None:
    """Queries of the dashboard have commands that there are, groups of the stack, and fields of our lines."""
    stack = Rendered()
    (dashboard,) = stack.of_type("AWS::CloudWatch::Dashboard").values()
    widgets = json.loads(dashboard["DashboardBody"])["widgets"]
    queries = [one["properties"]["query"] for one in widgets if one["type"] == "log"]
    assert len(queries) == 2
    told = "".join(
        (ROOT / name).read_text()
        for name in ("ledger_core/http/telemetry.py", "functions/daily_reward/function.py")
    )
    told += (ROOT / "ledger_core/rewards/progress.py").read_text()
    groups = {one["LogGroupName"] for one in stack.of_type("AWS::Logs::LogGroup").values()}
    for query in queries:
        source, *rest = [part.strip() for part in query.split("|")]
        assert re.fullmatch(r"SOURCE '([^']+)'", source)
        assert source.split("'")[1] in groups
        assert {part.split()[0] for part in rest} <= COMMANDS
        names = (
            set(re.findall(r"(?<![@\w])[a-z_]+", " ".join(part.partition(" ")[2] for part in rest)))
            - WORDS
        )
        assert {name for name in names if not re.search(rf"\b{name}\b", told)} == set()


def test_metrics_of_the_dashboard_are_rows_that_cloudwatch_reads() -> None:
    """Each row names a metric, and repeats only what the row above has, or searches metrics by our dimensions."""
    (dashboard,) = Rendered().of_type("AWS::CloudWatch::Dashboard").values()
    searches = []
    for widget in json.loads(dashboard["DashboardBody"])["widgets"]:
        above: list[Any] = []
        for row in widget["properties"].get("metrics", []):
            if "expression" in row[0]:
                searches.append(row[0]["expression"])
                continue
            words = [one for one in row if isinstance(one, str)]
            full = (
                [*above[: len(above) - len(words) + 1], *words[1:]] if words[0] == "..." else words
            )
            full = [above[at] if one == "." else one for at, one in enumerate(full)]
            assert len(full) >= 4
            assert len(full) % 2 == 0
            assert all(full)
            above = full
    by_operation = (
        r"SEARCH\('{SharedLedger,service,operation} service=\"ledger-prod\" "
        r"MetricName=\"Rewards\w+\"', 'Sum', 300\)"
    )
    assert len(searches) == 3
    assert all(re.fullmatch(by_operation, one) for one in searches)
