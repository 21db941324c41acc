"""The tests pass in any order, in one process: none leaves anything behind that another one stumbles over."""

import os
import subprocess
import sys

import pytest

from tests.support import ROOT

pytestmark = pytest.mark.slow

LEAVING_NO_LOOP = "tests/unit/http/test_router.py::test_client_that_disconnects_within_its_body_is_no_fault"
ASKING_FOR_ONE = "tests/unit/http/test_telemetry.py::test_websockets_are_turned_away"


def test_one_test_s_event_loop_is_not_another_s() -> None:
    """What runs a loop of its own leaves the thread without one, and the next test asks for the thread's."""
    options = ["--no-cov", "-q", "-p", "no:cacheprovider"]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, LEAVING_NO_LOOP, ASKING_FOR_ONE],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 passed" in done.stdout, done.stdout
