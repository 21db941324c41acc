"""Tests pass in any order, because no test leaves anything behind in the process."""

import os
import subprocess
import sys

import pytest

from tests.support import ROOT

pytestmark = pytest.mark.slow

TESTS = (
    "http/test_router.py::test_client_that_disconnects_within_its_body_is_no_fault",
    "http/test_telemetry.py::test_websockets_are_refused",
)
"""The first test closes the event loop of the thread, and the second needs an event loop."""


def test_each_test_has_an_event_loop() -> None:
    """A test that runs an event loop of its own leaves the thread's loop to the next test."""
    tests = [f"tests/unit/{test}" for test in TESTS]
    options = ["--no-cov", "-q", "-p", "no:cacheprovider"]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *tests],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 passed" in done.stdout, done.stdout
