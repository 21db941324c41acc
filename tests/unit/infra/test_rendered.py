"""The rendered template with all choices, checked by AWS's schemas and by moto."""

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
"""The choices of a deployer; each combination may be deployed."""
COMBINATIONS = [
    {name: value for part in parts for name, value in part.items()}
    for parts in product(*CHOICES.values())
]
FAKED = {"cloudwatch", "dynamodb", "iam", "kms", "logs", "scheduler", "sqs"}
"""The services whose resources moto makes."""
REGIONS = ["us-east-1", "eu-central-1", "ap-southeast-2"]


def test_every_condition_is_tried_both_ways() -> None:
    """Each condition of the template is true in a combination, and false in another."""
    stacks = [Rendered(**parameters) for parameters in COMBINATIONS]
    for condition in transformed()["Conditions"]:
        assert {stack.holds(condition) for stack in stacks} == {True, False}, condition


def test_schemas_of_aws_accept_every_combination() -> None:
    """The models of AWS's clients accept the arguments of every resource."""
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


def test_longest_parameters_and_stack_name_are_accepted() -> None:
    """No text that is made of the longest parameters is longer than AWS accepts."""
    declared = transformed()["Parameters"]
    for name in ("DynamoDBEndpoint", "BasePath"):
        assert len(LONGEST[name]) == declared[name]["MaxLength"]
    longest = Rendered(stack="s" * 128, region="ap-southeast-2", **LONGEST)
    found = [objection for call in calls(longest) for objection in objections(*call)]
    for text in ("Description", "Dashboard", "logGroupName"):
        assert not [objection for objection in found if text in objection], found


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
def test_schemas_find_wrong_arguments(
    service: str, operation: str, arguments: dict[str, Any], objection: str
) -> None:
    """A wrong name, length, choice or pattern is found; the name of a dashboard has no pattern."""
    found = objections(service, operation, arguments)
    assert not objection or [text for text in found if objection in text]


def test_moto_makes_the_resources() -> None:
    """moto accepts the dashboard, alarms, schedule, roles, key, queues, tables and log groups."""
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
    """The rendered templates that the linter reads."""
    rendered = [Rendered(**parameters) for parameters in (COMBINATIONS[0], COMBINATIONS[-1])]
    return [json.dumps(stack.document()) for stack in rendered]


def test_schemas_of_the_resources_take_them_in_every_region(
    documents: list[str], tmp_path: Path
) -> None:
    """CloudFormation's schemas of each region accept the resources."""
    paths = [tmp_path / f"{number}.json" for number in range(len(documents))]
    for path, text in zip(paths, documents, strict=True):
        path.write_text(text)
    linter = str(Path(sys.executable).with_name("cfn-lint"))
    command = [linter, "--regions", *REGIONS, "--ignore-checks", "W", "--"]
    done = subprocess.run([*command, *map(str, paths)], capture_output=True, text=True, check=False)
    assert done.stdout == ""


def statements(rendered: Rendered) -> list[dict[str, Any]]:
    """The statements of all policies, of roles and of resources."""
    parts = walk(list(rendered.properties.values()))
    found = [part for part in parts if isinstance(part, dict) and "Effect" in part]
    assert len(found) > 25
    return found


NO_OPERATIONS = {
    "lambda:InvokeFunction",
    "sts:AssumeRole",
    "xray:PutTelemetryRecords",
    "xray:PutTraceSegments",
}
PARTIQL = {"dynamodb:PartiQLInsert", "dynamodb:PartiQLUpdate", "dynamodb:PartiQLDelete"}


def test_actions_of_policies_exist() -> None:
    """AWS reports no misspelt action, which would allow or deny nothing."""
    for statement in statements(Rendered()):
        actions = statement["Action"]
        if isinstance(actions, str):
            actions = [actions]
        for action in actions:
            service, _, name = action.partition(":")
            operations = get_session().get_service_model(service).operation_names
            known = {f"{service}:{operation}" for operation in operations}
            assert action in known | NO_OPERATIONS | PARTIQL, action
            assert name.isalpha()


CONDITION_KEYS = {
    "aws:PrincipalArn",
    "aws:SourceAccount",
    "aws:ViaAWSService",
    "dynamodb:EnclosingOperation",
    "kms:SigningAlgorithm",
}


def test_condition_keys_of_policies_exist() -> None:
    """A condition with a misspelt key would be met never or always."""
    conditions = [
        statement["Condition"] for statement in statements(Rendered()) if "Condition" in statement
    ]
    asked = {key for condition in conditions for test in condition.values() for key in test}
    assert asked == CONDITION_KEYS


UNIQUE_WITHIN = {
    ("AWS::ApiGatewayV2::Authorizer", "Name"),  # its API
    ("AWS::ApiGatewayV2::Stage", "StageName"),  # its API
    ("AWS::Lambda::Alias", "Name"),  # its function
    ("AWS::CloudWatch::Alarm", "MetricName"),  # not a name of the alarm
}
"""Names that must be unique only within a resource of the stack."""
OF_ALL_REGIONS = {"AWS::CloudWatch::Dashboard", "AWS::IAM::Role"}


def own_names(rendered: Rendered) -> dict[tuple[str, str], str]:
    """Each name that the template gives to a resource, by logical id and property."""
    return {
        (name, key): value
        for name, resource in rendered.resources.items()
        for key, value in rendered.properties[name].items()
        if key.endswith("Name") and isinstance(value, str)
        if (resource["Type"], key) not in UNIQUE_WITHIN
        if value != rendered.parameters.get(key) and not key.startswith("Function")
    }


def test_two_stacks_share_no_name() -> None:
    """Names differ between stacks, regions, and a stack and the retained resources of its first."""
    prod = own_names(Rendered())
    dev = own_names(Rendered(stack="dev"))
    elsewhere = Rendered(region="eu-central-1")
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
        name
        for name, resource in elsewhere.resources.items()
        if resource.get("DeletionPolicy", "Delete") != "Delete"
    }
    assert not {name for name in prod if name[0] in outliving and prod[name] == again[name]}


COMMANDS = {"SOURCE", "filter", "fields", "sort", "limit"}
WORDS = {"ispresent", "desc", "complete"}


def test_queries_of_the_dashboard_fit_the_lines() -> None:
    """A query has existing commands, log groups of the stack, and fields of the lines."""
    stack = Rendered()
    (dashboard,) = stack.of_type("AWS::CloudWatch::Dashboard").values()
    widgets = json.loads(dashboard["DashboardBody"])["widgets"]
    queries = [widget["properties"]["query"] for widget in widgets if widget["type"] == "log"]
    assert len(queries) == 2
    files = (
        "ledger_core/http/telemetry.py",
        "functions/daily_reward/function.py",
        "ledger_core/rewards/progress.py",
    )
    sources = "".join((ROOT / name).read_text() for name in files)
    groups = {group["LogGroupName"] for group in stack.of_type("AWS::Logs::LogGroup").values()}
    for query in queries:
        source, *rest = [part.strip() for part in query.split("|")]
        assert re.fullmatch(r"SOURCE '([^']+)'", source)
        assert source.split("'")[1] in groups
        assert {part.split()[0] for part in rest} <= COMMANDS
        arguments = " ".join(part.partition(" ")[2] for part in rest)
        names = set(re.findall(r"(?<![@\w])[a-z_]+", arguments)) - WORDS
        assert {name for name in names if not re.search(rf"\b{name}\b", sources)} == set()


def test_metric_rows_of_the_dashboard_are_complete() -> None:
    """A row names a metric, repeats parts of the row above, or searches by dimensions."""
    (dashboard,) = Rendered().of_type("AWS::CloudWatch::Dashboard").values()
    searches = []
    for widget in json.loads(dashboard["DashboardBody"])["widgets"]:
        above: list[Any] = []
        for row in widget["properties"].get("metrics", []):
            if "expression" in row[0]:
                searches.append(row[0]["expression"])
                continue
            words = [word for word in row if isinstance(word, str)]
            if words[0] == "...":
                words = [*above[: len(above) - len(words) + 1], *words[1:]]
            full = [above[at] if word == "." else word for at, word in enumerate(words)]
            assert len(full) >= 4
            assert len(full) % 2 == 0
            assert all(full)
            above = full
    by_operation = (
        r"SEARCH\('{SharedLedger,service,operation} service=\"ledger-prod\" "
        r"MetricName=\"Rewards\w+\"', 'Sum', 300\)"
    )
    assert len(searches) == 3
    assert all(re.fullmatch(by_operation, search) for search in searches)
