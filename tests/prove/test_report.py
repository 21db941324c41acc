"""The report of `make prove` has all results, and shows each failure."""

import subprocess
import sys
from pathlib import Path

from tests.invariants import INVARIANTS
from tests.support import ROOT

TESTS = '''
"""Deeds of a test."""
from tests.support import DEEP

def test_counts(record_property):
    """All <is> well."""
    assert DEEP
    record_property("kills", 1234)

def test_fails():
    """It does not hold."""
    assert False
'''


def test_report_tells_what_was_done_and_what_failed(tmp_path: Path) -> None:
    """A page has the counts, the tests, the invariants and a picture; a failure fails the run."""
    (tmp_path / "test_deeds.py").write_text(TESTS)
    page = tmp_path / "report.html"
    command = [sys.executable, "-m", "tests.prove", str(page), str(tmp_path / "test_deeds.py")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 1, ended.stderr
    text = page.read_text()
    assert "1 of 2 tests passed" in text
    assert "Deeds of a test." in text
    assert "All &lt;is&gt; well.<td>1,234 kills" in text
    assert "<p class=failed>test_fails: failed</p>" in text
    assert all(invariant.__name__.replace("_", " ") in text for invariant in INVARIANTS)
    assert text.count("<rect ") > 20
