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
"""From the top down: what is on one floor imports what is on the floors below it, by its name only."""
HTTP = {"fastapi", "starlette", "mangum", "anyio"}
AWS = {"boto3", "botocore"}
CLIENT = {"httpx"}
BOTO3 = {"boto3", "s3transfer"}
"""What boto3 has beside botocore's clients, which is all that the ledger uses."""
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
    """No package knows the ones above it, reaches past a package's face, or imports a library that is not its own."""
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
    """Modules can be put in an order in which each imports only those before it."""
    left = {module_of(path): imports_of(path) & MODULES - {module_of(path)} for path in SOURCES}
    while left:
        ready = {module for module, imported in left.items() if not imported & left.keys()}
        assert ready, f"a circle is among {sorted(left)}"
        left = {module: imported for module, imported in left.items() if module not in ready}


@pytest.mark.parametrize(
    ("module", "unused"),
    [
        ("ledger_core.cli.commands", HTTP | BOTO3 | CLIENT),
        ("functions.daily_reward.app", HTTP | BOTO3),
        ("functions.example_app.app", BOTO3),
    ],
)
def test_functions_import_nothing_that_they_do_not_use(module: str, unused: set[str]) -> None:
    """The command line and the scheduled function do not pay for HTTP, and nobody for boto3's resources."""
    program = f"import sys, ledger_core, {module}; print(*sys.modules)"
    variables = {**os.environ, "LEDGER_REWARDS_QUEUE_URL": "http://127.0.0.1:9/queue"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=variables
    )
    modules = set(done.stdout.split())
    assert {"ledger_core.posting.processor", module} <= modules
    assert not unused & modules


@pytest.mark.parametrize("path", [path for path in SOURCES if path.stat().st_size], ids=module_of)
def test_modules_are_small_and_say_what_they_own(path: Path) -> None:
    """Every module opens with what it is for, and sorts its public names."""
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text))
    names = importlib.import_module(module_of(path)).__all__
    assert names == sorted(
        names, key=lambda name: (not name.isupper(), not name[0].isupper(), name)
    )


def test_no_test_imports_another() -> None:
    """What several tests need is in tests/fakes, or in a module that has no tests."""
    for path in ROOT.glob("tests/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
            assert not re.match(r"tests\.(.+\.)?test_", module), f"{path.name} imports {module}"


def test_test_files_have_names_of_their_own() -> None:
    """A name in a report leads to one file."""
    names = [path.name for path in ROOT.glob("tests/**/test_*.py")]
    assert sorted(set(names)) == sorted(names)


def test_tests_say_what_they_test() -> None:
    """Read together, the docstrings of the tests are the specification."""
    for path in ROOT.glob("tests/**/test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                assert ast.get_docstring(node), f"{path.name}: {node.name}"


def test_repository_root_holds_nothing_else() -> None:
    """The root is a table of contents: what the project is made of, and what tools need there."""
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert {name.partition("/")[0] for name in tracked} <= {
        *(
            "pyproject.toml",
            "functions",
            "ledger_core",
            "infra",
            "template.yaml",
            "tests",
            "README.md",
        ),
        *("Makefile", "uv.lock", "LICENSE", "CHANGELOG.md"),
        *(".ci", ".github", ".gitattributes", ".gitignore"),
        *(".editorconfig", ".pre-commit-config.yaml"),
    }


def template() -> Any:
    return whole_template()["Resources"]


def parameters() -> Any:
    return whole_template()["Parameters"]


@pytest.mark.parametrize("table", ["EntriesTable", "AccountsTable"])
def test_tables_cannot_be_lost(table: str) -> None:
    """Both tables are on demand, restorable to any point, and survive the stack, but not a first deploy that fails."""
    resource = template()[table]
    assert (resource["DeletionPolicy"], resource["UpdateReplacePolicy"]) == (
        "RetainExceptOnCreate",
        "Retain",
    )
    assert resource["Properties"]["BillingMode"] == "PAY_PER_REQUEST"
    assert resource["Properties"]["DeletionProtectionEnabled"] is True
    assert resource["Properties"]["SSESpecification"] == {"SSEEnabled": True}
    assert resource["Properties"]["PointInTimeRecoverySpecification"] == {
        "PointInTimeRecoveryEnabled": True
    }


def test_entries_are_streamed_and_have_one_index() -> None:
    """New entries go to a stream; the one index is the one the store asks."""
    entries = template()["EntriesTable"]["Properties"]
    assert entries["StreamSpecification"] == {"StreamViewType": "NEW_IMAGE"}
    assert [index["IndexName"] for index in entries["GlobalSecondaryIndexes"]] == [INDEX_BY_ACCOUNT]


def statements(role: str) -> dict[str, Any]:
    policies = template()[role]["Properties"]["Policies"]
    return {one["Sid"]: one for policy in policies for one in policy["PolicyDocument"]["Statement"]}


ENTRIES, BALANCES = "EntriesTable.Arn", "AccountsTable.Arn"
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
            "arn:${AWS::Partition}:lambda:${AWS::Region}:${AWS::AccountId}:function:${DailyRewardFunction}:live",
            None,
        ),
        "LeaveDeadLetters": ("sqs:SendMessage", "RewardsEventsDeadLetterQueue.Arn", None),
    },
}


@pytest.mark.parametrize("role", RIGHTS)
def test_roles_may_do_what_they_need_and_nothing_else(role: str) -> None:
    """Entries are put and looked up in transactions only; nothing updates or deletes one; no action has a wildcard."""
    rights = {
        sid: (one["Action"], one["Resource"], one.get("Condition"))
        for sid, one in statements(role).items()
    }
    assert rights == RIGHTS[role]


def test_there_are_no_other_roles() -> None:
    """SAM adds none either: each function and the schedule name theirs."""
    assert {
        name for name, resource in template().items() if resource["Type"] == "AWS::IAM::Role"
    } == set(RIGHTS)
    for name in FUNCTIONS:
        properties = template()[name]["Properties"]
        assert "Policies" not in properties
        assert properties["Role"] == f"{name}Role.Arn"
    assert schedule()["RoleArn"] == "RewardsScheduleRole.Arn"


def test_only_the_api_s_role_signs_receipts() -> None:
    """Only the role signs, with one algorithm; who administers the key, which outlives the stack, cannot."""
    key = template()["ReceiptKey"]
    assert (key["DeletionPolicy"], key["UpdateReplacePolicy"]) == ("RetainExceptOnCreate", "Retain")
    assert (key["Properties"]["KeySpec"], key["Properties"]["KeyUsage"]) == (
        "ECC_NIST_P256",
        "SIGN_VERIFY",
    )
    administering, signing = key["Properties"]["KeyPolicy"]["Statement"]
    assert not [action for action in administering["Action"] if re.search(r"Sign|Grant|\*", action)]
    assert (signing["Principal"], signing["Action"]) == ({"AWS": "ApiFunctionRole.Arn"}, "kms:Sign")
    assert signing.get("Condition") == {"StringEquals": {"kms:SigningAlgorithm": "ECDSA_SHA_256"}}
    assert "AWS::IAM::Policy" not in {resource["Type"] for resource in template().values()}
    assert parameters()["ReceiptsState"]["Default"] == "ENABLED"


def test_nobody_else_may_change_an_entry_either() -> None:
    """The entries table denies everybody what would change or drop an entry."""
    changing, putting = template()["EntriesTable"]["Properties"]["ResourcePolicy"][
        "PolicyDocument"
    ]["Statement"]
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
    """Every route but the one for health is behind the authorizer, whose issuer and audience have no default; a server
    has the document, and a page of it, open too."""
    routes = [
        resource["Properties"]
        for resource in template().values()
        if resource["Type"].endswith("::Route")
    ]
    told = {route["RouteKey"]: route["AuthorizationType"] for route in routes}
    del told["OPTIONS /{proxy+}"]  # what is asked of it depends on whether CORS is on
    assert told == {
        "$default": "JWT",
        "GET /health": "NONE",
        "HEAD /health": "NONE",
        **{
            f"{method} /ledger/{{owner_id}}/{name}": "JWT"
            for method in ("GET", "HEAD")
            for name in ("verify", "receipt")
        },
    }
    assert {"/health", "/openapi.json", *DOCS_PATHS} == OPEN_PATHS
    assert all("Default" not in parameters()[name] for name in ("JwtIssuer", "JwtAudience"))
    assert (
        template()["ApiFunction"]["Properties"]["Environment"]["Variables"]["LEDGER_AUTH"] == "jwt"
    )


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
    """An issuer without TLS is on this machine or nowhere."""
    assert bool(re.fullmatch(parameters()["JwtIssuer"]["AllowedPattern"], issuer)) == allowed


CHOSEN = {"ReceiptsState": "ReceiptsAreOn", "Cors": "CorsIsOn"}
"""What is described of a parameter that a function knows by a condition only."""


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_changed_parameter_is_published(name: str) -> None:
    """Every parameter that a version is made of is in its description, a change of which makes another version."""
    function = (
        TEMPLATE.read_text()
        .split(f"  {name}:\n")[1]
        .split("      Events:\n")[0]
        .split("\n  ApiFunctionRole")[0]
    )
    used = {parameter for parameter in parameters() if re.search(rf"!Ref {parameter}\b", function)}
    used |= {name for name, condition in CHOSEN.items() if f"!If [{condition}" in function}
    described = set(
        re.findall(r"\$\{(\w+)\}", template()[name]["Properties"]["VersionDescription"])
    )
    assert (
        used - {"ReservedConcurrency"} == described
    )  # which is the function's, for all of its versions


def test_function_s_time_is_longer_than_a_request_s() -> None:
    """A request has answered before the function's time is up, and that before API Gateway's."""
    timeout: int = template()["ApiFunction"]["Properties"]["Timeout"]
    assert (
        TIMEOUT_SECONDS + CONNECT_SECONDS_MAX + READ_SECONDS_MAX < timeout < API_GATEWAY_SECONDS_MAX
    )


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_published_traced_and_log_json(name: str) -> None:
    """What is called is a published version; it is traced; its log is JSON."""
    function = template()[name]["Properties"]
    assert (function["AutoPublishAlias"], function["Tracing"], function["Runtime"]) == (
        "live",
        "Active",
        "python3.13",
    )
    assert function["LoggingConfig"] == {"LogFormat": "JSON", "LogGroup": f"{name}LogGroup"}


def test_logs_are_not_kept_for_ever() -> None:
    """How long is one parameter for all of them."""
    groups = [
        resource for resource in template().values() if resource["Type"] == "AWS::Logs::LogGroup"
    ]
    assert len(groups) == 3
    assert all(group["Properties"]["RetentionInDays"] == "LogRetentionInDays" for group in groups)


def test_api_calls_the_published_version() -> None:
    """Which starts from a snapshot, on the cheaper architecture, unless somebody chooses otherwise."""
    assert template()["HttpApiIntegration"]["Properties"]["IntegrationUri"].endswith(
        ":function:${ApiFunction}:live"
    )
    assert (parameters()["SnapStart"]["Default"], parameters()["Architecture"]["Default"]) == (
        "PublishedVersions",
        "arm64",
    )


def schedule() -> Any:
    return template()["DailyRewardFunction"]["Properties"]["Events"]["Schedule"]["Properties"]


def test_schedule_tells_when_it_was_due() -> None:
    """The day is the scheduled time's, by the schedule's own calendar; the event in infra/events is such an input."""
    text = schedule()["Input"].replace("<aws.scheduler.scheduled-time>", "2026-11-22T04:00:00Z")
    for name, value in {"RewardsSegments": "4", "RewardsTimeZone": "UTC"}.items():
        text = text.replace(f"${{{name}}}", value)
    sample = json.loads(
        (ROOT / "infra/events/schedule.json").read_text()
    )  # of a day that is long over
    assert {**json.loads(text), "force": True} == sample
    assert SweepEvent.read(json.loads(text)).sought_period() == Period.parse("2026-11-22")
    assert schedule()["ScheduleExpressionTimezone"] == "RewardsTimeZone"


def test_no_clock_skips_the_hour_of_the_schedule() -> None:
    """The scheduler skips a time that a change of clocks leaves out; at four there is none, in any zone."""
    (hour,) = re.findall(r"cron\(0 (\d+) \* \* \? \*\)", parameters()["RewardsSchedule"]["Default"])
    first = datetime(2026, 1, 1, int(hour), tzinfo=UTC)
    for zone in map(ZoneInfo, sorted(available_timezones())):
        for day in range(730):
            local = (first + timedelta(days=day)).replace(tzinfo=zone)
            assert local.astimezone(UTC).astimezone(zone).hour == int(hour), (zone, local)


def test_failures_of_a_sweep_end_among_the_dead_letters() -> None:
    """Of the scheduler, of the function that it starts, and of a segment: each after several tries."""
    function = template()["DailyRewardFunction"]["Properties"]
    dead = "RewardsEventsDeadLetterQueue.Arn"
    assert (schedule()["DeadLetterConfig"], schedule()["RetryPolicy"]["MaximumRetryAttempts"]) == (
        {"Arn": dead},
        10,
    )
    assert function["EventInvokeConfig"]["DestinationConfig"]["OnFailure"] == {
        "Type": "SQS",
        "Destination": dead,
    }
    queue = template()["RewardsQueue"]["Properties"]
    assert queue["RedrivePolicy"] == {
        "deadLetterTargetArn": "RewardsDeadLetterQueue.Arn",
        "maxReceiveCount": 5,
    }
    assert function["RecursiveLoop"] == "Allow"  # Lambda would end a segment after sixteen workers
    assert queue["VisibilityTimeout"] == 6 * function["Timeout"]
    segments = function["Events"]["Segments"]["Properties"]
    assert segments["FunctionResponseTypes"] == ["ReportBatchItemFailures"]


def test_a_worker_stops_before_its_time_is_up() -> None:
    """What it keeps is enough for calls that are under way and for putting the rest back; most of it is for work."""
    timeout = template()["DailyRewardFunction"]["Properties"]["Timeout"]
    to_queue = 2 * (CONNECT_SECONDS_MAX + READ_SECONDS_MAX)
    assert CONNECT_SECONDS_MAX + SWEEP_READ_SECONDS_MAX + to_queue < STOP_SECONDS < timeout / 4


def test_access_log_holds_no_path() -> None:
    """Owners' ids are in paths, and stay out of the log."""
    settings = template()["HttpApiStage"]["Properties"]["AccessLogSettings"]
    fields = json.loads(settings["Format"])
    assert fields["requestId"] == "$context.requestId"
    assert not [value for value in fields.values() if "path" in value.lower()]


def alarms() -> dict[str, Any]:
    resources = template().items()
    return {
        name: one["Properties"]
        for name, one in resources
        if one["Type"] == "AWS::CloudWatch::Alarm"
    }


def test_every_alarm_says_why_and_what_to_do() -> None:
    """Each alarm gives its reason, is on the dashboard, and has a section for operators that says what to do."""
    manual = page("infra")
    dashboard = TEMPLATE.read_text().split("DashboardBody")[1]
    assert len(alarms()) == 15
    for name, alarm in alarms().items():
        assert len(alarm["AlarmDescription"]) > 80
        missing = (
            name == "RewardsMissingAlarm"
        )  # there only when the schedule is on, and so not on the dashboard
        assert alarm["TreatMissingData"] == ("breaching" if missing else "notBreaching")
        assert missing or f"${{{name}.Arn}}" in dashboard
        assert f"### {name}\n" in manual


def test_metrics_that_are_watched_are_metrics_that_are_told() -> None:
    """Alarms and dashboard ask for no metric of ours that nobody writes."""
    sources = ("ledger_core/http/telemetry.py", "functions/daily_reward/function.py")
    source = "".join((ROOT / name).read_text() for name in sources)
    told = {
        *OUTCOMES.values(),
        *(f"Failed{state}" for state in RequestState),
        *ALARMS.values(),
    }
    told |= set(re.findall(r'"([A-Z][a-zA-Z]+)"', source))
    summed = [
        one["MetricStat"]["Metric"]
        for alarm in alarms().values()
        for one in alarm.get("Metrics", [])
        if "MetricStat" in one
    ]
    watched = {
        one["MetricName"]
        for one in [*alarms().values(), *summed]
        if one.get("Namespace") == METRICS_NAMESPACE
    }
    assert "RewardsRunsComplete" in watched
    watched |= set(re.findall(r'\["\$\{Ns\}", "(\w+)"', TEMPLATE.read_text()))
    watched |= set(re.findall(r'MetricName=\\"(\w+)\\"', TEMPLATE.read_text()))
    assert "RewardsRunsBegun" in watched
    assert len(watched) > 12
    assert watched <= told


def test_local_tables_come_from_the_template() -> None:
    """What runs locally has the keys and the index that are deployed."""
    definitions = table_definitions()
    assert set(definitions) == {"EntriesTable", "AccountsTable", "RunsTable"}
    for name, definition in definitions.items():
        properties = template()[name]["Properties"]
        for part in ("KeySchema", "AttributeDefinitions", "BillingMode"):
            assert definition[part] == properties[part]
