"""`sam build` calls this through make: it fills a folder with all that a function needs in Lambda.

One artifact runs on both architectures: the only compiled dependency has its architecture in its
file names, so that the files of both fit in one folder. That costs 5 MB.
"""

import gzip
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
UV = ROOT / ".venv/bin/uv"
LAMBDA_PYTHON = ROOT / ".local/runtime/bin/python"
PACKAGES = ("ledger_core", "functions")
PLATFORMS = ("aarch64-manylinux_2_28", "x86_64-manylinux_2_28")
"""Lambda's Amazon Linux 2023 has glibc 2.34."""
SERVICES = {"dynamodb", "kms", "sqs"}
"""The services that the functions call. The other services are more than half of boto3's size."""
MODELS = ("service-2.json.gz", "endpoint-rule-set-1.json.gz", "paginators-1.json")
"""The files from which boto3 creates a client."""

EXPORT = ("export", "--frozen", "--no-default-groups", "--no-emit-project", "--output-file")
INSTALL = (
    *("pip", "install", "--python-version", "3.13", "--only-binary", ":all:"),
    *("--no-deps", "--require-hashes"),
)
# Lambda neither compiles the modules at a start nor compares bytecode with its source.
COMPILE = (
    *("-m", "compileall", "-q", "-f", "-j", "0"),
    *("--invalidation-mode", "unchecked-hash"),
)


def main(artifact: Path) -> None:
    """Build the artifact from uv.lock and this source tree, in an empty folder."""
    if not artifact.is_absolute() or any(artifact.iterdir()):
        sys.exit("ledger: the artifact needs an empty folder, which `sam build` makes: make build")
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder) / "requirements.txt"
        _uv(*EXPORT, str(requirements))
        for platform in PLATFORMS:
            target = Path(folder) / platform
            _uv(
                *INSTALL,
                *("--target", str(target)),
                *("--python-platform", platform),
                *("--requirements", str(requirements)),
            )
            _merge(target, artifact)
    _prune(artifact)
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package,
            artifact / package,
            ignore=shutil.ignore_patterns("__pycache__", "openapi.json", "*.md"),
            dirs_exist_ok=True,
        )
    paths = ("-s", str(artifact), "-p", "/var/task", str(artifact))
    subprocess.run([str(LAMBDA_PYTHON), *COMPILE, *paths], check=True)


def _uv(*arguments: str) -> None:
    subprocess.run([str(UV), "--quiet", *arguments], check=True)


def _merge(source: Path, artifact: Path) -> None:
    """Add the files of one platform. A compiled file must be the same on both platforms."""
    for path in source.rglob("*"):
        place = artifact / path.relative_to(source)
        if path.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        elif not place.exists():
            shutil.copy2(path, place)
        elif ".so" in path.suffixes and path.read_bytes() != place.read_bytes():
            raise RuntimeError(
                f"{path.name}: differs between {' and '.join(PLATFORMS)}; "
                "one artifact cannot hold both"
            )


def _prune(artifact: Path) -> None:
    """Delete scripts, pydantic's copy of version 1, and boto3's data of unused services."""
    shutil.rmtree(artifact / "bin", ignore_errors=True)
    (artifact / ".lock").unlink(missing_ok=True)  # written by uv
    shutil.rmtree(artifact / "pydantic/v1")  # without it FastAPI looks for no models of version 1
    shutil.rmtree(artifact / "boto3/examples")
    for data in (artifact / "botocore/data", artifact / "boto3/data"):
        for service in data.iterdir():
            if service.is_dir() and service.name not in SERVICES:
                shutil.rmtree(service)
    data = artifact / "botocore/data"
    for model in data.glob("*/*/*"):
        if model.name not in MODELS:
            model.unlink()
        elif model.suffix == ".gz":
            definition = json.loads(gzip.decompress(model.read_bytes()))
            _write(model.with_suffix(""), _without_documentation(definition))
            model.unlink()
    endpoints = json.loads((data / "endpoints.json").read_text())
    for partition in endpoints["partitions"]:
        services = partition["services"]
        partition["services"] = {name: services[name] for name in SERVICES & services.keys()}
    _write(data / "endpoints.json", endpoints)


def _without_documentation(model: Any) -> Any:
    """A service's model without its texts, which are most of the data that a new client reads."""
    if isinstance(model, list):
        return [_without_documentation(value) for value in model]
    if not isinstance(model, dict):
        return model
    return {
        name: _without_documentation(value)
        for name, value in model.items()
        if name != "documentation" or not isinstance(value, str)
    }


def _write(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, separators=(",", ":")))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
