"""The shape of the code base and of the template: facts that a reader relies on."""

import ast
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infra.dynamodb import TEMPLATE, table_definitions
from infra.dynamodb import template as whole_template
from ledger_core.api import OPEN_PATHS
from ledger_core.errors import RequestState
from ledger_core.processor import TIMEOUT_SECONDS
from ledger_core.settings import CONNECT_SECONDS_MAX, READ_SECONDS_MAX
from ledger_core.store import INDEX_BY_OWNER
from ledger_core.telemetry import ALARMING, METRICS_NAMESPACE, OUTCOMES
from tests.support import ROOT

CORE = sorted(ROOT.glob("ledger_core/*.py"))
SOURCES = [*CORE, *sorted(ROOT.glob("functions/**/*.py"))]
LINES_MAX = 220
ROLE = "ApiFunctionRole"
API_GATEWAY_SECONDS_MAX = 30

# From the top down; a module imports only from lines below its own.
LAYERS = [
    {"functions.example_app.app", "functions.cli"},
    {"functions.example_app.router"},
    {"functions.example_app.operations", "functions.wiring"},
    {"ledger_core"},
    {"ledger_core.router"},
    {"ledger_core.api", "ledger_core.shapes"},
    {"ledger_core.telemetry"},
    {"ledger_core.problems"},
    {"ledger_core.access", "ledger_core.audit", "ledger_core.processor"},
    {"ledger_core.patience", "ledger_core.store"},
    {"ledger_core.items"},
    {"ledger_core.models"},
    {"ledger_core.operations", "ledger_core.settings"},
    {"ledger_core.errors", "ledger_core.usage"},
]
HTTP = {"fastapi", "starlette", "mangum", "anyio", "aws_lambda_powertools"}
AWS = {"boto3", "botocore"}
MAY_IMPORT = {
    "ledger_core.router": HTTP,
    "ledger_core.api": HTTP,
    "ledger_core.problems": HTTP,
    "ledger_core.telemetry": HTTP,
    "ledger_core.store": AWS,
    "functions.wiring": AWS,
    "functions.example_app.app": HTTP,
    "functions.example_app.router": HTTP,
}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> set[str]:
    """The modules that a file imports when it runs; what only the type checker reads does not count."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            # `from ledger_core import items` imports the module ledger_core.items.
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & {module_of(path) for path in SOURCES}
            found |= submodules or {node.module}
    return found


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_imports_go_strictly_down(path: Path) -> None:
    """No module knows the ones above it, nor a library that is not its business."""
    module = module_of(path)
    layer = {name: depth for depth, names in enumerate(LAYERS) for name in names}
    if module in {"functions", "functions.example_app"}:
        assert not imports_of(path)
        return
    for imported in imports_of(path):
        if imported.startswith(("functions", "ledger_core")):
            assert layer[imported] > layer[module], f"{module} imports {imported}"
        elif (library := imported.partition(".")[0]) in HTTP | AWS:
            assert library in MAY_IMPORT.get(module, set()), f"{module} imports {library}"


def test_core_does_not_import_fastapi() -> None:
    """Functions without HTTP, and the command line, do not pay for it."""
    program = "import sys, ledger_core, functions.wiring, functions.cli; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "ledger_core.processor" in modules
    assert not HTTP & set(modules)


@pytest.mark.parametrize("path", [path for path in SOURCES if path.stat().st_size], ids=module_of)
def test_modules_are_small_and_say_what_they_own(path: Path) -> None:
    """Every module opens with what it is for, is read in one sitting, and sorts its public names."""
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= LINES_MAX
    names = importlib.import_module(module_of(path)).__all__
    assert names == sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name))


def test_tests_say_what_they_test() -> None:
    """Read together, the docstrings of the tests are the specification."""
    for path in ROOT.glob("tests/**/test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                assert ast.get_docstring(node), f"{path.name}: {node.name}"


def test_repository_root_holds_nothing_else() -> None:
    """The root is a table of contents."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert {name.partition("/")[0] for name in tracked if not name.startswith(".")} <= {
        *("pyproject.toml", "functions", "ledger_core", "infra", "template.yaml", "tests", "README.md"),
        *("Makefile", "uv.lock", "LICENSE", "CHANGELOG.md"),
    }


def template() -> Any:
    return whole_template()["Resources"]


def parameters() -> Any:
    return whole_template()["Parameters"]


@pytest.mark.parametrize("table", ["EntriesTable", "BalancesTable"])
def test_tables_cannot_be_lost(table: str) -> None:
    """Both tables are on demand, restorable to any point, and survive the stack."""
    resource = template()[table]
    assert (resource["DeletionPolicy"], resource["UpdateReplacePolicy"]) == ("Retain", "Retain")
    assert resource["Properties"]["BillingMode"] == "PAY_PER_REQUEST"
    assert resource["Properties"]["DeletionProtectionEnabled"] is True
    assert resource["Properties"]["SSESpecification"] == {"SSEEnabled": True}
    assert resource["Properties"]["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}


def test_entries_are_streamed_and_have_one_index() -> None:
    """New entries go to a stream; the one index is the one the store asks."""
    entries = template()["EntriesTable"]["Properties"]
    assert entries["StreamSpecification"] == {"StreamViewType": "NEW_IMAGE"}
    assert [index["IndexName"] for index in entries["GlobalSecondaryIndexes"]] == [INDEX_BY_OWNER]


def statements(role: str) -> dict[str, Any]:
    policies = template()[role]["Properties"]["Policies"]
    return {one["Sid"]: one for policy in policies for one in policy["PolicyDocument"]["Statement"]}


def test_function_may_do_what_it_needs_and_nothing_else() -> None:
    """Entries are put and looked up in transactions only; nothing updates or deletes one; no action has a wildcard."""
    entries, balances = "EntriesTable.Arn", "BalancesTable.Arn"
    in_writes = {"ForAnyValue:StringEquals": {"dynamodb:EnclosingOperation": "TransactWriteItems"}}
    in_reads = {"ForAnyValue:StringEquals": {"dynamodb:EnclosingOperation": "TransactGetItems"}}
    rights = {sid: (one["Action"], one["Resource"], one.get("Condition")) for sid, one in statements(ROLE).items()}
    assert rights == {
        "AppendEntriesInTransactionsOnly": ("dynamodb:PutItem", entries, in_writes),
        "MoveBalancesInTransactionsOnly": ("dynamodb:UpdateItem", balances, in_writes),
        "LookUpEntriesInTransactionsOnly": ("dynamodb:GetItem", entries, in_reads),
        "ReadBalances": ("dynamodb:GetItem", balances, None),
        "ReadHistory": ("dynamodb:Query", "${EntriesTable.Arn}/index/by_owner", None),
        "WriteItsOwnLog": (["logs:CreateLogStream", "logs:PutLogEvents"], "ApiFunctionLogGroup.Arn", None),
        "SendTraces": (["xray:PutTraceSegments", "xray:PutTelemetryRecords"], "*", None),
    }
    roles = [name for name, resource in template().items() if resource["Type"] == "AWS::IAM::Role"]
    functions = [resource for resource in template().values() if resource["Type"] == "AWS::Serverless::Function"]
    assert roles == [ROLE]
    assert all("Policies" not in function["Properties"] for function in functions)
    assert [function["Properties"]["Role"] for function in functions] == [f"{ROLE}.Arn"]


def test_nobody_else_may_change_an_entry_either() -> None:
    """The entries table denies everybody what would change or drop an entry."""
    changing, putting = template()["EntriesTable"]["Properties"]["ResourcePolicy"]["PolicyDocument"]["Statement"]
    for denied in (changing, putting):
        assert (denied["Effect"], denied["Principal"], denied["Resource"]) == ("Deny", "*", "*")
    actions = {"UpdateItem", "DeleteItem", "BatchWriteItem", "PartiQLUpdate", "PartiQLDelete", "UpdateTimeToLive"}
    assert set(changing["Action"]) == {f"dynamodb:{action}" for action in actions}
    assert set(putting["Action"]) == {"dynamodb:PutItem", "dynamodb:PartiQLInsert"}
    not_in_writes = {"ForAllValues:StringNotEquals": {"dynamodb:EnclosingOperation": "TransactWriteItems"}}
    assert (changing.get("Condition"), putting["Condition"]) == (None, not_in_writes)


def test_api_needs_a_token() -> None:
    """Every route but the one for health is behind the authorizer, whose issuer and audience have no default."""
    routes = [resource["Properties"] for resource in template().values() if resource["Type"].endswith("::Route")]
    assert {route["RouteKey"]: route["AuthorizationType"] for route in routes} == {
        "$default": "JWT",
        "GET /health": "NONE",
    }
    assert {f"GET {path}" for path in OPEN_PATHS} == {"GET /health"}
    assert all("Default" not in parameters()[name] for name in ("JwtIssuer", "JwtAudience"))
    assert template()["ApiFunction"]["Properties"]["Environment"]["Variables"]["LEDGER_AUTH"] == "jwt"


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


def test_a_changed_parameter_is_published() -> None:
    """Every parameter that a version is made of is in its description, a change of which makes another version."""
    function = TEMPLATE.read_text().split("  ApiFunction:\n")[1].split("  ApiFunctionRole:\n")[0]
    used = {name for name in parameters() if re.search(rf"!Ref {name}\b", function)}
    described = set(re.findall(r"\$\{(\w+)\}", template()["ApiFunction"]["Properties"]["VersionDescription"]))
    assert used - {"ReservedConcurrency"} == described  # which is the function's, for all of its versions


def test_function_s_time_is_longer_than_a_request_s() -> None:
    """A request has answered before the function's time is up, and that before API Gateway's."""
    timeout: int = template()["ApiFunction"]["Properties"]["Timeout"]
    assert TIMEOUT_SECONDS + CONNECT_SECONDS_MAX + READ_SECONDS_MAX < timeout < API_GATEWAY_SECONDS_MAX


def test_function_is_published_traced_and_logs_json() -> None:
    """The API calls a published version, started from a snapshot; it is traced; logs are JSON, and not for ever."""
    function = template()["ApiFunction"]["Properties"]
    assert (function["AutoPublishAlias"], function["Tracing"], function["Runtime"]) == ("live", "Active", "python3.13")
    assert template()["HttpApiIntegration"]["Properties"]["IntegrationUri"].endswith(":function:${ApiFunction}:live")
    assert function["LoggingConfig"]["LogFormat"] == "JSON"
    groups = [resource for resource in template().values() if resource["Type"] == "AWS::Logs::LogGroup"]
    assert len(groups) == 2
    assert all(group["Properties"]["RetentionInDays"] == "LogRetentionInDays" for group in groups)
    assert (parameters()["SnapStart"]["Default"], parameters()["Architecture"]["Default"]) == (
        "PublishedVersions",
        "arm64",
    )


def test_access_log_holds_no_path() -> None:
    """Owners' ids are in paths, and stay out of the log."""
    settings = template()["HttpApiStage"]["Properties"]["AccessLogSettings"]
    fields = json.loads(settings["Format"])
    assert fields["requestId"] == "$context.requestId"
    assert not [value for value in fields.values() if "path" in value.lower()]


def alarms() -> dict[str, Any]:
    resources = template().items()
    return {name: one["Properties"] for name, one in resources if one["Type"] == "AWS::CloudWatch::Alarm"}


def test_every_alarm_says_why_and_what_to_do() -> None:
    """Each alarm gives its reason, is on the dashboard, and has a section for operators that says what to do."""
    manual = (ROOT / "infra/operations.md").read_text()
    dashboard = TEMPLATE.read_text().split("DashboardBody")[1]
    assert len(alarms()) == 8
    for name, alarm in alarms().items():
        assert len(alarm["AlarmDescription"]) > 80
        assert alarm["TreatMissingData"] == "notBreaching"
        assert f"${{{name}.Arn}}" in dashboard
        assert f"### {name}\n" in manual


def test_metrics_that_are_watched_are_metrics_that_are_told() -> None:
    """Alarms and dashboard ask for no metric of ours that nobody writes."""
    source = (ROOT / "ledger_core/telemetry.py").read_text()
    told = {
        *OUTCOMES.values(),
        *(f"Failed{state}" for state in RequestState),
        *(code.capitalize() for code in ALARMING),
    }
    told |= set(re.findall(r'"([A-Z][a-zA-Z]+)"', source))
    watched = {alarm["MetricName"] for alarm in alarms().values() if alarm.get("Namespace") == METRICS_NAMESPACE}
    watched |= set(re.findall(r'\["\$\{Ns\}", "(\w+)"', TEMPLATE.read_text()))
    assert len(watched) > 12
    assert watched <= told


def test_local_tables_come_from_the_template() -> None:
    """What runs locally has the keys and the index that are deployed."""
    definitions = table_definitions()
    assert set(definitions) == {"EntriesTable", "BalancesTable"}
    for name, definition in definitions.items():
        properties = template()[name]["Properties"]
        for part in ("KeySchema", "AttributeDefinitions", "BillingMode"):
            assert definition[part] == properties[part]
