"""The wheel in its own environment: its content, and an app of another team on it."""

import os
import subprocess
import sys
from email.parser import HeaderParser
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile

import pytest

from infra.build import UV
from tests.conftest import ENVIRONMENT
from tests.support import ROOT

EXTRAS = {"client", "local", "verify"}
APP = """\
from enum import StrEnum

from ledger_core import BaseLedgerOperations, LedgerEntry, OperationConfig, OperationRequest
from ledger_core.client import LedgerClient
from ledger_core.http import LedgerRouter, create_api, create_handler
from ledger_core.posting import OperationProcessor
from ledger_core.wiring import create_processor, create_receipt_key, load_settings


class GameOperation(StrEnum):
    LEVEL_UP = "LEVEL_UP"


class GameOperations(BaseLedgerOperations):
    APP_CONFIG = {GameOperation.LEVEL_UP: OperationConfig(amount=2)}


def level_up(processor: OperationProcessor, owner_id: str, level: int) -> LedgerEntry:
    return processor.process(
        OperationRequest(
            owner_id=owner_id,
            operation=GameOperation.LEVEL_UP,
            nonce=f"level:{level}",
        )
    )


def balance_of(ledger: LedgerClient, owner_id: str) -> int:
    return ledger.balance(owner_id).balance


settings = load_settings()
processor = create_processor(GameOperations)
app = create_api(
    "Game",
    LedgerRouter(processor, receipt_key=create_receipt_key()),
    auth=settings.auth,
)
handler = create_handler(app)
"""
"""An app as another team writes it."""


class Mistake(NamedTuple):
    """A line of APP, a wrong line in its place, and mypy's error."""

    right: str
    wrong: str
    error: str


MISTAKES = {
    "misspelt_operation": Mistake(
        right="operation=GameOperation.LEVEL_UP,",
        wrong='operation="LEVLE_UP",',
        error=(
            'Argument "operation" to "OperationRequest" has incompatible type "str"; '
            'expected "StrEnum"  [arg-type]'
        ),
    ),
    "unknown_field": Mistake(
        right="OperationConfig(amount=2)",
        wrong="OperationConfig(amount=2, self_servcie=True)",
        error='Unexpected keyword argument "self_servcie" for "OperationConfig"; '
        'did you mean "self_service"?  [call-arg]',
    ),
    "class_for_instance": Mistake(
        right="LedgerRouter(processor, ",
        wrong="LedgerRouter(GameOperations, ",
        error='Argument 1 to "LedgerRouter" has incompatible type "type[GameOperations]"; '
        'expected "OperationProcessor"  [arg-type]',
    ),
}


def run(*command: str | Path, folder: Path) -> str:
    """The output of a command, which must succeed. Of this machine's variables it gets PATH."""
    variables = {"PATH": os.environ["PATH"], **ENVIRONMENT}
    program = subprocess.run(
        [*map(str, command)],
        cwd=folder,
        capture_output=True,
        text=True,
        env=variables,
        check=False,
    )
    assert program.returncode == 0, program.stdout + program.stderr
    return program.stdout


def uv(*arguments: str | Path) -> None:
    """Run uv with the packages of its cache, and ask PyPI only for those that the cache lacks."""
    for options in (["--offline"], []):
        command = [str(UV), "--quiet", *options, *map(str, arguments)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
    raise AssertionError(done.stderr)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this source tree."""
    folder = tmp_path_factory.mktemp("wheel")
    uv("build", "--wheel", "--out-dir", folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has the wheel, and of the lock what the wheel needs."""
    folder = tmp_path_factory.mktemp("environment")
    path = folder / "bin/python"
    locked = folder / "requirements.txt"
    selected = ("--frozen", "--no-default-groups", "--extra", "client", "--no-emit-project")
    uv("export", *selected, "--no-hashes", "--output-file", locked)
    uv("venv", "--allow-existing", "--python", sys.executable, folder)
    uv("pip", "install", "--python", path, "--requirements", locked, f"{wheel}[client]")
    return path


@pytest.fixture(scope="module")
def apps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with APP, and with APP once more for each mistake."""
    folder = tmp_path_factory.mktemp("apps")
    (folder / "app.py").write_text(APP)
    for name, mistake in MISTAKES.items():
        assert APP.count(mistake.right) == 1
        (folder / f"{name}.py").write_text(APP.replace(mistake.right, mistake.wrong))
    return folder


@pytest.fixture(scope="module")
def complaints(python: Path, apps: Path) -> list[str]:
    """The errors of mypy --strict in all apps, by the types of the wheel."""
    mypy = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context"]
    options = ["--config-file=", "--cache-dir", os.devnull]
    done = subprocess.run(
        [*mypy, *options, "--python-executable", str(python), *sorted(apps.glob("*.py"))],
        cwd=apps,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr
    return done.stdout.splitlines()


def test_wheel_holds_the_library_and_its_command(wheel: Path) -> None:
    """The wheel holds only `ledger_core` with its types, its command and its extras."""
    with ZipFile(wheel) as archive:
        names = archive.namelist()
        (info,) = {name.partition("/")[0] for name in names} - {"ledger_core"}
        assert info.endswith(".dist-info")
        assert "ledger_core/py.typed" in names
        assert "ledger = ledger_core.cli:main" in archive.read(f"{info}/entry_points.txt").decode()
        metadata = HeaderParser().parsestr(archive.read(f"{info}/METADATA").decode())
    assert set(metadata.get_all("Provides-Extra", ())) == EXTRAS


def test_command_runs_from_the_wheel(python: Path, tmp_path: Path) -> None:
    """`ledger` is a command of the environment, which has no module `functions`."""
    assert "verify" in run(python.with_name("ledger"), "--help", folder=tmp_path)
    find = "from importlib.util import find_spec; print(find_spec('functions'))"
    assert run(python, "-c", find, folder=tmp_path).strip() == "None"


def test_app_runs_on_the_wheel(python: Path, apps: Path) -> None:
    """The app starts with its own operation and the ledger's routes."""
    program = "import app; print(*app.processor.operations, *app.app.openapi()['paths'])"
    assert {"LEVEL_UP", "/ledger/entry"} <= set(run(python, "-c", program, folder=apps).split())


def test_app_passes_the_type_checker(complaints: list[str]) -> None:
    """mypy --strict finds no error in the app."""
    assert not [line for line in complaints if line.startswith("app.py")]


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_rejected_by_the_type_checker(complaints: list[str], name: str) -> None:
    """mypy --strict finds exactly the error of each mistake."""
    (complaint,) = [line for line in complaints if line.startswith(f"{name}.py")]
    assert complaint.endswith(f"error: {MISTAKES[name].error}")
