"""The command `ledger rewards`."""

import json
import os
import pty
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest

from ledger_core.cli import main
from ledger_core.cli.prices import WRITE_UNIT_DOLLARS, WRITE_UNITS_PER_REWARD
from tests.fakes.cloud import Cloud
from tests.fakes.sweeps import spoil
from tests.support import NOON, wire

APP = "functions.example_app.operations:ExampleAppOperations"
DAY = ("--date", "2026-11-22")
OWN_APP = """
from enum import StrEnum
from ledger_core import BaseLedgerOperations, OperationConfig, every_owner

class Fee(StrEnum):
    FEE = "FEE"

class Operations(BaseLedgerOperations):
    APP_CONFIG = {Fee.FEE: OperationConfig(amount=-2)}
    SCHEDULED = {Fee.FEE: every_owner}
"""


class Terminal(TextIOWrapper):
    """A terminal with typed input."""

    def __init__(self, typed: str) -> None:
        super().__init__(BytesIO(typed.encode()))

    def isatty(self) -> bool:
        return True


@pytest.fixture
def cli(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """The command at noon over the tables; it gives the exit code, the JSON and standard error."""
    monkeypatch.setattr("ledger_core.wiring.create_client", lambda *_: cloud.dynamodb)
    monkeypatch.setattr("ledger_core.cli.rewards.now", lambda: NOON)

    def run(*arguments: str, app: str | None = APP) -> tuple[int, dict[str, Any], str]:
        app_arguments = ["--app", app] if app else []
        code = main(["rewards", *arguments, *app_arguments])
        printed = capsys.readouterr()
        done = json.loads(printed.out) if printed.out else {}
        return code, done, printed.err

    return run


def test_rewards_are_counted_estimated_and_granted(cloud: Cloud, cli: Any) -> None:
    """The command prints the count and the cost, then grants; a second run grants nothing."""
    owners = cloud.seed(60)
    code, done, printed = cli(*DAY, "--yes")
    assert (code, done["granted"], done["already"], done["failed"]) == (0, 60, 0, 0)
    assert (
        "DAILY_REWARD +1 for 2026-11-22, under the nonce ledger:daily-reward:2026-11-22" in printed
    )
    counted = "owners: 60, of whom get it: 60, have it: 0, are not eligible: 0, cannot get it: 0"
    assert counted in printed
    assert f"about {60 * WRITE_UNITS_PER_REWARD} write units" in printed
    assert "$0.00 at list price" in printed
    cloud.check(owners, ["2026-11-22"])
    code, done, _ = cli(*DAY, "--yes")
    assert (code, done["granted"], done["already"]) == (0, 0, 60)
    cloud.check(owners, ["2026-11-22"])


def test_price_of_a_million() -> None:
    """A reward takes 5 write units, so a million takes $3.13, as the pages say."""
    assert round(1_000_000 * WRITE_UNITS_PER_REWARD * WRITE_UNIT_DOLLARS, 3) == 3.125


def test_dry_run_writes_nothing_and_asks_nothing(cloud: Cloud, cli: Any) -> None:
    """A dry run checks the connection, reads each account once, and needs no terminal."""
    owners = cloud.seed(10)
    sent = wire(cloud.dynamodb)
    code, done, printed = cli(*DAY, "--dry-run")
    assert (code, done["granted"], done["write_units"]) == (0, 10, 0)
    assert "of whom get it: 10" in printed
    assert "[y/N]" not in printed
    assert sent == ["GetItem", "Scan"]
    cloud.check(owners, [])


def test_other_periods(cloud: Cloud, cli: Any) -> None:
    """A date selects the week or the month that it is in."""
    cloud.seed(2)
    _, done, printed = cli(*DAY, "--period", "week", "--yes")
    assert (done["granted"], "ledger:daily-reward:2026-W47" in printed) == (2, True)


@pytest.mark.parametrize(
    ("typed", "granted"),
    [("y\n", True), ("Yes\n", True), ("n\n", False), ("\n", False), ("", False), ("\xff\n", False)],
)
def test_command_asks_for_confirmation(
    cloud: Cloud, cli: Any, monkeypatch: pytest.MonkeyPatch, typed: str, granted: bool
) -> None:
    """The question follows the count; every answer but yes means that nothing is written."""
    owners = cloud.seed(3)
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    sent = wire(cloud.dynamodb)
    code, done, printed = cli(*DAY)
    assert "Grant 1 credit to about 3 owners? [y/N] " in printed
    outcome = (0, 3) if granted else (2, None)
    assert (code, done.get("granted")) == outcome
    assert ("TransactWriteItems" in sent) == granted
    assert ("ledger: not confirmed: nothing was granted" in printed) != granted
    cloud.check(owners, ["2026-11-22"] if granted else [])


@pytest.mark.parametrize("stdin", [TextIOWrapper(BytesIO(b"y\n")), None])
def test_command_without_a_terminal_needs_an_argument(
    cloud: Cloud, cli: Any, monkeypatch: pytest.MonkeyPatch, stdin: Any
) -> None:
    """If standard input is closed or no terminal, the error names the missing argument."""
    owners = cloud.seed(3)
    monkeypatch.setattr(sys, "stdin", stdin)
    sent = wire(cloud.dynamodb)
    code, done, printed = cli(*DAY)
    assert (code, done, sent) == (2, {}, [])
    assert printed == (
        "ledger: standard input: is not a terminal, so it cannot confirm; "
        "--yes grants without asking, --dry-run only counts\n"
    )
    cloud.check(owners, [])


@pytest.mark.parametrize(
    ("zone", "now", "recent", "in_doubt"),
    [
        (
            "UTC",
            "2026-11-22T23:59:59Z",
            ["2026-11-15", "2026-11-22"],
            ["2026-11-14", "2026-11-23", "2031-01-01"],
        ),
        (
            "Asia/Tokyo",
            "2026-11-22T15:00:00Z",
            ["2026-11-16", "2026-11-23"],
            ["2026-11-15", "2026-11-24"],
        ),
        (
            "America/New_York",
            "2026-11-22T04:59:59Z",
            ["2026-11-14", "2026-11-21"],
            ["2026-11-13", "2026-11-22"],
        ),
    ],
)
def test_later_or_old_period_needs_force(
    cloud: Cloud,
    cli: Any,
    monkeypatch: pytest.MonkeyPatch,
    zone: str,
    now: str,
    recent: list[str],
    in_doubt: list[str],
) -> None:
    """A later day, or a day more than a week ago, is refused before the count without --force."""
    (owner,) = cloud.seed(1)
    monkeypatch.setattr("ledger_core.cli.rewards.now", lambda: datetime.fromisoformat(now))
    sent = wire(cloud.dynamodb)
    for day in in_doubt:
        code, done, printed = cli("--date", day, "--yes", "--time-zone", zone)
        assert (code, done, sent) == (2, {}, []), day
        assert printed.startswith(f"ledger: period: {day} "), printed
        assert printed.endswith(f" in {zone}; --force grants it anyway\n")
    for day in recent:
        assert cli("--date", day, "--yes", "--time-zone", zone)[:1] == (0,)
    assert cli("--date", in_doubt[0], "--yes", "--time-zone", zone, "--force")[1]["granted"] == 1
    cloud.check([owner], [*recent, in_doubt[0]])


def test_today_is_that_of_the_clock(
    cloud: Cloud, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command refuses the day after tomorrow, and a day years ago."""
    monkeypatch.undo()
    later = datetime.now(UTC).date() + timedelta(days=2)
    for day in (later, date(2020, 1, 1)):
        assert main(["rewards", "--app", APP, "--date", str(day), "--yes"]) == 2


def test_app_is_an_argument_or_a_variable(
    cloud: Cloud, cli: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`--app` or `LEDGER_APP` names the app, which may be in the working folder."""
    cloud.seed(2)
    (tmp_path / "own_app.py").write_text(OWN_APP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    monkeypatch.setenv("LEDGER_APP", "own_app:Operations")
    code, done, printed = cli(*DAY, "--operation", "FEE", app=None)
    assert "Take 2 credits from about 2 owners? [y/N] " in printed
    assert (code, done["granted"]) == (0, 2)
    code, _, printed = cli(*DAY, "--operation", "FEE", "--yes")
    assert (code, printed) == (
        2,
        "ledger: operation: must be one that may be scheduled, DAILY_REWARD\n",
    )


@pytest.mark.parametrize(
    ("app", "error"),
    [
        (None, "--app: is missing; give module:Operations, or set LEDGER_APP"),
        ("nothing_there:Operations", "--app: there is no module 'nothing_there'"),
        ("functions.nothing:Operations", "--app: there is no module 'functions.nothing'"),
        (
            "broken:Operations",
            "--app: broken cannot be imported: Operations: SCHEDULED must map operations to who is",
        ),
        ("settings:Operations", "--app: settings cannot be imported: a setting is missing"),
        ("silent:Operations", "--app: silent cannot be imported: RuntimeError"),
        (
            "misspelt:Operations",
            "--app: misspelt cannot be imported: expected ':' (misspelt.py, line 1)",
        ),
        (
            f"{APP}s",
            "--app: functions.example_app.operations has no class "
            "'ExampleAppOperationss' of operations",
        ),
        ("json:loads", "--app: json has no class 'loads' of operations"),
        ("json:JSONDecoder", "--app: json has no class 'JSONDecoder' of operations"),
        ("json", "--app: must have the form module:Operations: 'json'"),
        (":Operations", "--app: must have the form module:Operations: ':Operations'"),
        ("..json:Operations", "--app: must have the form module:Operations: '..json:Operations'"),
    ],
)
def test_invalid_app_is_refused(
    cloud: Cloud,
    cli: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    app: str | None,
    error: str,
) -> None:
    """The error says in a line what is wrong, and nothing is granted."""
    owners = cloud.seed(1)
    (tmp_path / "broken.py").write_text(OWN_APP.replace("{Fee.FEE: every_owner}", "1"))
    (tmp_path / "settings.py").write_text("import sys\nsys.exit('a setting is missing')")
    (tmp_path / "silent.py").write_text("raise RuntimeError")
    (tmp_path / "misspelt.py").write_text("class Operations")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("LEDGER_APP")
    code, done, printed = cli(*DAY, "--yes", app=app)
    assert (code, done, len(printed.splitlines())) == (2, {}, 1)
    assert printed.startswith(f"ledger: {error}")
    cloud.check(owners, [])


def test_failed_owner_sets_the_exit_code(cloud: Cloud, cli: Any) -> None:
    """The exit code is 1, so that a script notices."""
    spoil(cloud, cloud.seed(3)[0], "balance", {"S": "lots"})
    code, done, _ = cli(*DAY, "--yes")
    assert (code, done["granted"], done["failed"]) == (1, 2, 1)


@pytest.mark.parametrize("operation", ["SIGNUP_CREDIT", "NOTHING"])
def test_operation_that_is_not_scheduled_is_refused(cloud: Cloud, cli: Any, operation: str) -> None:
    """The exit code is 2, and the error is a line."""
    code, done, printed = cli(*DAY, "--operation", operation)
    assert (code, done) == (2, {})
    assert printed.strip() == "ledger: operation: must be one that may be scheduled, DAILY_REWARD"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], "the following arguments are required: --date"),
        (["--date", "22.11.2026"], "argument --date: must be a day, as 2026-11-22: '22.11.2026'"),
        (
            [*DAY, "--period", "year"],
            "argument --period: invalid choice: 'year' (choose from 'day', 'week', 'month')",
        ),
        ([*DAY, "--segments", "9"], "argument --segments: invalid choice: 9 "),
    ],
)
def test_invalid_arguments_are_refused(
    cli: Any, capsys: pytest.CaptureFixture[str], arguments: list[str], error: str
) -> None:
    """The parser refuses them with exit code 2."""
    with pytest.raises(SystemExit) as stop:
        cli(*arguments)
    assert stop.value.code == 2
    assert f"ledger rewards: error: {error}" in capsys.readouterr().err


def test_unknown_time_zone_is_refused(cloud: Cloud, cli: Any) -> None:
    """The error names the time zone in a line."""
    code, _, printed = cli(*DAY, "--yes", "--time-zone", "Mars/Olympus")
    assert (code, printed) == (2, "ledger: time_zone: is not known: 'Mars/Olympus'\n")


def test_bar_on_a_terminal(cloud: Cloud, cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, the command shows a progress bar up to 100%."""
    cloud.seed(4)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    _, _, printed = cli(*DAY, "--yes")
    assert "counting 4 owners" in printed
    assert f"granting [{'#' * 30}] 100% 4 owners" in printed


def test_command_at_a_real_terminal_asks(cloud: Cloud) -> None:
    """In a process of its own, the command reads the answer from a terminal."""
    owners = cloud.seed(2)
    person, terminal = pty.openpty()
    ledger = str(Path(sys.executable).parent / "ledger")
    command = [ledger, "rewards", "--app", APP, *DAY, "--force"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=terminal, stdout=pipe, stderr=pipe) as process:
        os.close(terminal)
        os.write(person, b"y\n")
        out, printed = process.communicate(timeout=60)
        os.close(person)
    assert (process.returncode, json.loads(out)["granted"]) == (0, 2)
    assert b"Grant 1 credit to about 2 owners? [y/N] " in printed
    cloud.check(owners, ["2026-11-22"])
