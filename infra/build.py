"""What `sam build` calls, through make: fill a folder with what a function needs in Lambda, and nothing else.

One artifact runs on both architectures: the one compiled dependency carries its architecture in its file names, so that
both lie side by side. That costs 5 MB, and a stack cannot be deployed to an architecture that was not built for.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
UV = ROOT / ".venv/bin/uv"
LAMBDA_PYTHON = ROOT / ".local/runtime/bin/python"
PACKAGES = ("ledger_core", "functions")
PLATFORMS = ("aarch64-manylinux_2_28", "x86_64-manylinux_2_28")
"""Lambda's Amazon Linux 2023 has glibc 2.34."""
SERVICES = {"dynamodb", "kms", "sqs"}
"""Those of boto3 that are used; what it knows of all the others is more than half of its size."""


def main(artifact: Path) -> None:
    """Build the artifact from uv.lock and this source tree, in an empty folder."""
    if not artifact.is_absolute() or any(artifact.iterdir()):
        sys.exit("ledger: an artifact is built into an empty folder, which `sam build` gives; run `make build`")
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder) / "requirements.txt"
        _uv("export", "--frozen", "--no-default-groups", "--no-emit-project", "--output-file", str(requirements))
        for platform in PLATFORMS:
            target = Path(folder) / platform
            _uv(
                *("pip", "install", "--target", str(target), "--python-platform", platform, "--python-version", "3.13"),
                *("--only-binary", ":all:", "--no-deps", "--require-hashes", "--requirements", str(requirements)),
            )
            _merge(target, artifact)
    _prune(artifact)
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, artifact / package, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True
        )
    # Bytecode that is never checked against its source: nothing is compiled, nor looked at, when a function starts.
    compiling = [str(LAMBDA_PYTHON), "-m", "compileall", "-q", "-f", "-j", "0", "--invalidation-mode", "unchecked-hash"]
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
            raise RuntimeError(f"{path.name} differs between {' and '.join(PLATFORMS)}: one artifact cannot hold both")


def _prune(artifact: Path) -> None:
    """Leave out scripts, and what boto3 knows of other services."""
    shutil.rmtree(artifact / "bin", ignore_errors=True)
    (artifact / ".lock").unlink(missing_ok=True)  # uv's
    for data in (artifact / "botocore/data", artifact / "boto3/data"):
        for service in data.iterdir():
            if service.is_dir() and service.name not in SERVICES:
                shutil.rmtree(service)
    shutil.rmtree(artifact / "boto3/examples", ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
