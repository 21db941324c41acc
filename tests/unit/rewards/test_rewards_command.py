"""`ledger rewards`, for people."""

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
    """Somebody at a keyboard, who has typed this."""

    def __init__(self, typed: str) -> None:
        super().__init__(BytesIO(typed.encode()))

    def isatty(self) -> bool:
        return True


@pytest.fixture
def cli(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """The command over the test's tables, on the test's day; its exit code, its JSON, and what it tells people."""
    monkeypatch.setattr("ledger_core.wiring.create_client", lambda *_: cloud.dynamodb)
    monkeypatch.setattr("ledger_core.cli.rewards.now", lambda: NOON)

    def run(*arguments: str, app: str | None = APP) -> tuple[int, dict[str, Any], str]:
        code = main(["rewards", *arguments, *(["--app", app] if app else [])])
        told = capsys.readouterr()
        return code, json.loads(told.out) if told.out else {}, told.err

    return run


def test_rewards_are_counted_estimated_and_granted(cloud: Cloud, cli: Any) -> None:
    """It says before it starts what it will do and cost, then does it; run again it finds all done."""
    owners = cloud.seed(60)
    code, done, told = cli(*DAY, "--yes")
    assert (code, done["granted"], done["already"], done["failed"]) == (0, 60, 0, 0)
    assert "DAILY_REWARD +1 for 2026-11-22, under the nonce ledger:daily-reward:2026-11-22" in told
    assert (
        "owners: 60, of whom get it: 60, have it: 0, are not eligible: 0, cannot get it: 0" in told
    )
    assert f"about {60 * WRITE_UNITS_PER_REWARD} write units" in told
    assert "$0.00 at list price" in told
    cloud.check(owners, ["2026-11-22"])
    code, done, _ = cli(*DAY, "--yes")
    assert (code, done["granted"], done["already"]) == (0, 0, 60)
    cloud.check(owners, ["2026-11-22"])


def test_price_of_a_million() -> None:
    """Five write units each, which is what the pages say."""
    assert round(1_000_000 * WRITE_UNITS_PER_REWARD * WRITE_UNIT_DOLLARS, 3) == 3.125


def test_dry_run_writes_nothing_and_asks_nothing(cloud: Cloud, cli: Any) -> None:
    """It sees whether DynamoDB is there, reads every account once, and that is all; standard input is no terminal."""
    owners = cloud.seed(10)
    sent = wire(cloud.dynamodb)
    code, done, told = cli(*DAY, "--dry-run")
    assert (code, done["granted"], done["write_units"]) == (0, 10, 0)
    assert "of whom get it: 10" in told
    assert "[y/N]" not in told
    assert sent == ["GetItem", "Scan"]
    cloud.check(owners, [])


def test_other_periods(cloud: Cloud, cli: Any) -> None:
    """A day of the week or the month names it."""
    cloud.seed(2)
    _, done, told = cli(*DAY, "--period", "week", "--yes")
    assert (done["granted"], "ledger:daily-reward:2026-W47" in told) == (2, True)


@pytest.mark.parametrize(
    ("typed", "granted"),
    [("y\n", True), ("Yes\n", True), ("n\n", False), ("\n", False), ("", False), ("\xff\n", False)],
)
def test_person_is_asked(
    cloud: Cloud, cli: Any, monkeypatch: pytest.MonkeyPatch, typed: str, granted: bool
) -> None:
    """After the count and before the first write; whatever is not yes is no, and then nothing is written."""
    owners = cloud.seed(3)
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    sent = wire(cloud.dynamodb)
    code, done, told = cli(*DAY)
    assert "Grant 1 credit to about 3 owners? [y/N] " in told
    assert (code, done.get("granted"), "TransactWriteItems" in sent) == (
        (0, 3, True) if granted else (2, None, False)
    )
    assert ("ledger: not confirmed: nothing was granted" in told) != granted
    cloud.check(owners, ["2026-11-22"] if granted else [])


@pytest.mark.parametrize("stdin", [TextIOWrapper(BytesIO(b"y\n")), None])
def test_nobody_can_be_asked(
    cloud: Cloud, cli: Any, monkeypatch: pytest.MonkeyPatch, stdin: Any
) -> None:
    """Where standard input is no terminal, or closed, it says which argument is missing, and does not even count."""
    owners = cloud.seed(3)
    monkeypatch.setattr(sys, "stdin", stdin)
    sent = wire(cloud.dynamodb)
    code, done, told = cli(*DAY)
    assert (code, done, sent) == (2, {}, [])
    assert told == (
        "ledger: standard input is no terminal, so nobody can be asked: --yes grants without asking, "
        "--dry-run only counts\n"
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
def test_period_to_come_or_long_over_takes_force(
    cloud: Cloud,
    cli: Any,
    monkeypatch: pytest.MonkeyPatch,
    zone: str,
    now: str,
    recent: list[str],
    in_doubt: list[str],
) -> None:
    """From tomorrow on, and before the day a week ago, by the calendar of the zone; not even a count is made."""
    (owner,) = cloud.seed(1)
    monkeypatch.setattr("ledger_core.cli.rewards.now", lambda: datetime.fromisoformat(now))
    sent = wire(cloud.dynamodb)
    for day in in_doubt:
        code, done, told = cli("--date", day, "--yes", "--time-zone", zone)
        assert (code, done, sent) == (2, {}, []), day
        assert told.startswith(f"ledger: period: {day} "), told
        assert told.endswith(f" in {zone}; with --force it is granted all the same\n")
    for day in recent:
        assert cli("--date", day, "--yes", "--time-zone", zone)[:1] == (0,)
    assert cli("--date", in_doubt[0], "--yes", "--time-zone", zone, "--force")[1]["granted"] == 1
    cloud.check([owner], [*recent, in_doubt[0]])


def test_today_is_the_clock_s(cloud: Cloud, cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a test's hand on it."""
    monkeypatch.undo()
    assert (
        main(
            [
                "rewards",
                "--app",
                APP,
                "--date",
                str(datetime.now(UTC).date() + timedelta(days=2)),
                "--yes",
            ]
        )
        == 2
    )
    assert main(["rewards", "--app", APP, "--date", str(date(2020, 1, 1)), "--yes"]) == 2


def test_app_says_whose_rules_apply(
    cloud: Cloud, cli: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By the argument or by LEDGER_APP, and from the folder one is in; what it takes is asked for as such."""
    cloud.seed(2)
    (tmp_path / "own_app.py").write_text(OWN_APP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    monkeypatch.setenv("LEDGER_APP", "own_app:Operations")
    code, done, told = cli(*DAY, "--operation", "FEE", app=None)
    assert "Take 2 credits from about 2 owners? [y/N] " in told
    assert (code, done["granted"]) == (0, 2)
    code, _, told = cli(*DAY, "--operation", "FEE", "--yes")
    assert (code, told) == (
        2,
        "ledger: operation: must be one that may be scheduled, DAILY_REWARD\n",
    )


@pytest.mark.parametrize(
    ("app", "told"),
    [
        (None, "--app, or LEDGER_APP, has to say whose rules apply: module:Operations"),
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
            "--app: functions.example_app.operations has no class 'ExampleAppOperationss' of operations",
        ),
        ("json:loads", "--app: json has no class 'loads' of operations"),
        ("json:JSONDecoder", "--app: json has no class 'JSONDecoder' of operations"),
        ("json", "--app: must be written as module:Operations: 'json'"),
        (":Operations", "--app: must be written as module:Operations: ':Operations'"),
        ("..json:Operations", "--app: must be written as module:Operations: '..json:Operations'"),
    ],
)
def test_app_that_is_none_is_refused(
    cloud: Cloud,
    cli: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    app: str | None,
    told: str,
) -> None:
    """In one line that says what is wrong with it; nobody's rules apply instead."""
    owners = cloud.seed(1)
    (tmp_path / "broken.py").write_text(OWN_APP.replace("{Fee.FEE: every_owner}", "1"))
    (tmp_path / "settings.py").write_text("import sys\nsys.exit('a setting is missing')")
    (tmp_path / "silent.py").write_text("raise RuntimeError")
    (tmp_path / "misspelt.py").write_text("class Operations")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("LEDGER_APP")
    code, done, err = cli(*DAY, "--yes", app=app)
    assert (code, done, len(err.splitlines())) == (2, {}, 1)
    assert err.startswith(f"ledger: {told}")
    cloud.check(owners, [])


def test_owner_that_cannot_be_rewarded_is_told_by_the_exit_code(cloud: Cloud, cli: Any) -> None:
    """1, so that a script notices."""
    spoil(cloud, cloud.seed(3)[0], "balance", {"S": "lots"})
    code, done, _ = cli(*DAY, "--yes")
    assert (code, done["granted"], done["failed"]) == (1, 2, 1)


@pytest.mark.parametrize("operation", ["SIGNUP_CREDIT", "NOTHING"])
def test_operation_that_is_not_scheduled_is_refused(cloud: Cloud, cli: Any, operation: str) -> None:
    """2, and one line."""
    code, done, told = cli(*DAY, "--operation", operation)
    assert (code, done) == (2, {})
    assert told.strip() == "ledger: operation: must be one that may be scheduled, DAILY_REWARD"


@pytest.mark.parametrize(
    ("arguments", "told"),
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
def test_arguments_that_make_no_sense_are_refused(
    cli: Any, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    """By the parser, with its usual exit code."""
    with pytest.raises(SystemExit) as stop:
        cli(*arguments)
    assert stop.value.code == 2
    assert f"ledger rewards: error: {told}" in capsys.readouterr().err


def test_zone_that_is_none_is_refused(cloud: Cloud, cli: Any) -> None:
    """In one line."""
    code, _, told = cli(*DAY, "--yes", "--time-zone", "Mars/Olympus")
    assert (code, told) == (2, "ledger: time_zone: is not known: 'Mars/Olympus'\n")


def test_bar_on_a_terminal(cloud: Cloud, cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where somebody looks on, there is a bar that comes to its end."""
    cloud.seed(4)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    _, _, told = cli(*DAY, "--yes")
    assert "counting 4 owners" in told
    assert f"granting [{'#' * 30}] 100% 4 owners" in told


def test_person_at_a_real_terminal_is_asked(cloud: Cloud) -> None:
    """In a process of its own, whose standard input is a terminal; its output is what it is, a pipe."""
    owners = cloud.seed(2)
    person, terminal = pty.openpty()
    command = [
        str(Path(sys.executable).parent / "ledger"),
        "rewards",
        "--app",
        APP,
        *DAY,
        "--force",
    ]
    with subprocess.Popen(
        command, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        os.close(terminal)
        os.write(person, b"y\n")
        out, told = process.communicate(timeout=60)
        os.close(person)
    assert (process.returncode, json.loads(out)["granted"]) == (0, 2)
    assert b"Grant 1 credit to about 2 owners? [y/N] " in told
    cloud.check(owners, ["2026-11-22"])
