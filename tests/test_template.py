"""What CloudFormation and CloudWatch make of template.yaml."""

import json
import re
from typing import Any

import boto3
import yaml
from moto import mock_aws

from infra.dynamodb import TEMPLATE


class Tagged(yaml.SafeLoader):
    """Reads CloudFormation's tags in their long form, as in {"Fn::Sub": ...}."""


def long_form(loader: Tagged, suffix: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    return {suffix if suffix in {"Ref", "Condition"} else f"Fn::{suffix}": value}


yaml.add_multi_constructor("!", long_form, Loader=Tagged)


def resources() -> Any:
    return yaml.load(TEMPLATE.read_text(), Loader=Tagged)["Resources"]


def rendered(value: Any) -> str:
    """What becomes of a value when CloudFormation puts in what it refers to."""
    if isinstance(value, str):
        return value
    ((function, argument),) = value.items()
    if function == "Ref":
        return plausible(argument)
    assert function == "Fn::Sub"
    text, given = argument if isinstance(argument, list) else (argument, {})
    known = {name: rendered(one) for name, one in given.items()}
    return re.sub(r"\$\{([^}]+)\}", lambda found: known.get(found[1]) or plausible(found[1]), text)


def plausible(name: str) -> str:
    """A value that a reference could have in a deployed stack."""
    if name.endswith(".Arn"):
        return f"arn:aws:cloudwatch:us-east-1:123456789012:alarm:{name.removesuffix('.Arn')}"
    return {"AWS::Region": "us-east-1", "AWS::StackName": "ledger"}.get(name, f"ledger-{name.replace('.', '-')}-1A2B3C")


def test_cloudwatch_takes_the_dashboard() -> None:
    """The body of the dashboard is JSON once its queries are in it."""
    body = rendered(resources()["Dashboard"]["Properties"]["DashboardBody"])
    logs = [one["properties"]["query"] for one in json.loads(body)["widgets"] if one["type"] == "log"]
    assert len(logs) == 2
    assert "${" not in body
    with mock_aws():
        cloudwatch = boto3.client("cloudwatch", "us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
        cloudwatch.put_dashboard(DashboardName="ledger", DashboardBody=body)
        assert cloudwatch.get_dashboard(DashboardName="ledger")["DashboardBody"] == body


PHYSICAL_NAMES = {
    "AWS::ApiGatewayV2::Api": "Name",  # need not be unique, but tells the APIs of two stacks apart
    "AWS::CloudWatch::Alarm": "AlarmName",
    "AWS::CloudWatch::Dashboard": "DashboardName",
    "AWS::DynamoDB::Table": "TableName",
    "AWS::IAM::Role": "RoleName",
    "AWS::Logs::LogGroup": "LogGroupName",
    "AWS::SQS::Queue": "QueueName",
    "AWS::Serverless::Function": "FunctionName",
}


def test_two_stacks_fit_in_one_account() -> None:
    """No resource has a fixed name: CloudFormation makes the name up, or the stack's name is part of it."""
    for resource in resources().values():
        name = resource["Properties"].get(PHYSICAL_NAMES.get(resource["Type"]))
        assert name is None or "AWS::StackName" in json.dumps(name)
    functions = [one["Properties"] for one in resources().values() if one["Type"] == "AWS::Serverless::Function"]
    events = [event for function in functions for event in function.get("Events", {}).values()]
    (schedule,) = [event["Properties"] for event in events if event["Type"] == "ScheduleV2"]
    assert "Name" not in schedule
    assert schedule.get("OmitName") is True


def test_a_day_without_a_sweep_is_told_within_the_day_after() -> None:
    """The alarm of a missing sweep looks every hour at the last 25 hours, in which nothing counts as zero."""
    alarm = resources()["RewardsMissingAlarm"]["Properties"]
    by_id = {one["Id"]: one for one in alarm["Metrics"]}
    assert by_id["filled"] == {"Id": "filled", "Expression": "FILL(complete, 0)", "ReturnData": True}
    complete = by_id["complete"]
    assert complete["ReturnData"] is False
    assert complete["MetricStat"]["Metric"]["MetricName"] == "RewardsRunsComplete"
    assert (complete["MetricStat"]["Stat"], complete["MetricStat"]["Period"]) == ("Sum", 3600)
    assert (alarm["ComparisonOperator"], alarm["Threshold"]) == ("LessThanThreshold", 1)
    assert alarm["EvaluationPeriods"] == alarm["DatapointsToAlarm"] == 25
    assert alarm["TreatMissingData"] == "breaching"
