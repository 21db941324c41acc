"""The explanations of mutants are of the code as it is."""

import tomllib
from fnmatch import fnmatch

import pytest

from tests.mutants import EXPLAINED, Mutant, chosen, explained
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
    mutant = Mutant("ledger_core/dynamodb/store.py", "LedgerStore.page", "a = b | c", "a = b & c")
    assert explained(f"text\n{mutant} it makes no difference |\n") == {
        mutant: "it makes no difference"
    }


def test_all_of_the_library_is_changed_or_one_file_of_it() -> None:
    """Whatever module there comes to be; and a name is not taken for the beginning of another."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutmut"]
    modules = [str(path.relative_to(ROOT)) for path in ROOT.glob("ledger_core/**/*.py")]
    assert [
        path for path in modules if not any(fnmatch(path, one) for one in settings["only_mutate"])
    ] == []
    names = [
        "ledger_core.dynamodb.signing.x_jwk__mutmut_1",
        "ledger_core.keyset.x_f__mutmut_1",
        "ledger_core.dynamodb.store.x_f__mutmut_2",
    ]
    assert chosen(names, []) == names
    assert chosen(names, ["ledger_core/dynamodb/signing.py", "ledger_core/dynamodb/store.py"]) == [
        names[0],
        names[2],
    ]


def test_selection_of_tests_is_of_tests_that_there_are() -> None:
    """A file that moved is not left out in silence."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutmut"]
    selected = settings["pytest_add_cli_args_test_selection"]
    assert [path for path in selected if not (ROOT / path).exists()] == []
