"""What CloudFormation makes of template.yaml, and what a deployer has to choose."""

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


def test_what_cannot_be_made_again_outlives_the_stack() -> None:
    """Ledgers, their key, logs and dead letters are kept when the stack goes, but not of a first deploy that fails."""
    kept = {
        name
        for name, one in source()["Resources"].items()
        if one.get("DeletionPolicy") == "RetainExceptOnCreate"
    }
    assert kept == OUTLIVING
    assert all(source()["Resources"][name]["UpdateReplacePolicy"] == "Retain" for name in kept)


def test_versions_stay_for_going_back_to() -> None:
    """CloudFormation keeps a published version that another description, or another function, takes the place of."""
    versions = [
        one for one in transformed()["Resources"].values() if one["Type"] == "AWS::Lambda::Version"
    ]
    assert len(versions) == 2
    for version in versions:
        assert (version["DeletionPolicy"], version["UpdateReplacePolicy"]) == ("Retain", "Retain")


def test_the_deployer_chooses_whether_credits_are_given_away() -> None:
    """No parameter that trusts somebody, or that spends credits every day, has a default."""
    assert {name for name, one in source()["Parameters"].items() if "Default" not in one} == set(
        CHOSEN
    )


def test_prod_refuses_alarms_that_tell_nobody() -> None:
    """The rule is CloudFormation's: with Stage=prod there is a topic, or no stack."""
    assert Rendered().broken_rules() == []
    assert Rendered(Stage="prod", AlarmTopicArn=TOPIC).broken_rules() == []
    (refusal,) = Rendered(Stage="prod").broken_rules()
    assert "AlarmTopicArn" in refusal
    for alarm in (
        Rendered(Stage="prod", AlarmTopicArn=TOPIC).of_type("AWS::CloudWatch::Alarm").values()
    ):
        assert (alarm["AlarmActions"], alarm["OKActions"]) == ([TOPIC], [TOPIC])


def overrides(stage: str) -> dict[str, str]:
    """What infra/samconfig.toml gives a stage."""
    config = tomllib.loads((ROOT / "infra/samconfig.toml").read_text())
    given = [
        one.partition("=") for one in config[stage]["deploy"]["parameters"]["parameter_overrides"]
    ]
    return {name: value for name, _, value in given}


def refused(parameters: dict[str, str]) -> set[str]:
    """The parameters whose values CloudFormation does not take."""
    declared = source()["Parameters"]
    choices = {
        name: {str(one) for one in declared[name].get("AllowedValues", [value])}
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
def test_samconfig_is_refused_until_its_questions_are_answered(
    stage: str, open_questions: set[str]
) -> None:
    """Each stage names what it needs; what only the deployer knows stands there as a value that no stack takes."""
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


def test_cors_is_off_unless_somebody_names_origins() -> None:
    """Without origins there is no CORS, and a preflight needs a token as everything does."""
    stack = Rendered()
    (api,) = stack.of_type("AWS::ApiGatewayV2::Api").values()
    assert "CorsConfiguration" not in api
    assert stack.properties["PreflightRoute"]["AuthorizationType"] == "JWT"
    assert (
        "LEDGER_ALLOWED_ORIGINS" not in stack.properties["ApiFunction"]["Environment"]["Variables"]
    )


def test_named_origins_are_told_what_they_may_send_and_read() -> None:
    """Preflights need no token; the token, the key of a replay and the headers that a client acts on pass."""
    stack = Rendered(AllowedOrigins=ORIGINS)
    (api,) = stack.of_type("AWS::ApiGatewayV2::Api").values()
    cors = api["CorsConfiguration"]
    assert cors["AllowOrigins"] == ORIGINS.split(",")
    assert (set(cors["AllowHeaders"]), set(cors["ExposeHeaders"])) == (
        set(ALLOWED_HEADERS),
        set(EXPOSED_HEADERS),
    )
    assert "AllowCredentials" not in cors
    preflight = stack.properties["PreflightRoute"]
    assert (preflight["RouteKey"], preflight["AuthorizationType"]) == ("OPTIONS /{proxy+}", "NONE")
    assert "AuthorizerId" not in preflight
    assert (
        stack.properties["ApiFunction"]["Environment"]["Variables"]["LEDGER_ALLOWED_ORIGINS"] == "*"
    )


def test_the_function_answers_preflights_when_api_gateway_hands_them_on(
    client: "DynamoDBClient", monkeypatch: pytest.MonkeyPatch
) -> None:
    """The route of preflights ends at the function, which answers without a token what its variables make it answer."""
    variables = Rendered(AllowedOrigins=ORIGINS).properties["ApiFunction"]["Environment"][
        "Variables"
    ]
    for name in ("LEDGER_AUTH", "LEDGER_ALLOWED_ORIGINS", "LEDGER_BASE_PATH"):
        monkeypatch.setenv(name, variables[name])
    api = LambdaApi(create_handler(create_app(client)))
    api.claims = None
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,idempotency-key",
    }
    assert (
        api("OPTIONS", "/ledger/entry", headers={"Origin": ORIGINS.split(",")[0], **asked}).status
        == 200
    )
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
def test_parameters_take_what_they_are_for(name: str, value: str, allowed: bool) -> None:
    """A value that would be deployed and do nothing is refused."""
    assert bool(refused({name: value})) != allowed


def test_base_path_is_handed_to_the_function() -> None:
    """A custom domain's path is one setting."""
    function = Rendered(BasePath="/credits").properties["ApiFunction"]
    assert function["Environment"]["Variables"]["LEDGER_BASE_PATH"] == "/credits"


DEAR = ("verify", "receipt")


def test_dear_routes_cannot_use_up_the_account() -> None:
    """Each has a throttle of its own, by each method that asks for it; full, they leave half of an account."""
    stack = Rendered()
    settings = stack.properties["HttpApiStage"]["RouteSettings"]
    routes = {one["RouteKey"]: one for one in stack.of_type("AWS::ApiGatewayV2::Route").values()}
    dear = {f"{method} /ledger/{{owner_id}}/{name}" for method in ("GET", "HEAD") for name in DEAR}
    assert {routes[key]["AuthorizationType"] for key in dear} == {"JWT"}
    seconds = stack.properties["ApiFunction"]["Timeout"]
    at_once = [
        settings[key]["ThrottlingRateLimit"] * seconds + settings[key]["ThrottlingBurstLimit"]
        for key in sorted(dear)
    ]
    assert sum(at_once) < CONCURRENCY_OF_AN_ACCOUNT / 2
    given = Rendered(
        VerifyRateLimit="1", VerifyBurstLimit="2", ReceiptRateLimit="3", ReceiptBurstLimit="4"
    )
    settings = given.properties["HttpApiStage"]["RouteSettings"]
    limits = [(settings[f"GET /ledger/{{owner_id}}/{name}"]) for name in DEAR]
    assert [(one["ThrottlingRateLimit"], one["ThrottlingBurstLimit"]) for one in limits] == [
        (1, 2),
        (3, 4),
    ]


def test_routes_with_settings_are_there_before_the_stage() -> None:
    """API Gateway refuses a stage that names a missing route; a route without a token has a throttle."""
    stack = Rendered(AllowedOrigins=ORIGINS)
    order = stack.in_order()
    routes = {
        one["RouteKey"]: name for name, one in stack.of_type("AWS::ApiGatewayV2::Route").items()
    }
    settings = stack.properties["HttpApiStage"]["RouteSettings"]
    assert all(order.index(routes[key]) < order.index("HttpApiStage") for key in settings)
    open_to_all = {
        key for key, name in routes.items() if stack.properties[name]["AuthorizationType"] == "NONE"
    }
    assert open_to_all == {"GET /health", "HEAD /health", "OPTIONS /{proxy+}"}
    assert all(settings[key]["ThrottlingRateLimit"] <= 50 for key in open_to_all)


def test_nothing_that_has_to_be_there_depends_on_what_may_not_be() -> None:
    """CloudFormation leaves out, with a resource whose condition is false, whatever depends on it."""
    resources = source()["Resources"]
    for resource in resources.values():
        for name in resource.get("DependsOn", []):
            assert "Condition" not in resources[name]


def test_only_the_function_puts_segments_on_the_queue() -> None:
    """The queue denies everybody else to send, administrators included; SQS itself may put dead letters back."""
    stack = Rendered()
    (policy,) = stack.of_type("AWS::SQS::QueuePolicy").values()
    (statement,) = policy["PolicyDocument"]["Statement"]
    assert policy["Queues"] == [stack.value({"Ref": "RewardsQueue"})]
    assert statement["Resource"] == stack.value({"Fn::GetAtt": ["RewardsQueue", "Arn"]})
    assert (statement["Effect"], statement["Principal"], statement["Action"]) == (
        "Deny",
        "*",
        "sqs:SendMessage",
    )
    role = stack.value({"Fn::GetAtt": ["DailyRewardFunctionRole", "Arn"]})
    excepted, _emulators = statement["Condition"]["ArnNotLike"]["aws:PrincipalArn"]
    assert excepted == role
    assert statement["Condition"]["BoolIfExists"] == {"aws:ViaAWSService": "false"}


def test_access_log_says_which_client_called() -> None:
    """Who called is there by the id of the client; nothing of the token is beside it."""
    fields = json.loads(Rendered().properties["HttpApiStage"]["AccessLogSettings"]["Format"])
    assert fields["clientId"] == "$context.authorizer.claims.client_id"
    assert [value for value in fields.values() if "claims" in value] == [fields["clientId"]]


def test_a_day_without_a_sweep_is_told_within_the_day_after() -> None:
    """The alarm of a missing sweep looks every hour at the last 25 hours, in which nothing counts as zero."""
    alarm = source()["Resources"]["RewardsMissingAlarm"]["Properties"]
    by_id = {one["Id"]: one for one in alarm["Metrics"]}
    assert by_id["filled"] == {
        "Id": "filled",
        "Expression": "FILL(complete, 0)",
        "ReturnData": True,
    }
    complete = by_id["complete"]
    assert complete["ReturnData"] is False
    assert complete["MetricStat"]["Metric"]["MetricName"] == "RewardsRunsComplete"
    assert {"Name": "operation", "Value": "DAILY_REWARD"} in complete["MetricStat"]["Metric"][
        "Dimensions"
    ]
    assert (complete["MetricStat"]["Stat"], complete["MetricStat"]["Period"]) == ("Sum", 3600)
    assert (alarm["ComparisonOperator"], alarm["Threshold"]) == ("LessThanThreshold", 1)
    assert alarm["EvaluationPeriods"] == alarm["DatapointsToAlarm"] == 25
    assert alarm["TreatMissingData"] == "breaching"
