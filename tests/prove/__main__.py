"""`make prove`: the deep form of the tests that prove the guarantees, and a report of them.

python -m tests.prove [report.html] [pytest's arguments]
"""

import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.mutants import SUMMARY
from tests.prove.evidence import Evidence
from tests.prove.report import report
from tests.support import DEEP, ROOT

PROOFS = (
    "tests/unit/test_invariants.py",
    "tests/simulator",
    "tests/unit/test_properties.py",
    "tests/conformance",
    "tests/e2e/test_races.py",
    "tests/e2e/test_faults.py",
    "tests/e2e/test_crashes.py",
    "tests/lambda_runtime/test_runtime_crashes.py",
    "tests/e2e/test_rewards.py",
    "tests/unit/rewards/test_killed.py",
    "tests/unit/audit/test_audit.py",
    "tests/unit/audit/test_receipts.py",
    "tests/fuzz",
)


def main() -> int:
    """Run pytest; its exit code is 0 if all tests pass."""
    if not DEEP:  # which tests look at when they are imported
        command = [sys.executable, "-m", "tests.prove", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, "PROVE": "1"})
    target = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / ".local/prove/report.html")
    evidence, begun = Evidence(), datetime.now(UTC)
    code = pytest.main(["--no-cov", "-q", *(sys.argv[2:] or PROOFS)], plugins=[evidence])
    mutants = SUMMARY.read_text() if SUMMARY.exists() else "Not run: `make mutants` does."
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(
        report(evidence.proofs, begun=begun, ended=datetime.now(UTC), mutants=mutants),
        encoding="utf-8",
    )
    print(f"The report is in {target}")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
