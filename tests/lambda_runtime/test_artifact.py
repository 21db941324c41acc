"""The artifact: the ledger and its runtime dependencies, with bytecode, for both architectures."""

import re
import struct
import subprocess
import sys
from importlib.util import MAGIC_NUMBER
from pathlib import Path

import pytest

from infra.build import LAMBDA_PYTHON, UV
from tests.lambda_runtime.emulator import BUILT, FUNCTIONS
from tests.support import ROOT

SIZE_BYTES_MAX = 28_000_000
"""Unpacked. Lambda takes 250 MB; what is small starts fast."""
UNCHECKED_HASH = 0b01
MACHINES = {"x86_64": 62, "aarch64": 183}
"""By ELF's numbers."""


@pytest.fixture(params=FUNCTIONS)
def artifact(request: pytest.FixtureRequest) -> Path:
    return BUILT / str(request.param)


def files(artifact: Path) -> list[Path]:
    return [path for path in artifact.rglob("*") if path.is_file()]


def name(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def test_artifact_holds_the_locked_runtime_dependencies_and_no_other(artifact: Path) -> None:
    """Each distribution has the version that uv.lock has for the runtime; no dev tool is in it."""
    command = [
        str(UV),
        "export",
        "--frozen",
        "--quiet",
        "--no-default-groups",
        "--no-emit-project",
        "--no-hashes",
    ]
    exported = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    wanted = dict(re.findall(r"^([a-z0-9-]+)==([^ ;\n]+)", exported, flags=re.MULTILINE))
    built = dict(
        path.name.removesuffix(".dist-info").rsplit("-", 1) for path in artifact.glob("*.dist-info")
    )
    assert {
        name(distribution): version for distribution, version in built.items()
    }.items() <= wanted.items()
    assert {"boto3", "fastapi", "mangum", "pydantic"} <= {name(one) for one in built}


def test_artifact_holds_the_ledger_as_it_is_here(artifact: Path) -> None:
    """`ledger_core` and `functions`, file by file, and nothing else of the repository."""
    for package in ("ledger_core", "functions"):
        here = {
            path.relative_to(ROOT): path.read_bytes() for path in (ROOT / package).rglob("*.py")
        }
        built = {
            path.relative_to(artifact): path.read_bytes()
            for path in (artifact / package).rglob("*.py")
        }
        assert built == here
    tops = {path.name for path in artifact.iterdir()}
    assert not tops & {
        "tests",
        "infra",
        "bin",
        ".venv",
        ".local",
        ".git",
        "README.md",
        "template.yaml",
        "pyproject.toml",
    }
    assert not [
        path
        for path in files(artifact)
        if {"test", "tests"} & set(path.relative_to(artifact).parts)
    ]


@pytest.mark.parametrize(
    ("library", "services"),
    [("botocore", {"dynamodb", "kms", "sqs"}), ("boto3", {"dynamodb", "sqs"})],
)
def test_artifact_knows_no_service_but_those_it_calls(
    artifact: Path, library: str, services: set[str]
) -> None:
    """What boto3 knows of hundreds of other services stays out."""
    assert {
        path.name for path in (artifact / library / "data").iterdir() if path.is_dir()
    } == services


def test_artifact_has_bytecode_that_is_never_checked(artifact: Path) -> None:
    """Each module has bytecode of Lambda's Python, which loads without a look at the source."""
    program = "import importlib.util, sys; sys.stdout.buffer.write(importlib.util.MAGIC_NUMBER)"
    magic = subprocess.run(
        [str(LAMBDA_PYTHON), "-c", program], capture_output=True, check=True
    ).stdout
    assert len(magic) == len(MAGIC_NUMBER)
    sources = [path for path in files(artifact) if path.suffix == ".py"]
    assert len(sources) > 500
    for source in sources:
        bytecode = (source.parent / "__pycache__" / f"{source.stem}.cpython-313.pyc").read_bytes()
        assert (bytecode[:4], bytecode[4]) == (magic, UNCHECKED_HASH), source


def test_artifact_runs_on_both_architectures(artifact: Path) -> None:
    """Each compiled module is there for either, and says so in its header."""
    modules: dict[Path, set[int]] = {}
    for path in files(artifact):
        if ".so" in path.suffixes:
            (machine,) = struct.unpack_from("<H", path.read_bytes(), 18)
            modules.setdefault(path.parent / path.name.partition(".")[0], set()).add(machine)
            assert (
                f"-{next(name for name, number in MACHINES.items() if number == machine)}-"
                in path.name
            )
    assert modules
    assert all(machines == set(MACHINES.values()) for machines in modules.values())


def test_artifact_is_small(artifact: Path) -> None:
    """It grows only if somebody says so here."""
    size = sum(path.stat().st_size for path in files(artifact))
    print(f"\nArtifact: {size / 1e6:.1f} MB unpacked, {len(files(artifact))} files")
    assert size < SIZE_BYTES_MAX


@pytest.mark.parametrize(
    ("region", "variables"),
    [
        ("us-east-1", {}),
        ("cn-north-1", {}),
        ("us-gov-west-1", {"AWS_USE_FIPS_ENDPOINT": "true"}),
        ("eu-central-1", {"AWS_USE_DUALSTACK_ENDPOINT": "true"}),
        ("xx-nowhere-9", {}),
    ],
)
def test_artifact_s_clients_go_where_those_of_the_whole_botocore_go(
    region: str, variables: dict[str, str]
) -> None:
    """The reduced table of endpoints gives the same endpoints for the services in use."""
    program = (
        "import sys; from botocore.session import Session\n"
        "calls = {'dynamodb': 'describe_limits', 'kms': 'list_keys', 'sqs': 'list_queues'}\n"
        "for name, call in calls.items():\n"
        "    client = Session().create_client(name, sys.argv[1])\n"
        "    events = client.meta.events\n"
        "    events.register(f'before-send.{name}', lambda request, **_: sys.exit(request.url))\n"
        "    try: getattr(client, call)()\n"
        "    except SystemExit as url: print(url)\n"
    )
    keys = {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_EC2_METADATA_DISABLED": "true",
        **variables,
    }
    told = [
        subprocess.run(
            [python, "-c", program, region],
            env=keys,
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
        for python, folder in ((str(LAMBDA_PYTHON), BUILT / "ApiFunction"), (sys.executable, ROOT))
    ]
    cut, whole = ([url.strip("/") for url in one.stdout.split()] for one in told)
    assert cut == whole
    assert all(region in url for url in cut)
    assert len(cut) == 3
