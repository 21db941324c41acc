"""The log lines of a function."""

import json
from typing import Any

import pytest


def lines(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The lines that were printed since the last call."""
    return [json.loads(line) for line in capfd.readouterr().out.splitlines()]
