"""The resources of template.yaml, and the choices of a deployer."""

import json
import re
import tomllib
from typing import TYPE_CHECKING

import pytest

from functions.example_app.app import create_app
from ledger_core.http import create_handler
from ledger_core.http.app import ALLOWED_HEADERS, EXPOSED_HEADERS
from tests.fakes.cloudformation import CHOSEN, Rendered, source, transformed
from tests.support import ROOT, LambdaApi

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

TOPIC = "arn:aws:sns:eu-central-1:123456789012:alarms"
ORIGINS = "https://app.example,https://admin.example:8443"
CONCURRENCY_OF_AN_ACCOUNT = 1000
OUTLIVING = {
    *("EntriesTable", "AccountsTable", "ReceiptKey"),
    *("HttpApiLogGroup", "ApiFunctionLogGroup", "DailyRewardFunctionLogGroup"),
    *("RewardsDeadLetterQueue", "RewardsEventsDeadLetterQueue"),
}


def test_irreplaceable_resources_outlive_the_stack() -> None:
    """Tables, the key, logs and dead letters are kept, unless the first deployment fails."""
    resources = source()["Resources"]
    kept = {
        name
        for name, resource in resources.items()
        if resource.get("DeletionPolicy") == "RetainExceptOnCreate"
    }
    assert kept == OUTLIVING
    assert all(resources[name]["UpdateReplacePolicy"] == "Retain" for name in kept)


def test_published_versions_are_kept_for_a_rollback() -> None:
    """CloudFormation keeps a published version that is replaced."""
    resources = transformed()["Resources"].values()
    versions = [resource for resource in resources if resource["Type"] == "AWS::Lambda::Version"]
    assert len(versions) == 2
    for version in versions:
        assert (version["DeletionPolicy"], version["UpdateReplacePolicy"]) == ("Retain", "Retain")


def test_deployer_must_choose_the_issuer_and_the_rewards() -> None:
    """A parameter that trusts an issuer or grants daily credits has no default."""
    parameters = source()["Parameters"].items()
    chosen = {name for name, parameter in parameters if "Default" not in parameter}
    assert chosen == set(CHOSEN)


def test_prod_needs_a_topic_for_its_alarms() -> None:
    """A rule of the template refuses `Stage=prod` without a topic."""
    assert Rendered().broken_rules() == []
    assert Rendered(Stage="prod", AlarmTopicArn=TOPIC).broken_rules() == []
    (refusal,) = Rendered(Stage="prod").broken_rules()
    assert "AlarmTopicArn" in refusal
    alarms = Rendered(Stage="prod", AlarmTopicArn=TOPIC).of_type("AWS::CloudWatch::Alarm")
    for alarm in alarms.values():
        assert (alarm["AlarmActions"], alarm["OKActions"]) == ([TOPIC], [TOPIC])


def overrides(stage: str) -> dict[str, str]:
    """The parameters that infra/samconfig.toml gives to a stage."""
    config = tomllib.loads((ROOT / "infra/samconfig.toml").read_text())
    texts = config[stage]["deploy"]["parameters"]["parameter_overrides"]
    return dict(text.split("=", 1) for text in texts)


def refused(parameters: dict[str, str]) -> set[str]:
    """The parameters whose values CloudFormation refuses."""
    declared = source()["Parameters"]
    choices = {
        name: {str(choice) for choice in declared[name].get("AllowedValues", [value])}
        for name, value in parameters.items()
    }
    patterns = {name: declared[name].get("AllowedPattern", ".*") for name in parameters}
    return {
        name
        for name, value in parameters.items()
        if value not in choices[name] or not re.fullmatch(patterns[name], value)
    }


@pytest.mark.parametrize(
    ("stage", "open_questions"),
    [("dev", {"JwtIssuer"}), ("prod", {"JwtIssuer", "AlarmTopicArn", "RewardsState"})],
)
def test_samconfig_is_refused_until_the_deployer_completes_it(
    stage: str, open_questions: set[str]
) -> None:
    """A value that only the deployer knows is one that CloudFormation refuses."""
    given = overrides(stage)
    assert refused(given) == open_questions
    assert set(CHOSEN) <= given.keys()
    assert given["Stage"] == stage
    answered = {
        **given,
        "JwtIssuer": "https://i.example",
        "AlarmTopicArn": TOPIC,
        "RewardsState": "DISABLED",
    }
    assert refused(answered) == set()
    assert Rendered(**answered).broken_rules() == []


def test_cors_is_off_without_origins() -> None:
    """Without origins there is no CORS, and a preflight needs a token."""
    stack = Rendered()
    (api,) = stack.of_type("AWS::ApiGatewayV2::Api").values()
    assert "CorsConfiguration" not in api
    assert stack.properties["PreflightRoute"]["AuthorizationType"] == "JWT"
    variables = stack.properties["ApiFunction"]["Environment"]["Variables"]
    assert "LEDGER_ALLOWED_ORIGINS" not in variables


def test_pages_of_the_origins_may_send_and_read_the_headers() -> None:
    """With origins, a preflight needs no token, and the app's headers are allowed."""
    stack = Rendered(AllowedOrigins=ORIGINS)
    (api,) = stack.of_type("AWS::ApiGatewayV2::Api").values()
    cors = api["CorsConfiguration"]
    assert cors["AllowOrigins"] == ORIGINS.split(",")
    assert set(cors["AllowHeaders"]) == set(ALLOWED_HEADERS)
    assert set(cors["ExposeHeaders"]) == set(EXPOSED_HEADERS)
    assert "AllowCredentials" not in cors
    preflight = stack.properties["PreflightRoute"]
    assert (preflight["RouteKey"], preflight["AuthorizationType"]) == ("OPTIONS /{proxy+}", "NONE")
    assert "AuthorizerId" not in preflight
    variables = stack.properties["ApiFunction"]["Environment"]["Variables"]
    assert variables["LEDGER_ALLOWED_ORIGINS"] == "*"


def test_function_answers_the_preflights_of_api_gateway(
    client: "DynamoDBClient", monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the variables of the template, the function answers a preflight without a token."""
    function = Rendered(AllowedOrigins=ORIGINS).properties["ApiFunction"]
    variables = function["Environment"]["Variables"]
    for name in ("LEDGER_AUTH", "LEDGER_ALLOWED_ORIGINS", "LEDGER_BASE_PATH"):
        monkeypatch.setenv(name, variables[name])
    api = LambdaApi(create_handler(create_app(client)))
    api.claims = None
    headers = {
        "Origin": ORIGINS.split(",")[0],
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,idempotency-key",
    }
    assert api("OPTIONS", "/ledger/entry", headers=headers).status == 200
    assert api("OPTIONS", "/ledger/entry").status == 401


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("AllowedOrigins", "", True),
        ("AllowedOrigins", "https://app.example", True),
        ("AllowedOrigins", "http://localhost:3000", True),
        ("AllowedOrigins", "*", True),
        ("AllowedOrigins", "https://app.example/", False),
        ("AllowedOrigins", "app.example", False),
        ("BasePath", "", True),
        ("BasePath", "/credits/v1", True),
        ("BasePath", "credits", False),
        ("BasePath", "/credits/", False),
        ("BasePath", "/", False),
        ("AlarmTopicArn", TOPIC, True),
        ("AlarmTopicArn", TOPIC + ".fifo", True),
        ("AlarmTopicArn", "arn:aws:sqs:eu-central-1:123456789012:alarms", False),
        ("AlarmTopicArn", "ops@example.com", False),
    ],
)
def test_invalid_parameter_is_refused(name: str, value: str, allowed: bool) -> None:
    """CloudFormation refuses a value with which the parameter would do nothing."""
    assert bool(refused({name: value})) != allowed


def test_base_path_is_a_variable_of_the_function() -> None:
    """The path of a custom domain is a parameter."""
    function = Rendered(BasePath="/credits").properties["ApiFunction"]
    assert function["Environment"]["Variables"]["LEDGER_BASE_PATH"] == "/credits"


EXPENSIVE = ("verify", "receipt")


def test_expensive_routes_leave_half_of_the_concurrency() -> None:
    """Each expensive route has its own throttle; all of them take less than half of an account."""
    stack = Rendered()
    settings = stack.properties["HttpApiStage"]["RouteSettings"]
    resources = stack.of_type("AWS::ApiGatewayV2::Route").values()
    routes = {route["RouteKey"]: route for route in resources}
    expensive = {
        f"{method} /ledger/{{owner_id}}/{name}" for method in ("GET", "HEAD") for name in EXPENSIVE
    }
    assert {routes[key]["AuthorizationType"] for key in expensive} == {"JWT"}
    seconds = stack.properties["ApiFunction"]["Timeout"]
    at_once = [
        settings[key]["ThrottlingRateLimit"] * seconds + settings[key]["ThrottlingBurstLimit"]
        for key in sorted(expensive)
    ]
    assert sum(at_once) < CONCURRENCY_OF_AN_ACCOUNT / 2
    given = Rendered(
        VerifyRateLimit="1", VerifyBurstLimit="2", ReceiptRateLimit="3", ReceiptBurstLimit="4"
    )
    settings = given.properties["HttpApiStage"]["RouteSettings"]
    limits = [(settings[f"GET /ledger/{{owner_id}}/{name}"]) for name in EXPENSIVE]
    assert [limit["ThrottlingRateLimit"] for limit in limits] == [1, 3]
    assert [limit["ThrottlingBurstLimit"] for limit in limits] == [2, 4]


def test_routes_with_settings_are_made_before_the_stage() -> None:
    """API Gateway refuses a stage that names a missing route; an open route has a throttle."""
    stack = Rendered(AllowedOrigins=ORIGINS)
    order = stack.in_order()
    resources = stack.of_type("AWS::ApiGatewayV2::Route").items()
    routes = {route["RouteKey"]: name for name, route in resources}
    settings = stack.properties["HttpApiStage"]["RouteSettings"]
    assert all(order.index(routes[key]) < order.index("HttpApiStage") for key in settings)
    open_to_all = {
        key for key, name in routes.items() if stack.properties[name]["AuthorizationType"] == "NONE"
    }
    assert open_to_all == {"GET /health", "HEAD /health", "OPTIONS /{proxy+}"}
    assert all(settings[key]["ThrottlingRateLimit"] <= 50 for key in open_to_all)


def test_no_resource_depends_on_a_conditional_resource() -> None:
    """If a condition is false, CloudFormation leaves out each resource that depends on it."""
    resources = source()["Resources"]
    for resource in resources.values():
        for name in resource.get("DependsOn", []):
            assert "Condition" not in resources[name]


def test_only_the_function_puts_segments_on_the_queue() -> None:
    """The queue denies other senders, administrators too; SQS itself may put dead letters back."""
    stack = Rendered()
    (policy,) = stack.of_type("AWS::SQS::QueuePolicy").values()
    (statement,) = policy["PolicyDocument"]["Statement"]
    assert policy["Queues"] == [stack.value({"Ref": "RewardsQueue"})]
    assert statement["Resource"] == stack.value({"Fn::GetAtt": ["RewardsQueue", "Arn"]})
    assert (statement["Effect"], statement["Principal"]) == ("Deny", "*")
    assert statement["Action"] == "sqs:SendMessage"
    role = stack.value({"Fn::GetAtt": ["DailyRewardFunctionRole", "Arn"]})
    excepted, _emulators = statement["Condition"]["ArnNotLike"]["aws:PrincipalArn"]
    assert excepted == role
    assert statement["Condition"]["BoolIfExists"] == {"aws:ViaAWSService": "false"}


def test_access_log_names_the_client() -> None:
    """The access log has the client id, and no other claim of the token."""
    fields = json.loads(Rendered().properties["HttpApiStage"]["AccessLogSettings"]["Format"])
    assert fields["clientId"] == "$context.authorizer.claims.client_id"
    assert [value for value in fields.values() if "claims" in value] == [fields["clientId"]]


def test_day_without_a_sweep_raises_an_alarm() -> None:
    """Each hour, the alarm counts the complete sweeps of the last 25 hours; no data is zero."""
    alarm = source()["Resources"]["RewardsMissingAlarm"]["Properties"]
    by_id = {metric["Id"]: metric for metric in alarm["Metrics"]}
    filled = {"Id": "filled", "Expression": "FILL(complete, 0)", "ReturnData": True}
    assert by_id["filled"] == filled
    complete = by_id["complete"]
    assert complete["ReturnData"] is False
    statistic = complete["MetricStat"]
    assert statistic["Metric"]["MetricName"] == "RewardsRunsComplete"
    operation = {"Name": "operation", "Value": "DAILY_REWARD"}
    assert operation in statistic["Metric"]["Dimensions"]
    assert (statistic["Stat"], statistic["Period"]) == ("Sum", 3600)
    assert (alarm["ComparisonOperator"], alarm["Threshold"]) == ("LessThanThreshold", 1)
    assert alarm["EvaluationPeriods"] == alarm["DatapointsToAlarm"] == 25
    assert alarm["TreatMissingData"] == "breaching"
