"""The command `ledger` as a process: pipes, terminals, exit codes and silent endpoints."""

import json
import os
import signal
import socket
import subprocess
import sys
import tracemalloc
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from functions.example_app.operations import ExampleAppOperations
from infra.issuer import kept_key
from ledger_core import UnavailableError
from ledger_core.audit import Receipt, audit_store, export, signed
from ledger_core.cli import main
from ledger_core.cli.ledgers import NOTE
from ledger_core.cli.owners import chosen_accounts
from ledger_core.cli.stores import Ledgers
from ledger_core.dynamodb import Page
from ledger_core.posting import OperationProcessor
from ledger_core.wiring import create_receipt_key, create_store
from tests.fakes.apps import GameOperations, GameOperationType
from tests.support import NOON, add, item_from, operation

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

pytestmark = pytest.mark.slow

LEDGER = str(Path(sys.executable).parent / "ledger")
SECONDS_MAX = 60
FOREIGN = "añø-日本-😀"
ENTRIES = 300
"""This many of the longest entries do not fit into the buffer of a pipe."""
OWNERS = 200_000

Done = subprocess.CompletedProcess[bytes]
Run = Callable[..., Done]


@pytest.fixture
def processor(real_client: "DynamoDBClient") -> OperationProcessor:
    return OperationProcessor(create_store(real_client), ExampleAppOperations)


def ledger(*arguments: str, variables: Mapping[str, str | None] = {}, **options: Any) -> Done:
    """Run the command in a process of its own."""
    environment = {
        name: value for name, value in {**os.environ, **variables}.items() if value is not None
    }
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    if "input" not in streams:
        streams["stdin"] = subprocess.DEVNULL
    done: Done = subprocess.run(
        [LEDGER, *arguments], env=environment, timeout=SECONDS_MAX, check=False, **streams
    )
    return done


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    """Run the command in this process."""

    def run(*arguments: str, variables: Mapping[str, str | None] = {}, input: bytes = b"") -> Done:  # noqa: A002
        for name, value in variables.items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(input)))
        code = main(arguments)
        return Done(arguments, code, *capfdbinary.readouterr())

    return run


def reports(done: Done) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def refused(done: Done, line: str, *, code: int = 2) -> None:
    """Check that the command printed only an error, without words of Python."""
    error = done.stderr.decode()
    assert (done.returncode, done.stdout, len(error.splitlines())) == (code, b"", 1), error
    assert error.startswith(f"ledger: {line}"), error
    assert not any(word in error for word in ("Traceback", "<class", "pydantic", "Errno", "Error:"))


@contextmanager
def unread_pipe() -> Iterator[int]:
    """The write end of a pipe whose read end is closed."""
    read, write = os.pipe()
    os.close(read)
    try:
        yield write
    finally:
        os.close(write)


def test_head_of_an_export(processor: OperationProcessor) -> None:
    """If the reader closes the pipe, the command ends silently with exit code 141."""
    for number in range(ENTRIES):
        request = add(1, f"{number:0128}").model_copy(update={"metadata": {"note": "x" * 500}})
        processor.process(request)
    command = '"$0" export ada | head -1; echo "${PIPESTATUS[0]}"'
    done = subprocess.run(
        ["bash", "-c", command, LEDGER], capture_output=True, timeout=SECONDS_MAX, check=False
    )
    head, code = done.stdout.splitlines()
    assert (json.loads(head)["entry_count"], code, done.stderr) == (ENTRIES, b"141", b"")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["export", "ada"], 141),
        (["verify", "ada"], 141),
        (["receipt-key"], 141),
        (["--help"], 0),
        (["export", "a#"], 2),
    ],
)
def test_pipe_that_was_never_read(
    processor: OperationProcessor, tmp_path: Path, arguments: list[str], code: int
) -> None:
    """A closed pipe is handled even if the output fits into Python's buffer."""
    processor.process(add(1, "n"))
    kept_key(tmp_path / "receipts.pem", lambda: ec.generate_private_key(ec.SECP256R1()))
    key: dict[str, str | None] = {"LEDGER_RECEIPT_KEY": str(tmp_path / "receipts.pem")}
    with unread_pipe() as pipe:
        done = ledger(*arguments, variables=key, stdout=pipe)
    assert (done.returncode, b"Exception" in done.stderr) == (code, False), done.stderr


def test_closed_standard_error_changes_no_exit_code() -> None:
    """An error that cannot be printed keeps its exit code."""
    with unread_pipe() as pipe:
        assert ledger("export", "a#b", stdout=pipe, stderr=pipe).returncode == 2


def test_failed_output_is_an_error(processor: OperationProcessor) -> None:
    """A full disk and a closed output are errors with exit code 2."""
    processor.process(add(1, "n"))
    with open("/dev/full", "wb") as full:
        done = ledger("verify", "ada", stdout=full)
    assert done.returncode == 2
    assert done.stderr == b"ledger: standard output: No space left on device\n"
    command = ["bash", "-c", '"$0" "$@" >&-', LEDGER, "export", "ada"]
    done = subprocess.run(command, capture_output=True, timeout=SECONDS_MAX, check=False)
    refused(done, "standard output is closed")


@pytest.mark.parametrize(
    "terminal",
    [
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "ascii:strict"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "C"},
    ],
)
def test_terminal_that_lacks_characters(
    processor: OperationProcessor, tmp_path: Path, here: Run, terminal: dict[str, str | None]
) -> None:
    """An owner id with any characters is printed as JSON, which can be verified."""
    processor.process(add(1, "n-ø", owner_id=FOREIGN))
    exported = ledger("export", FOREIGN, variables=terminal)
    assert (exported.returncode, exported.stderr) == (0, b"")
    head, entry = reports(exported)
    assert (head["owner_id"], entry["owner_id"], entry["nonce"]) == (FOREIGN, FOREIGN, "n-ø")
    is_utf_8 = terminal == {"LC_ALL": "C"}  # Python chooses UTF-8 here
    assert exported.stdout.isascii() != is_utf_8
    (tmp_path / "export").write_bytes(exported.stdout)
    verified = here("verify", "--file", str(tmp_path / "export"))
    assert (verified.returncode, reports(verified)[0]["owner_id"]) == (0, FOREIGN)
    missing = ledger("verify", f"{FOREIGN}-unknown", "--must-exist", variables=terminal)
    assert missing.returncode == 1
    assert NOTE.encode() in missing.stderr
    assert b"Traceback" not in missing.stderr


@contextmanager
def waiting() -> Iterator[tuple["subprocess.Popen[bytes]", IO[bytes], IO[bytes]]]:
    """A command that waits for owners, with its input and its output."""
    pipe = subprocess.PIPE
    with subprocess.Popen([LEDGER, "verify", "-"], stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process, process.stdin, process.stdout


def test_owners_on_standard_input(processor: OperationProcessor) -> None:
    """Each report is printed before the next owner is read."""
    with waiting() as (process, stdin, stdout):
        for number in range(3):
            processor.process(add(1, "n", owner_id=f"owner-{number}"))
            stdin.write(f"owner-{number}\n".encode())
            stdin.flush()
            assert json.loads(stdout.readline())["owner_id"] == f"owner-{number}"
        stdin.close()
        assert process.wait(SECONDS_MAX) == 0


def test_owners_of_a_file(processor: OperationProcessor, tmp_path: Path, here: Run) -> None:
    """A file has an owner a line, in the line ends and the byte order mark of any editor."""
    for owner_id in ("ada", FOREIGN, "-"):
        processor.process(add(1, "n", owner_id=owner_id))
    lines = f"\ufeffada\r\n\n{FOREIGN}\n-".encode()
    (tmp_path / "owners").write_bytes(lines)
    for file in ("-", str(tmp_path / "owners")):
        done = here("verify", "--must-exist", "--owners-file", file, input=lines)
        assert [report["owner_id"] for report in reports(done)] == ["ada", FOREIGN, "-"]
        assert (done.returncode, done.stderr) == (0, b"")
    exported = here("export", "ada", "-", input=FOREIGN.encode())
    assert [row["owner_id"] for row in reports(exported)] == ["ada", "ada", FOREIGN, FOREIGN]
    verified = here("verify", "--file", "-", input=exported.stdout)
    verdicts = [(report["owner_id"], report["valid"]) for report in reports(verified)]
    assert verdicts == [("ada", True), (FOREIGN, True)]


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        (b"a#b\n", "-: line 1: is not an owner's id: "),
        (b"\n\nx y\n", "-: line 3: is not an owner's id: "),
        (b"\xff\n", "-: line 1: is not an owner's id: must be UTF-8"),
        (b"x" * 2000, "-: line 1: is not an owner's id: String should have at most 128 characters"),
        (
            "\u200b".encode(),
            "-: line 1: is not an owner's id: "
            "must not hold control, format or unassigned characters",
        ),
    ],
)
def test_line_without_an_owner_id_is_refused(
    processor: OperationProcessor, lines: bytes, error: str, here: Run
) -> None:
    """The error has the number of the line, and the lines after it are not read."""
    for command in ("export", "verify"):
        refused(here(command, "-", input=lines), error)


def test_all_owners(
    real_client: "DynamoDBClient", processor: OperationProcessor, here: Run
) -> None:
    """`--all` has each owner with a row, also with an empty or malformed row."""
    for number in range(5):
        processor.process(add(1, "n", owner_id=f"owner-{number}"))
    table = os.environ["LEDGER_ACCOUNTS_TABLE"]
    real_client.put_item(TableName=table, Item=item_from({"account": "owner-3"}))
    real_client.put_item(TableName=table, Item=item_from({"account": "owner-4", "balance": "lots"}))
    done = here("verify", "--all")
    verdicts = {report["owner_id"]: report["valid"] for report in reports(done)}
    assert verdicts.keys() - {"owner-4"} == {f"owner-{number}" for number in range(4)}
    valid = sorted(owner_id for owner_id, is_valid in verdicts.items() if is_valid)
    assert valid == ["owner-0", "owner-1", "owner-2"]
    assert done.returncode == 1
    assert "owner-4" in verdicts or b"ledger: owner-4: " in done.stderr
    heads = [row for row in reports(here("export", "--all")) if "head_hash" in row]
    assert {f"owner-{number}" for number in range(4)} <= {head["owner_id"] for head in heads}


def test_accounts_of_a_unit(real_client: "DynamoDBClient", here: Run) -> None:
    """The unit of a named owner is CREDIT or that of `--unit`; `--all` has every unit."""
    processor = OperationProcessor(create_store(real_client), GameOperations)
    processor.process(add(1, "n"))
    processor.process(operation(GameOperationType.FIND_GEM, "n"))

    def accounts(*arguments: str) -> list[tuple[str, str, int]]:
        return sorted(
            (report["owner_id"], report["unit"], report["entries_checked"])
            for report in reports(here("verify", *arguments))
        )

    credit = ("ada", "CREDIT", 1)
    gems = ("ada", "GEMS", 1)
    assert accounts("ada") == accounts("ada", "--unit", "CREDIT") == [credit]
    assert accounts("ada", "--unit", "GEMS") == [gems]
    assert accounts("--all") == [credit, gems]
    assert accounts("--all", "--unit", "GEMS") == [gems]
    head, entry = reports(here("export", "ada", "--unit", "GEMS"))
    assert (head["v"], head["unit"], entry["unit"], entry["app"]) == (1, "GEMS", "GEMS", "game")
    with pytest.raises(SystemExit):
        here("verify", "ada", "--unit", "gems")


def test_many_owners_take_little_memory(tmp_path: Path) -> None:
    """The owner ids of a file or a table are not in memory at once."""
    (tmp_path / "owners").write_text("".join(f"owner-{number:0100}\n" for number in range(OWNERS)))
    pages: list[str | None] = []

    class Store:
        def accounts(self, *, start: str | None, **_: Any) -> Page:
            pages.append(start)
            return Page(
                [],
                {},
                str(len(pages)) if len(pages) < 3 else None,
                [f"{len(pages)}-a", f"{len(pages)}-b"],
            )

    some: Any = Ledgers(Store(), lambda call: call(), "")  # type: ignore[arg-type]
    of_file = Namespace(owner_id=[], all=False, owners_file=str(tmp_path / "owners"), unit=None)
    tracemalloc.start()
    assert sum(1 for _ in chosen_accounts(of_file, some)) == OWNERS
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < OWNERS  # less than 1 byte for each owner
    owners = chosen_accounts(Namespace(owner_id=[], all=True, owners_file=None, unit=None), some)
    assert (next(owners), pages) == ("1-a", [None])
    assert ([*owners], pages) == (["1-b", "2-a", "2-b", "3-a", "3-b"], [None, "1", "2"])


def test_owner_without_an_entry(processor: OperationProcessor, tmp_path: Path, here: Run) -> None:
    """The report of an owner without entries has a note, and fails with `--must-exist`."""
    processor.process(add(1, "n"))
    done = here("verify", "ada", "adda")
    ada, adda = reports(done)
    assert "note" not in ada
    assert (adda["note"], adda["valid"], done.returncode) == (NOTE, True, 0)
    assert done.stderr == f"ledger: adda: {NOTE}\n".encode()
    assert here("verify", "ada", "--must-exist").returncode == 0
    assert here("verify", "adda", "ada", "--must-exist").returncode == 1
    (tmp_path / "export").write_bytes(here("export", "adda").stdout)
    of_file = here("verify", "--file", str(tmp_path / "export"), "--must-exist")
    assert (of_file.returncode, reports(of_file)[0]["note"]) == (1, NOTE)


def test_receipt_takes_one_file(
    processor: OperationProcessor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: Run
) -> None:
    """`--receipt` takes a file, and the argument after it is an owner."""
    kept_key(tmp_path / "receipts.pem", lambda: ec.generate_private_key(ec.SECP256R1()))
    monkeypatch.setenv("LEDGER_RECEIPT_KEY", str(tmp_path / "receipts.pem"))
    processor.process(add(1, "n"))
    key = create_receipt_key()
    assert key
    receipt = signed(
        Receipt.of(processor.store.account("ada", consistent=True).head, NOON, "ledger"), key
    )
    (tmp_path / "receipt").write_text(receipt)
    monkeypatch.chdir(tmp_path)
    for arguments in (
        ["ada", "--receipt", "receipt"],
        ["--receipt", "receipt", "--receipt", "receipt", "ada"],
    ):
        done = here("verify", *arguments)
        (report,) = reports(done)
        assert (report["owner_id"], report["valid"]) == ("ada", True), done.stderr
    other = "receipt: is a receipt of the ledger 'ledger', not of 'another'; --issuer names another"
    by_option = here("verify", "ada", "--receipt", "receipt", "--issuer", "another")
    refused(by_option, other)
    variables = {"LEDGER_SERVICE": "another"}
    refused(here("verify", "ada", "--receipt", "receipt", variables=variables), other)


@pytest.mark.parametrize(
    "arguments", [[], ["export"], ["verify"], ["verify", "--all", "ada"], ["nothing"], ["--what"]]
)
def test_invalid_arguments_are_refused(
    arguments: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The parser prints an error, with exit code 2."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert (stop.value.code, "error: " in capsys.readouterr().err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "variables", "error"),
    [
        (["export", "ada"], {"LEDGER_ENTRIES_TABLE": None}, "LEDGER_ENTRIES_TABLE is not set"),
        (
            ["export", "ada"],
            {"LEDGER_AUTH": "maybe"},
            "LEDGER_AUTH must be one of jwt, none: 'maybe'",
        ),
        (
            ["export", "ada"],
            {"AWS_ENDPOINT_URL_DYNAMODB": "nowhere"},
            "cannot reach DynamoDB: Invalid endpoint",
        ),
        (
            ["export", "ada"],
            {"AWS_PROFILE": "missing"},
            "cannot reach DynamoDB: The config profile (missing) could not",
        ),
        (["export", "ada"], {"LEDGER_ENTRIES_TABLE": "no-such-table"}, "DynamoDB refused: "),
        (["verify", "--file", "/nowhere"], {}, "/nowhere: No such file or directory"),
        (["verify", "--file", "/"], {}, "/: Is a directory"),
        (["verify", "--file", "/dev/null"], {}, "/dev/null: line 1: the export is empty"),
        (["verify", "--owners-file", "/nowhere"], {}, "/nowhere: No such file or directory"),
        (
            ["verify", "ada", "--receipt", "/nowhere", "--key", "/dev/null"],
            {},
            "/dev/null: holds no public keys",
        ),
        (
            ["verify", "ada", "--receipt", "/dev/null"],
            {"LEDGER_RECEIPT_KEY": "/nowhere.pem"},
            "/nowhere.pem: No such",
        ),
        (["receipt-key"], {}, "LEDGER_RECEIPT_KEY is not set"),
        (["receipt-key", "broken.pem"], {}, "local: is not a private key in PEM"),
    ],
)
def test_command_that_cannot_run_prints_an_error(
    real_client: "DynamoDBClient",
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    variables: dict[str, str | None],
    error: str,
    here: Run,
) -> None:
    """The exit code is 2, because 1 means an invalid ledger; the error is a line."""
    (tmp_path / "broken.pem").write_text("{}")
    monkeypatch.chdir(tmp_path)
    refused(here(*arguments, variables=variables), error)


def test_incomplete_installation_is_an_error(tmp_path: Path) -> None:
    """A failed import ends the command with exit code 2 and an error."""
    (tmp_path / "botocore.py").write_text("import no_such_module")
    variables: dict[str, str | None] = {"PYTHONPATH": str(tmp_path)}
    refused(
        ledger("export", "ada", variables=variables),
        "installation: no_such_module cannot be imported; install shared-ledger again",
    )


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            KeyError("hash"),
            "this is a bug of the ledger, please report it: KeyError, cli/test_cli.py, line ",
        ),
        (MemoryError(), "memory: there is not enough; run it on a larger machine"),
    ],
)
def test_bug_of_the_command_is_an_error(
    client: "DynamoDBClient",
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    message: str,
) -> None:
    """An unexpected error ends the command with exit code 2 and a line with its place."""

    def broken(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("ledger_core.wiring.create_client", lambda: client)
    monkeypatch.setattr("ledger_core.cli.ledgers.audit_store", broken)
    assert main(["verify", "ada"]) == 2
    assert capsys.readouterr().err.startswith(f"ledger: {message}")


def test_unreadable_ledger_does_not_end_the_command(
    client: "DynamoDBClient", monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other owners are read, and the exit code is 2."""

    def failing(do: Any) -> Any:
        def call(store: Any, owner_id: str, **arguments: Any) -> Any:
            if owner_id == "bob":
                raise UnavailableError("try again")
            return do(store, owner_id, **arguments)

        return call

    monkeypatch.setattr("ledger_core.wiring.create_client", lambda: client)
    monkeypatch.setattr("ledger_core.cli.ledgers.audit_store", failing(audit_store))
    monkeypatch.setattr("ledger_core.cli.ledgers.export", failing(export))
    for command in ("verify", "export"):
        assert main([command, "ada", "bob", "eve"]) == 2
        printed = capsys.readouterr()
        owner_ids = [json.loads(line)["owner_id"] for line in printed.out.splitlines()]
        assert owner_ids == ["ada", "eve"]
        assert "ledger: bob: try again\n" in printed.err


def test_interrupted_command_ends(processor: OperationProcessor) -> None:
    """Ctrl-C ends a command that waits for owners, with exit code 130."""
    with waiting() as (process, stdin, stdout):
        stdin.write(b"ada\n")
        stdin.flush()
        assert stdout.readline()
        process.send_signal(signal.SIGINT)
        _, printed = process.communicate(timeout=SECONDS_MAX)
    assert process.returncode == 130
    assert printed.splitlines()[-1].startswith(b"ledger: ended")


APP = f"{ExampleAppOperations.__module__}:ExampleAppOperations"
COMMANDS = [
    ["export", "ada"],
    ["verify", "--all"],
    ["rewards", "--app", APP, "--date", "2026-11-22", "--dry-run", "--force"],
]


@pytest.mark.parametrize("arguments", COMMANDS)
def test_endpoint_that_does_not_answer_is_named(arguments: list[str], here: Run) -> None:
    """A silent, a closed and a foreign endpoint are tried once and named in the error.

    The command waits ANSWER_SECONDS_MAX for a silent endpoint.
    """
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        done = here(*arguments, variables={"AWS_ENDPOINT_URL_DYNAMODB": endpoint})
        refused(done, f"no answer from {endpoint}")
        assert connections(silent) == 1
    done = here(*arguments, variables={"AWS_ENDPOINT_URL_DYNAMODB": endpoint})
    refused(done, f"no answer from {endpoint}")
    with socket.create_server(("127.0.0.1", 0)) as other, ThreadPoolExecutor(1) as thread:
        endpoint = f"http://127.0.0.1:{other.getsockname()[1]}"
        thread.submit(answer_once, other, b"<html>Please log in</html>")
        refused(here(*arguments, variables={"AWS_ENDPOINT_URL_DYNAMODB": endpoint}), "")


def test_endpoint_of_kms_that_does_not_answer_is_named(here: Run) -> None:
    """The error names an endpoint of KMS that does not answer."""
    variables: dict[str, str | None] = {"AWS_ENDPOINT_URL_KMS": "http://127.0.0.1:9"}
    refused(here("receipt-key", "1" * 36, variables=variables), "no answer from http://127.0.0.1:9")


def connections(server: socket.socket) -> int:
    """The number of connections that wait to be accepted."""
    server.setblocking(False)
    count = 0
    while True:
        try:
            server.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


def answer_once(server: socket.socket, body: bytes) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
