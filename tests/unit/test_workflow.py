"""The workflow on GitHub runs what every commit must pass, with the least rights."""

import re
from typing import Any

import yaml

from tests.fakes.pages import ROOT

TEXT = (ROOT / ".github/workflows/ci.yml").read_text()


def workflow() -> dict[Any, Any]:
    loaded: dict[Any, Any] = yaml.safe_load(TEXT)
    return loaded


def test_workflow_runs_the_gate_with_the_least_rights() -> None:
    """The workflow runs `.ci/run` on two versions of Python, and may only read the repository."""
    (job,) = workflow()["jobs"].values()
    assert workflow()["permissions"] == {"contents": "read"}
    assert "permissions" not in job
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.13"]
    assert job["steps"][-1]["run"] == ".ci/run"


def test_actions_are_pinned_by_major_version() -> None:
    """Each action has a version and follows no branch."""
    actions = re.findall(r"uses: (\S+)", TEXT)
    assert len(actions) == 5
    assert [action for action in actions if not re.fullmatch(r"actions/[\w-]+@v\d+", action)] == []
