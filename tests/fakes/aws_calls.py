"""The calls of AWS by which CloudFormation makes the resources of a rendered template."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from tests.fakes.cloudformation import Rendered

Call = tuple[str, str, dict[str, Any]]
"""A service, one of its operations, and the arguments."""

RENAMED = {
    "AWS::ApiGatewayV2::Api": ("apigatewayv2", "CreateApi"),
    "AWS::ApiGatewayV2::Authorizer": ("apigatewayv2", "CreateAuthorizer"),
    "AWS::ApiGatewayV2::Integration": ("apigatewayv2", "CreateIntegration"),
    "AWS::ApiGatewayV2::Route": ("apigatewayv2", "CreateRoute"),
    "AWS::ApiGatewayV2::Stage": ("apigatewayv2", "CreateStage"),
    "AWS::CloudWatch::Alarm": ("cloudwatch", "PutMetricAlarm"),
    "AWS::CloudWatch::Dashboard": ("cloudwatch", "PutDashboard"),
    "AWS::Lambda::Alias": ("lambda", "CreateAlias"),
    "AWS::Lambda::EventInvokeConfig": ("lambda", "PutFunctionEventInvokeConfig"),
    "AWS::Lambda::EventSourceMapping": ("lambda", "CreateEventSourceMapping"),
    "AWS::Lambda::Version": ("lambda", "PublishVersion"),
    "AWS::Scheduler::Schedule": ("scheduler", "CreateSchedule"),
}
"""Resources whose properties are the arguments of one call."""
GENERATED_NAMES = {
    "AWS::CloudWatch::Alarm": "AlarmName",
    "AWS::DynamoDB::Table": "TableName",
    "AWS::IAM::Role": "RoleName",
    "AWS::Lambda::Function": "FunctionName",
    "AWS::SQS::Queue": "QueueName",
    "AWS::Scheduler::Schedule": "Name",
}
"""The property that holds the name that CloudFormation generates, by type of resource."""


def calls(rendered: Rendered) -> Iterator[Call]:
    """All calls, in an order in which they can be made."""
    for name in rendered.in_order():
        kind = rendered.resources[name]["Type"]
        properties = dict(rendered.properties[name])
        if kind in GENERATED_NAMES:
            properties[GENERATED_NAMES[kind]] = rendered.generated(name)
        if kind in RENAMED:
            yield (*RENAMED[kind], properties)
        else:
            yield from OTHERS[kind](properties)


def _function(properties: dict[str, Any]) -> Iterator[Call]:
    recursive = properties.pop("RecursiveLoop", "Terminate")
    tags = {tag["Key"]: tag["Value"] for tag in properties.pop("Tags")}
    name = {"FunctionName": properties["FunctionName"]}
    reserved = properties.pop("ReservedConcurrentExecutions", None)
    yield "lambda", "CreateFunction", {**properties, "Tags": tags}
    if reserved is not None:
        yield "lambda", "PutFunctionConcurrency", {**name, "ReservedConcurrentExecutions": reserved}
    yield "lambda", "PutFunctionRecursionConfig", {**name, "RecursiveLoop": recursive}


def _permission(properties: dict[str, Any]) -> Iterator[Call]:
    yield "lambda", "AddPermission", {**properties, "StatementId": "permission"}


def _group(properties: dict[str, Any]) -> Iterator[Call]:
    name = {"logGroupName": properties["LogGroupName"]}
    yield "logs", "CreateLogGroup", name
    yield "logs", "PutRetentionPolicy", {**name, "retentionInDays": properties["RetentionInDays"]}


def _key(properties: dict[str, Any]) -> Iterator[Call]:
    del properties["PendingWindowInDays"]  # an argument of the call that deletes the key
    policy = json.dumps(properties.pop("KeyPolicy"))
    yield "kms", "CreateKey", {**properties, "Policy": policy}


def _queue(properties: dict[str, Any]) -> Iterator[Call]:
    name = properties.pop("QueueName")
    texts = {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in properties.items()
    }
    yield "sqs", "CreateQueue", {"QueueName": name, "Attributes": texts}


def _queue_policy(properties: dict[str, Any]) -> Iterator[Call]:
    policy = {"Policy": json.dumps(properties["PolicyDocument"])}
    for queue in properties["Queues"]:
        yield "sqs", "SetQueueAttributes", {"QueueUrl": queue, "Attributes": policy}


def _role(properties: dict[str, Any]) -> Iterator[Call]:
    policies = properties.pop("Policies")
    trust = json.dumps(properties.pop("AssumeRolePolicyDocument"))
    yield "iam", "CreateRole", {**properties, "AssumeRolePolicyDocument": trust}
    name = {"RoleName": properties["RoleName"]}
    for policy in policies:
        text = json.dumps(policy["PolicyDocument"])
        yield "iam", "PutRolePolicy", {**name, **policy, "PolicyDocument": text}


def _table(properties: dict[str, Any]) -> Iterator[Call]:
    name = {"TableName": properties["TableName"]}
    operations = {
        "PointInTimeRecoverySpecification": "UpdateContinuousBackups",
        "TimeToLiveSpecification": "UpdateTimeToLive",
    }
    afterwards = {part: properties.pop(part) for part in operations if part in properties}
    properties["SSESpecification"] = {"Enabled": properties["SSESpecification"]["SSEEnabled"]}
    if "StreamSpecification" in properties:
        properties["StreamSpecification"] = {
            "StreamEnabled": True,
            **properties["StreamSpecification"],
        }
    if "ResourcePolicy" in properties:
        properties["ResourcePolicy"] = json.dumps(properties["ResourcePolicy"]["PolicyDocument"])
    yield "dynamodb", "CreateTable", properties
    for part, value in afterwards.items():
        yield "dynamodb", operations[part], {**name, part: value}


OTHERS: dict[str, Callable[[dict[str, Any]], Iterator[Call]]] = {
    "AWS::DynamoDB::Table": _table,
    "AWS::IAM::Role": _role,
    "AWS::KMS::Key": _key,
    "AWS::Lambda::Function": _function,
    "AWS::Lambda::Permission": _permission,
    "AWS::Logs::LogGroup": _group,
    "AWS::SQS::Queue": _queue,
    "AWS::SQS::QueuePolicy": _queue_policy,
}
