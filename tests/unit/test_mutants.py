"""The explanations of surviving mutants fit the code."""

import tomllib
from fnmatch import fnmatch

import pytest

from tests.mutants import EXPLAINED, Mutant, chosen, explained
from tests.support import ROOT

REASONS = explained(EXPLAINED.read_text())


@pytest.mark.parametrize("mutant", REASONS, ids=lambda mutant: f"{mutant.function}: {mutant.new}")
def test_explained_mutant_changes_an_existing_line(mutant: Mutant) -> None:
    """Each row has a line of its file, a changed line, and a reason."""
    assert mutant.old in " ".join((ROOT / mutant.file).read_text().split())
    assert mutant.new != mutant.old
    assert REASONS[mutant]


def test_printed_row_is_read_back() -> None:
    """The row that is printed for a survivor explains it, once a reason is added."""
    mutant = Mutant("ledger_core/dynamodb/store.py", "LedgerStore.page", "a = b | c", "a = b & c")
    assert explained(f"text\n{mutant} it makes no difference |\n") == {
        mutant: "it makes no difference"
    }


def test_mutants_are_of_the_whole_library_or_of_chosen_files() -> None:
    """Each module is mutated; a chosen file is not taken for the beginning of another name."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutmut"]
    modules = [str(path.relative_to(ROOT)) for path in ROOT.glob("ledger_core/**/*.py")]
    patterns = settings["only_mutate"]
    left_out = [path for path in modules if not any(fnmatch(path, text) for text in patterns)]
    assert left_out == []
    names = [
        "ledger_core.dynamodb.signing.x_jwk__mutmut_1",
        "ledger_core.keyset.x_f__mutmut_1",
        "ledger_core.dynamodb.store.x_f__mutmut_2",
    ]
    assert chosen(names, []) == names
    files = ["ledger_core/dynamodb/signing.py", "ledger_core/dynamodb/store.py"]
    assert chosen(names, files) == [names[0], names[2]]


def test_selected_test_files_exist() -> None:
    """A test file that was moved must be moved in the settings too."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutmut"]
    selected = settings["pytest_add_cli_args_test_selection"]
    assert [path for path in selected if not (ROOT / path).exists()] == []
