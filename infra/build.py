"""What `sam build` calls, through make: fill a folder with what a function needs in Lambda, and nothing else.

One artifact runs on both architectures: the one compiled dependency carries its architecture in its file names, so that
both lie side by side. That costs 5 MB, and a stack cannot be deployed to an architecture that was not built for.
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
"""Those of boto3 that are used; what it knows of all the others is more than half of its size."""
MODELS = ("service-2.json.gz", "endpoint-rule-set-1.json.gz", "paginators-1.json")
"""What a client is made from."""


def main(artifact: Path) -> None:
    """Build the artifact from uv.lock and this source tree, in an empty folder."""
    if not artifact.is_absolute() or any(artifact.iterdir()):
        sys.exit(
            "ledger: an artifact is built into an empty folder, which `sam build` gives; run `make build`"
        )
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder) / "requirements.txt"
        _uv(
            "export",
            "--frozen",
            "--no-default-groups",
            "--no-emit-project",
            "--output-file",
            str(requirements),
        )
        for platform in PLATFORMS:
            target = Path(folder) / platform
            _uv(
                *(
                    "pip",
                    "install",
                    "--target",
                    str(target),
                    "--python-platform",
                    platform,
                    "--python-version",
                    "3.13",
                ),
                *(
                    "--only-binary",
                    ":all:",
                    "--no-deps",
                    "--require-hashes",
                    "--requirements",
                    str(requirements),
                ),
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
    # Bytecode that is never checked against its source: nothing is compiled, nor looked at, when a function starts.
    compiling = [
        str(LAMBDA_PYTHON),
        "-m",
        "compileall",
        "-q",
        "-f",
        "-j",
        "0",
        "--invalidation-mode",
        "unchecked-hash",
    ]
    subprocess.run([*compiling, "-s", str(artifact), "-p", "/var/task", str(artifact)], check=True)


def _uv(*arguments: str) -> None:
    subprocess.run([str(UV), "--quiet", *arguments], check=True)


def _merge(source: Path, artifact: Path) -> None:
    """Add the files of one platform; two platforms may have the same file only if it is not compiled."""
    for path in source.rglob("*"):
        place = artifact / path.relative_to(source)
        if path.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        elif not place.exists():
            shutil.copy2(path, place)
        elif ".so" in path.suffixes and path.read_bytes() != place.read_bytes():
            raise RuntimeError(
                f"{path.name} differs between {' and '.join(PLATFORMS)}: one artifact cannot hold both"
            )


def _prune(artifact: Path) -> None:
    """Leave out scripts, what pydantic has for its first version, and what boto3 knows of other services."""
    shutil.rmtree(artifact / "bin", ignore_errors=True)
    (artifact / ".lock").unlink(missing_ok=True)  # uv's
    shutil.rmtree(
        artifact / "pydantic/v1"
    )  # FastAPI imports it to see that no model is one of these
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
            _write(
                model.with_suffix(""),
                _without_documentation(json.loads(gzip.decompress(model.read_bytes()))),
            )
            model.unlink()
    endpoints = json.loads((data / "endpoints.json").read_text())
    for partition in endpoints["partitions"]:
        services = partition["services"]
        partition["services"] = {name: services[name] for name in SERVICES & services.keys()}
    _write(data / "endpoints.json", endpoints)


def _without_documentation(model: Any) -> Any:
    """A service's model less the texts in it, which are most of what a client would read when it is made."""
    if isinstance(model, dict):
        texts = {
            name
            for name, value in model.items()
            if name == "documentation" and isinstance(value, str)
        }
        return {
            name: _without_documentation(value)
            for name, value in model.items()
            if name not in texts
        }
    return [_without_documentation(one) for one in model] if isinstance(model, list) else model


def _write(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, separators=(",", ":")))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
