"""The shape of the code base and of the template: facts that a reader relies on."""

import ast
import importlib
import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import pytest

from functions.daily_reward.events import SweepEvent
from functions.daily_reward.function import STOP_SECONDS
from infra.dynamodb import TEMPLATE, table_definitions
from infra.dynamodb import template as whole_template
from ledger_core.dynamodb.store import INDEX_BY_ACCOUNT
from ledger_core.errors import RequestState
from ledger_core.http.app import OPEN_PATHS
from ledger_core.http.docs_page import DOCS_PATHS
from ledger_core.http.telemetry import ALARMS, OUTCOMES
from ledger_core.observability.metric_lines import METRICS_NAMESPACE
from ledger_core.periods import Period
from ledger_core.posting import TIMEOUT_SECONDS
from ledger_core.settings import CONNECT_SECONDS_MAX, READ_SECONDS_MAX, SWEEP_READ_SECONDS_MAX
from tests.fakes.pages import page
from tests.support import ROOT

CORE = sorted(ROOT.glob("ledger_core/**/*.py"))
SOURCES = [*CORE, *sorted(ROOT.glob("functions/**/*.py"))]
FUNCTIONS = ["ApiFunction", "DailyRewardFunction"]
API_GATEWAY_SECONDS_MAX = 30

FLOORS = [
    ("functions", "infra", "ledger_core.cli"),
    ("ledger_core.wiring",),
    ("ledger_core.http",),
    ("ledger_core.rewards",),
    ("ledger_core.audit",),
    ("ledger_core.posting",),
    ("ledger_core.dynamodb",),
    ("ledger_core.observability",),
    ("ledger_core.client",),
    ("ledger_core",),
]
"""From the top down: a package imports only packages on lower floors, by their own names."""
HTTP = {"fastapi", "starlette", "mangum", "anyio"}
AWS = {"boto3", "botocore"}
CLIENT = {"httpx"}
BOTO3 = {"boto3", "s3transfer"}
"""The parts of boto3 that the ledger does not use: it uses only botocore's clients."""
MAY_IMPORT = {
    "functions": HTTP,
    "ledger_core.client": CLIENT,
    "ledger_core.dynamodb": AWS,
    "ledger_core.http": HTTP,
}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = frozenset(map(module_of, SOURCES))


def imports_of(path: Path) -> set[str]:
    """The modules that a file imports; what only the type checker reads counts too."""
    tree = ast.parse(path.read_text())
    found = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            # `from ledger_core.cli import output` imports the module ledger_core.cli.output.
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES
            found |= submodules or {node.module}
    return found


def floor_of(module: str) -> str:
    """The package of FLOORS that a module belongs to."""
    return max(
        (name for floor in FLOORS for name in floor if f"{module}.".startswith(f"{name}.")), key=len
    )


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_imports_go_strictly_down(path: Path) -> None:
    """A package imports lower packages by their public face, and only its own libraries."""
    module = module_of(path)
    depth = {name: depth for depth, names in enumerate(FLOORS) for name in names}
    for imported in imports_of(path):
        library = imported.partition(".")[0]
        if library in {"functions", "ledger_core"}:
            here, there = floor_of(module), floor_of(imported)
            assert here == there or depth[there] > depth[here], f"{module} imports {imported}"
            assert here == there or there == "ledger_core" or imported == there, (
                f"{module} reaches into {imported}"
            )
        elif library in HTTP | AWS | CLIENT:
            assert library in MAY_IMPORT.get(floor_of(module), set()), f"{module} imports {library}"


def test_imports_have_no_circle() -> None:
    """The modules have an order in which each imports only modules before it."""
    left = {module_of(path): imports_of(path) & MODULES - {module_of(path)} for path in SOURCES}
    while left:
        ready = {module for module, imported in left.items() if not imported & left.keys()}
        assert ready, f"a circle is among {sorted(left)}"
        left = {module: imported for module, imported in left.items() if module not in ready}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "unused"),
    [
        ("ledger_core.cli.commands", HTTP | BOTO3 | CLIENT),
        ("functions.daily_reward.app", HTTP | BOTO3),
        ("functions.example_app.app", BOTO3),
    ],
)
def test_functions_import_nothing_that_they_do_not_use(module: str, unused: set[str]) -> None:
    """The command line and the scheduled function import no HTTP; no program imports boto3."""
    program = f"import sys, ledger_core, {module}; print(*sys.modules)"
    variables = {**os.environ, "LEDGER_REWARDS_QUEUE_URL": "http://127.0.0.1:9/queue"}
    python = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=variables
    )
    modules = set(python.stdout.split())
    assert {"ledger_core.posting.processor", module} <= modules
    assert not unused & modules


@pytest.mark.parametrize("path", [path for path in SOURCES if path.stat().st_size], ids=module_of)
def test_modules_are_small_and_say_what_they_own(path: Path) -> None:
    """Each module begins with a docstring and sorts its public names."""
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text))
    names = importlib.import_module(module_of(path)).__all__
    assert names == sorted(
        names, key=lambda name: (not name.isupper(), not name[0].isupper(), name)
    )


def test_no_test_imports_another() -> None:
    """Parts that several tests use are in tests/fakes, or in a module without tests."""
    for path in ROOT.glob("tests/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
            assert not re.match(r"tests\.(.+\.)?test_", module), f"{path.name} imports {module}"


def test_test_files_have_unique_names() -> None:
    """A name in a report leads to one file."""
    names = [path.name for path in ROOT.glob("tests/**/test_*.py")]
    assert sorted(set(names)) == sorted(names)


def test_tests_say_what_they_test() -> None:
    """Read together, the docstrings of the tests are the specification."""
    for path in ROOT.glob("tests/**/test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                assert ast.get_docstring(node), f"{path.name}: {node.name}"


ROOT_NAMES = {
    *("functions", "ledger_core", "infra", "tests"),
    *("pyproject.toml", "template.yaml", "README.md"),
    *("Makefile", "uv.lock", "LICENSE", "CHANGELOG.md"),
    *(".ci", ".github", ".gitattributes", ".gitignore"),
    *(".editorconfig", ".pre-commit-config.yaml"),
}


def test_repository_root_holds_nothing_else() -> None:
    """The root holds the parts of the project, and the files that tools expect there."""
    git = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {name.partition("/")[0] for name in git.stdout.split()} <= ROOT_NAMES


def template() -> Any:
    return whole_template()["Resources"]


def parameters() -> Any:
    return whole_template()["Parameters"]


@pytest.mark.parametrize("table", ["EntriesTable", "AccountsTable"])
def test_tables_cannot_be_lost(table: str) -> None:
    """Both tables are on demand, restorable, and outlive the stack unless its creation fails."""
    resource = template()[table]
    assert resource["DeletionPolicy"] == "RetainExceptOnCreate"
    assert resource["UpdateReplacePolicy"] == "Retain"
    properties = resource["Properties"]
    assert properties["BillingMode"] == "PAY_PER_REQUEST"
    assert properties["DeletionProtectionEnabled"] is True
    assert properties["SSESpecification"] == {"SSEEnabled": True}
    recovery = properties["PointInTimeRecoverySpecification"]
    assert recovery == {"PointInTimeRecoveryEnabled": True}


def test_entries_are_streamed_and_have_one_index() -> None:
    """New entries go to a stream; the only index is the index that the store queries."""
    entries = template()["EntriesTable"]["Properties"]
    assert entries["StreamSpecification"] == {"StreamViewType": "NEW_IMAGE"}
    assert [index["IndexName"] for index in entries["GlobalSecondaryIndexes"]] == [INDEX_BY_ACCOUNT]


def statements(role: str) -> dict[str, Any]:
    policies = template()[role]["Properties"]["Policies"]
    return {
        statement["Sid"]: statement
        for policy in policies
        for statement in policy["PolicyDocument"]["Statement"]
    }


ENTRIES = "EntriesTable.Arn"
BALANCES = "AccountsTable.Arn"
IN_WRITES = {"ForAnyValue:StringEquals": {"dynamodb:EnclosingOperation": "TransactWriteItems"}}
IN_READS = {"ForAnyValue:StringEquals": {"dynamodb:EnclosingOperation": "TransactGetItems"}}
APPENDING: dict[str, Any] = {
    "AppendEntriesInTransactionsOnly": ("dynamodb:PutItem", ENTRIES, IN_WRITES),
    "MoveAccountsInTransactionsOnly": ("dynamodb:UpdateItem", BALANCES, IN_WRITES),
    "LookUpEntriesInTransactionsOnly": ("dynamodb:GetItem", ENTRIES, IN_READS),
    "SendTraces": (["xray:PutTraceSegments", "xray:PutTelemetryRecords"], "*", None),
}
LOGGING = ["logs:CreateLogStream", "logs:PutLogEvents"]
RIGHTS: dict[str, dict[str, Any]] = {
    "ApiFunctionRole": {
        **APPENDING,
        "ReadAccounts": ("dynamodb:GetItem", BALANCES, None),
        "ReadHistory": ("dynamodb:Query", "${EntriesTable.Arn}/index/by_account", None),
        "WriteItsOwnLog": (LOGGING, "ApiFunctionLogGroup.Arn", None),
    },
    "DailyRewardFunctionRole": {
        **APPENDING,
        "ReadAccounts": (["dynamodb:GetItem", "dynamodb:Scan"], BALANCES, None),
        "RecordRuns": (["dynamodb:UpdateItem", "dynamodb:Query"], "RunsTable.Arn", None),
        "TakeSegmentsAndPutTheRestBack": (
            [
                "sqs:ReceiveMessage",
                "sqs:DeleteMessage",
                "sqs:GetQueueAttributes",
                "sqs:SendMessage",
            ],
            "RewardsQueue.Arn",
            None,
        ),
        "LeaveDeadLetters": ("sqs:SendMessage", "RewardsEventsDeadLetterQueue.Arn", None),
        "WriteItsOwnLog": (LOGGING, "DailyRewardFunctionLogGroup.Arn", None),
    },
    "RewardsScheduleRole": {
        "StartTheFunction": (
            "lambda:InvokeFunction",
            "arn:${AWS::Partition}:lambda:${AWS::Region}:${AWS::AccountId}:function:"
            "${DailyRewardFunction}:live",
            None,
        ),
        "LeaveDeadLetters": ("sqs:SendMessage", "RewardsEventsDeadLetterQueue.Arn", None),
    },
}


@pytest.mark.parametrize("role", RIGHTS)
def test_roles_may_do_what_they_need_and_nothing_else(role: str) -> None:
    """A role puts and looks up entries only in transactions, and cannot update or delete them."""
    rights = {
        sid: (statement["Action"], statement["Resource"], statement.get("Condition"))
        for sid, statement in statements(role).items()
    }
    assert rights == RIGHTS[role]


def test_there_are_no_other_roles() -> None:
    """SAM adds no role, because each function and the schedule name theirs."""
    resources = template().items()
    roles = {name for name, resource in resources if resource["Type"] == "AWS::IAM::Role"}
    assert roles == set(RIGHTS)
    for name in FUNCTIONS:
        properties = template()[name]["Properties"]
        assert "Policies" not in properties
        assert properties["Role"] == f"{name}Role.Arn"
    assert schedule()["RoleArn"] == "RewardsScheduleRole.Arn"


def test_only_the_api_s_role_signs_receipts() -> None:
    """Only the API's role signs, by one algorithm; the key's administrators cannot sign."""
    key = template()["ReceiptKey"]
    assert (key["DeletionPolicy"], key["UpdateReplacePolicy"]) == ("RetainExceptOnCreate", "Retain")
    assert key["Properties"]["KeySpec"] == "ECC_NIST_P256"
    assert key["Properties"]["KeyUsage"] == "SIGN_VERIFY"
    administering, signing = key["Properties"]["KeyPolicy"]["Statement"]
    assert not [action for action in administering["Action"] if re.search(r"Sign|Grant|\*", action)]
    assert (signing["Principal"], signing["Action"]) == ({"AWS": "ApiFunctionRole.Arn"}, "kms:Sign")
    assert signing.get("Condition") == {"StringEquals": {"kms:SigningAlgorithm": "ECDSA_SHA_256"}}
    assert "AWS::IAM::Policy" not in {resource["Type"] for resource in template().values()}
    assert parameters()["ReceiptsState"]["Default"] == "ENABLED"


def test_no_user_may_change_an_entry() -> None:
    """The entries table denies each user the calls that change or delete an entry."""
    policy = template()["EntriesTable"]["Properties"]["ResourcePolicy"]["PolicyDocument"]
    changing, putting = policy["Statement"]
    for denied in (changing, putting):
        assert (denied["Effect"], denied["Principal"], denied["Resource"]) == ("Deny", "*", "*")
    actions = {
        "UpdateItem",
        "DeleteItem",
        "BatchWriteItem",
        "PartiQLUpdate",
        "PartiQLDelete",
        "UpdateTimeToLive",
    }
    assert set(changing["Action"]) == {f"dynamodb:{action}" for action in actions}
    assert set(putting["Action"]) == {"dynamodb:PutItem", "dynamodb:PartiQLInsert"}
    not_in_writes = {
        "ForAllValues:StringNotEquals": {"dynamodb:EnclosingOperation": "TransactWriteItems"}
    }
    assert (changing.get("Condition"), putting["Condition"]) == (None, not_in_writes)


def test_api_needs_a_token() -> None:
    """Each route except `/health` needs a token; issuer and audience have no default.

    On a server the OpenAPI document and its page are open too.
    """
    routes = [
        resource["Properties"]
        for resource in template().values()
        if resource["Type"].endswith("::Route")
    ]
    authorization = {route["RouteKey"]: route["AuthorizationType"] for route in routes}
    del authorization["OPTIONS /{proxy+}"]  # its authorization depends on CORS
    assert authorization == {
        "$default": "JWT",
        "GET /health": "NONE",
        "HEAD /health": "NONE",
        "GET /ledger/{owner_id}/verify": "JWT",
        "HEAD /ledger/{owner_id}/verify": "JWT",
        "GET /ledger/{owner_id}/receipt": "JWT",
        "HEAD /ledger/{owner_id}/receipt": "JWT",
    }
    assert {"/health", "/openapi.json", *DOCS_PATHS} == OPEN_PATHS
    assert all("Default" not in parameters()[name] for name in ("JwtIssuer", "JwtAudience"))
    function = template()["ApiFunction"]["Properties"]
    assert function["Environment"]["Variables"]["LEDGER_AUTH"] == "jwt"


@pytest.mark.parametrize(
    ("issuer", "allowed"),
    [
        ("https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_abc", True),
        ("http://127.0.0.1:8010", True),
        ("http://issuer.example", False),
        ("http://127.0.0.1.example/", False),
        ("", False),
        ("*", False),
    ],
)
def test_issuer_is_one_that_can_be_trusted(issuer: str, allowed: bool) -> None:
    """An issuer has TLS or is on this machine."""
    assert bool(re.fullmatch(parameters()["JwtIssuer"]["AllowedPattern"], issuer)) == allowed


CHOSEN = {"ReceiptsState": "ReceiptsAreOn", "Cors": "CorsIsOn"}
"""The parameters that a function uses only by a condition, with that condition."""


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_changed_parameter_is_published(name: str) -> None:
    """A version's description names all its parameters, so that a change makes a new version."""
    _, _, function = TEMPLATE.read_text().partition(f"  {name}:\n")
    function = function.split("      Events:\n")[0].split("\n  ApiFunctionRole")[0]
    used = {parameter for parameter in parameters() if re.search(rf"!Ref {parameter}\b", function)}
    used |= {name for name, condition in CHOSEN.items() if f"!If [{condition}" in function}
    description = template()[name]["Properties"]["VersionDescription"]
    # The reserved concurrency counts for all versions of the function.
    assert used - {"ReservedConcurrency"} == set(re.findall(r"\$\{(\w+)\}", description))


def test_function_s_time_is_longer_than_a_request_s() -> None:
    """A request ends before the function's time is up, and the function before API Gateway's."""
    timeout: int = template()["ApiFunction"]["Properties"]["Timeout"]
    request_seconds = TIMEOUT_SECONDS + CONNECT_SECONDS_MAX + READ_SECONDS_MAX
    assert request_seconds < timeout < API_GATEWAY_SECONDS_MAX


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_published_traced_and_log_json(name: str) -> None:
    """A function is a published version with traces and a log in JSON."""
    function = template()[name]["Properties"]
    assert function["AutoPublishAlias"] == "live"
    assert function["Tracing"] == "Active"
    assert function["Runtime"] == "python3.13"
    assert function["LoggingConfig"] == {"LogFormat": "JSON", "LogGroup": f"{name}LogGroup"}


def test_logs_are_not_kept_for_ever() -> None:
    """All log groups have the same retention, which is a parameter."""
    groups = [
        resource for resource in template().values() if resource["Type"] == "AWS::Logs::LogGroup"
    ]
    assert len(groups) == 3
    assert all(group["Properties"]["RetentionInDays"] == "LogRetentionInDays" for group in groups)


def test_api_calls_the_published_version() -> None:
    """The published version starts from a snapshot on arm64, unless the parameters differ."""
    integration = template()["HttpApiIntegration"]["Properties"]
    assert integration["IntegrationUri"].endswith(":function:${ApiFunction}:live")
    assert parameters()["SnapStart"]["Default"] == "PublishedVersions"
    assert parameters()["Architecture"]["Default"] == "arm64"


def schedule() -> Any:
    return template()["DailyRewardFunction"]["Properties"]["Events"]["Schedule"]["Properties"]


def test_schedule_sends_the_scheduled_time() -> None:
    """The day is that of the scheduled time in the schedule's zone, as in infra/events."""
    text = schedule()["Input"].replace("<aws.scheduler.scheduled-time>", "2026-11-22T04:00:00Z")
    for name, value in {"RewardsSegments": "4", "RewardsTimeZone": "UTC"}.items():
        text = text.replace(f"${{{name}}}", value)
    sample = json.loads((ROOT / "infra/events/schedule.json").read_text())
    assert {**json.loads(text), "force": True} == sample  # its day is long over
    assert SweepEvent.read(json.loads(text)).sought_period() == Period.parse("2026-11-22")
    assert schedule()["ScheduleExpressionTimezone"] == "RewardsTimeZone"


def test_no_clock_skips_the_hour_of_the_schedule() -> None:
    """The scheduler skips a time that a clock change leaves out; no zone leaves out this hour."""
    (hour,) = re.findall(r"cron\(0 (\d+) \* \* \? \*\)", parameters()["RewardsSchedule"]["Default"])
    first = datetime(2026, 1, 1, int(hour), tzinfo=UTC)
    for zone in map(ZoneInfo, sorted(available_timezones())):
        for day in range(730):
            local = (first + timedelta(days=day)).replace(tzinfo=zone)
            assert local.astimezone(UTC).astimezone(zone).hour == int(hour), (zone, local)


def test_failures_of_a_sweep_end_among_the_dead_letters() -> None:
    """Events of the scheduler, calls of the function and segments end there after some tries."""
    function = template()["DailyRewardFunction"]["Properties"]
    dead = "RewardsEventsDeadLetterQueue.Arn"
    assert schedule()["DeadLetterConfig"] == {"Arn": dead}
    assert schedule()["RetryPolicy"]["MaximumRetryAttempts"] == 10
    on_failure = function["EventInvokeConfig"]["DestinationConfig"]["OnFailure"]
    assert on_failure == {"Type": "SQS", "Destination": dead}
    queue = template()["RewardsQueue"]["Properties"]
    assert queue["RedrivePolicy"] == {
        "deadLetterTargetArn": "RewardsDeadLetterQueue.Arn",
        "maxReceiveCount": 5,
    }
    assert function["RecursiveLoop"] == "Allow"  # else Lambda stops a segment after 16 workers
    assert queue["VisibilityTimeout"] == 6 * function["Timeout"]
    segments = function["Events"]["Segments"]["Properties"]
    assert segments["FunctionResponseTypes"] == ["ReportBatchItemFailures"]


def test_a_worker_stops_before_its_time_is_up() -> None:
    """A worker keeps enough time for open calls and for the queue, and most of it for work."""
    timeout = template()["DailyRewardFunction"]["Properties"]["Timeout"]
    to_queue = 2 * (CONNECT_SECONDS_MAX + READ_SECONDS_MAX)
    assert CONNECT_SECONDS_MAX + SWEEP_READ_SECONDS_MAX + to_queue < STOP_SECONDS < timeout / 4


def test_access_log_holds_no_path() -> None:
    """Paths hold owners' ids, so the access log holds no path."""
    settings = template()["HttpApiStage"]["Properties"]["AccessLogSettings"]
    fields = json.loads(settings["Format"])
    assert fields["requestId"] == "$context.requestId"
    assert not [value for value in fields.values() if "path" in value.lower()]


def alarms() -> dict[str, Any]:
    return {
        name: resource["Properties"]
        for name, resource in template().items()
        if resource["Type"] == "AWS::CloudWatch::Alarm"
    }


def test_every_alarm_says_why_and_what_to_do() -> None:
    """Each alarm gives its reason, is on the dashboard, and has a section in the runbook."""
    manual = page("infra")
    dashboard = TEMPLATE.read_text().split("DashboardBody")[1]
    assert len(alarms()) == 15
    for name, alarm in alarms().items():
        assert len(alarm["AlarmDescription"]) > 80
        # This alarm exists only with the schedule, so it is not on the dashboard.
        missing = name == "RewardsMissingAlarm"
        assert alarm["TreatMissingData"] == ("breaching" if missing else "notBreaching")
        assert missing or f"${{{name}.Arn}}" in dashboard
        assert f"### {name}\n" in manual


def test_watched_metrics_are_written() -> None:
    """Alarms and dashboard read only metrics that the functions write."""
    sources = ("ledger_core/http/telemetry.py", "functions/daily_reward/function.py")
    source = "".join((ROOT / name).read_text() for name in sources)
    failures = {f"Failed{state}" for state in RequestState}
    written = {*OUTCOMES.values(), *failures, *ALARMS.values()}
    written |= set(re.findall(r'"([A-Z][a-zA-Z]+)"', source))
    summed = [
        metric["MetricStat"]["Metric"]
        for alarm in alarms().values()
        for metric in alarm.get("Metrics", [])
        if "MetricStat" in metric
    ]
    watched = {
        metric["MetricName"]
        for metric in [*alarms().values(), *summed]
        if metric.get("Namespace") == METRICS_NAMESPACE
    }
    assert "RewardsRunsComplete" in watched
    watched |= set(re.findall(r'\["\$\{Ns\}", "(\w+)"', TEMPLATE.read_text()))
    watched |= set(re.findall(r'MetricName=\\"(\w+)\\"', TEMPLATE.read_text()))
    assert "RewardsRunsBegun" in watched
    assert len(watched) > 12
    assert watched <= written


def test_local_tables_come_from_the_template() -> None:
    """Local tables have the keys and the index of the template."""
    definitions = table_definitions()
    assert set(definitions) == {"EntriesTable", "AccountsTable", "RunsTable"}
    for name, definition in definitions.items():
        properties = template()[name]["Properties"]
        for part in ("KeySchema", "AttributeDefinitions", "BillingMode"):
            assert definition[part] == properties[part]
