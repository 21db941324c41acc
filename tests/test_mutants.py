"""The explanations of mutants are of the code as it is."""

import pytest

from tests.mutants import EXPLAINED, Mutant, explained
from tests.support import ROOT

REASONS = explained(EXPLAINED.read_text())


@pytest.mark.parametrize("mutant", REASONS, ids=lambda mutant: f"{mutant.function}: {mutant.new}")
def test_an_explained_mutant_is_of_a_line_that_is_there(mutant: Mutant) -> None:
    """Each row names a line of its file, another in its place, and a reason."""
    assert mutant.old in " ".join((ROOT / mutant.file).read_text().split())
    assert mutant.new != mutant.old
    assert REASONS[mutant]


def test_a_table_reads_as_it_is_written() -> None:
    """A row that is printed for a survivor is one that explains it, once a reason is added."""
    mutant = Mutant("ledger_core/store.py", "LedgerStore.page", "a = b | c", "a = b & c")
    assert explained(f"text\n{mutant} it makes no difference |\n") == {mutant: "it makes no difference"}
