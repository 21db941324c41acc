"""`ledger rewards`, for people."""

import json
import sys
from typing import Any

import pytest

from functions.cli import main
from functions.prices import WRITE_UNIT_DOLLARS, WRITE_UNITS_PER_REWARD
from tests.rewards.harness import Cloud
from tests.rewards.test_sweep import spoil
from tests.support import wire


@pytest.fixture
def cli(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """The command over the test's tables; what it returns, its JSON, and what it tells people."""
    monkeypatch.setattr("functions.wiring.create_client", lambda *_: cloud.dynamodb)

    def run(*arguments: str) -> tuple[int, dict[str, Any], str]:
        code = main(["rewards", *arguments])
        told = capsys.readouterr()
        return code, json.loads(told.out) if told.out else {}, told.err

    return run


def test_rewards_are_counted_estimated_and_granted(cloud: Cloud, cli: Any) -> None:
    """It says before it starts what it will do and cost, then does it; run again it finds all done."""
    owners = cloud.seed(60)
    code, done, told = cli("--date", "2026-11-22")
    assert (code, done["granted"], done["already"], done["failed"]) == (0, 60, 0, 0)
    assert "DAILY_REWARD +1 for 2026-11-22, under the nonce ledger:daily-reward:2026-11-22" in told
    assert "owners: 60, of whom get it: 60, have it: 0, are not eligible: 0, cannot get it: 0" in told
    assert f"about {60 * WRITE_UNITS_PER_REWARD} write units" in told
    assert "$0.00 at list price" in told
    cloud.check(owners, ["2026-11-22"])
    code, done, _ = cli("--date", "2026-11-22")
    assert (code, done["granted"], done["already"]) == (0, 0, 60)
    cloud.check(owners, ["2026-11-22"])


def test_price_of_a_million() -> None:
    """Five write units each, which is what the README says."""
    assert round(1_000_000 * WRITE_UNITS_PER_REWARD * WRITE_UNIT_DOLLARS, 3) == 3.125


def test_dry_run_writes_nothing(cloud: Cloud, cli: Any) -> None:
    """It reads every account once, and that is all."""
    owners = cloud.seed(10)
    sent = wire(cloud.dynamodb)
    code, done, told = cli("--date", "2026-11-22", "--dry-run")
    assert (code, done["granted"], done["write_units"]) == (0, 10, 0)
    assert "of whom get it: 10" in told
    assert sent == ["Scan"]
    cloud.check(owners, [])


def test_other_periods(cloud: Cloud, cli: Any) -> None:
    """A day of the week or the month names it."""
    cloud.seed(2)
    _, done, told = cli("--date", "2026-11-22", "--period", "week")
    assert (done["granted"], "ledger:daily-reward:2026-W47" in told) == (2, True)


def test_owner_that_cannot_be_rewarded_is_told_by_the_exit_code(cloud: Cloud, cli: Any) -> None:
    """1, so that a script notices."""
    spoil(cloud, cloud.seed(3)[0], "balance", {"S": "lots"})
    code, done, _ = cli("--date", "2026-11-22")
    assert (code, done["granted"], done["failed"]) == (1, 2, 1)


@pytest.mark.parametrize("operation", ["SIGNUP_CREDIT", "NOTHING"])
def test_operation_that_is_not_scheduled_is_refused(cloud: Cloud, cli: Any, operation: str) -> None:
    """2, and one line."""
    code, done, told = cli("--date", "2026-11-22", "--operation", operation)
    assert (code, done) == (2, {})
    assert told.strip() == "ledger: operation: must be one that may be scheduled, DAILY_REWARD"


@pytest.mark.parametrize("arguments", [[], ["--date", "22.11.2026"], ["--date", "2026-11-22", "--period", "year"]])
def test_arguments_that_make_no_sense_are_refused(cli: Any, arguments: list[str]) -> None:
    """By the parser, with its usual exit code."""
    with pytest.raises(SystemExit) as stop:
        cli(*arguments)
    assert stop.value.code == 2


def test_bar_on_a_terminal(cloud: Cloud, cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where somebody looks on, there is a bar that comes to its end."""
    cloud.seed(4)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    _, _, told = cli("--date", "2026-11-22")
    assert "counting 4 owners" in told
    assert f"granting [{'#' * 30}] 100% 4 owners" in told
