"""The names that an app imports, which SemVer covers."""

import ast
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

import ledger_core
from tests.support import ROOT

ERRORS = (
    "ConfigurationError",
    "ContentionError",
    "DuplicateNonceError",
    "ForbiddenError",
    "InsufficientBalanceError",
    "InvalidRequestError",
    "LedgerError",
    "StoreError",
    "TooLongError",
    "UnauthorizedError",
    "UnavailableError",
    "UnknownFormatError",
    "UnknownOperationError",
)
VALUES = (
    "Account",
    "BaseLedgerOperations",
    "LedgerEntry",
    "LedgerOperationType",
    "OperationConfig",
    "OperationRequest",
    "Period",
    "active_within",
    "every_owner",
)
PUBLIC: Mapping[str, Sequence[str]] = {
    "ledger_core.audit": ("audit", "audit_export", "audit_store"),
    "ledger_core.client": (
        "AsyncLedgerClient",
        "Balance",
        "Finding",
        "LedgerClient",
        "RefusedError",
        "Verification",
    ),
    "ledger_core.dynamodb": ("LedgerStore",),
    "ledger_core.http": ("Caller", "LedgerRouter", "caller_of", "create_api", "create_handler"),
    "ledger_core.posting": ("OperationProcessor",),
    "ledger_core.rewards": ("GrantOnAccess",),
    "ledger_core.wiring": (
        "create_processor",
        "create_receipt_key",
        "create_store",
        "load_settings",
    ),
}
"""The public names of each module. A change here is a change for apps: note it in CHANGELOG.md."""
FOLDERS = ("functions", "infra", "ledger_core", "tests")


@pytest.fixture(scope="module")
def imports() -> Sequence[tuple[Path, str, str]]:
    """Every `from module import name` of this repository: the file, the module and the name."""
    found = []
    for path in (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                found += [(path, node.module, alias.name) for alias in node.names]
    return found


def test_ledger_core_names_the_values() -> None:
    """`ledger_core` itself has these names and no others."""
    assert set(ledger_core.__all__) == {*ERRORS, *VALUES}
    assert all(hasattr(ledger_core, name) for name in ledger_core.__all__)


@pytest.mark.parametrize("module", PUBLIC)
def test_module_has_its_public_names(module: str, imports: Sequence[tuple[Path, str, str]]) -> None:
    """A module has the names that apps import, and only other names that its neighbours import."""
    folder = ROOT.joinpath(*module.split("."))
    neighbours = {
        name for path, source, name in imports if source == module and folder not in path.parents
    }
    face = importlib.import_module(module)
    assert set(PUBLIC[module]) <= set(face.__all__)
    assert set(face.__all__) - set(PUBLIC[module]) <= neighbours
    assert all(hasattr(face, name) for name in face.__all__)
