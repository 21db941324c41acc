"""`ledger` as a process: its pipes, its terminal, its exit codes, and endpoints that do not answer."""

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
"""So many of the longest do not fit into a pipe that nobody reads."""
OWNERS = 200_000

Done = subprocess.CompletedProcess[bytes]
Run = Callable[..., Done]


@pytest.fixture
def processor(real_client: "DynamoDBClient") -> OperationProcessor:
    return OperationProcessor(create_store(real_client), ExampleAppOperations)


def ledger(*arguments: str, variables: Mapping[str, str | None] = {}, **options: Any) -> Done:
    """The command in a process of its own, with the variables of the test."""
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
    """The command in this process, where it matters only what it does."""

    def run(*arguments: str, variables: Mapping[str, str | None] = {}, input: bytes = b"") -> Done:  # noqa: A002
        for name, value in variables.items():
            monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(
                name, value
            )
        monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(input)))
        code = main(arguments)
        return Done(arguments, code, *capfdbinary.readouterr())

    return run


def reports(done: Done) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def refused(done: Done, line: str, *, code: int = 2) -> None:
    """It said this and nothing else, and nothing of Python."""
    told = done.stderr.decode()
    assert (done.returncode, done.stdout, len(told.splitlines())) == (code, b"", 1), told
    assert told.startswith(f"ledger: {line}"), told
    assert not any(word in told for word in ("Traceback", "<class", "pydantic", "Errno", "Error:"))


@contextmanager
def unread_pipe() -> Iterator[int]:
    """The end of a pipe whose other end is closed already."""
    read, write = os.pipe()
    os.close(read)
    try:
        yield write
    finally:
        os.close(write)


def test_head_of_an_export(processor: OperationProcessor) -> None:
    """Who has read enough closes the pipe in the middle: no word about it, and the exit code that shells know."""
    for number in range(ENTRIES):
        processor.process(
            add(1, f"{number:0128}").model_copy(update={"metadata": {"note": "x" * 500}})
        )
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
    """What fits into Python's buffer fails only at its end, and that is no trouble either."""
    processor.process(add(1, "n"))
    kept_key(tmp_path / "receipts.pem", lambda: ec.generate_private_key(ec.SECP256R1()))
    key: dict[str, str | None] = {"LEDGER_RECEIPT_KEY": str(tmp_path / "receipts.pem")}
    with unread_pipe() as pipe:
        done = ledger(*arguments, variables=key, stdout=pipe)
    assert (done.returncode, b"Exception" in done.stderr) == (code, False), done.stderr


def test_nobody_to_tell() -> None:
    """What cannot be told changes no exit code."""
    with unread_pipe() as pipe:
        assert ledger("export", "a#b", stdout=pipe, stderr=pipe).returncode == 2


def test_output_that_takes_nothing(processor: OperationProcessor) -> None:
    """A disk that is full, and an output that is closed."""
    processor.process(add(1, "n"))
    with open("/dev/full", "wb") as full:
        done = ledger("verify", "ada", stdout=full)
    assert (done.returncode, done.stderr) == (
        2,
        b"ledger: standard output: No space left on device\n",
    )
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
    """An owner may be called anything: what is printed is the same JSON everywhere, and can be verified."""
    processor.process(add(1, "n-ø", owner_id=FOREIGN))
    exported = ledger("export", FOREIGN, variables=terminal)
    assert (exported.returncode, exported.stderr) == (0, b"")
    head, entry = reports(exported)
    assert (head["owner_id"], entry["owner_id"], entry["nonce"]) == (FOREIGN, FOREIGN, "n-ø")
    assert exported.stdout.isascii() == (
        terminal != {"LC_ALL": "C"}
    )  # in which Python takes UTF-8 by itself
    (tmp_path / "export").write_bytes(exported.stdout)
    verified = here("verify", "--file", str(tmp_path / "export"))
    assert (verified.returncode, reports(verified)[0]["owner_id"]) == (0, FOREIGN)
    told = ledger("verify", f"{FOREIGN}-nobody", "--must-exist", variables=terminal)
    assert (told.returncode, NOTE.encode() in told.stderr, b"Traceback" in told.stderr) == (
        1,
        True,
        False,
    )


@contextmanager
def waiting() -> Iterator[tuple["subprocess.Popen[bytes]", IO[bytes], IO[bytes]]]:
    """A command that waits for owners, with its input and its output."""
    pipe = subprocess.PIPE
    with subprocess.Popen([LEDGER, "verify", "-"], stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process, process.stdin, process.stdout


def test_owners_on_standard_input(processor: OperationProcessor) -> None:
    """Each report is there before the next owner is asked for: nothing waits for the end of the list."""
    with waiting() as (process, stdin, stdout):
        for number in range(3):
            processor.process(add(1, "n", owner_id=f"owner-{number}"))
            stdin.write(f"owner-{number}\n".encode())
            stdin.flush()
            assert json.loads(stdout.readline())["owner_id"] == f"owner-{number}"
        stdin.close()
        assert process.wait(SECONDS_MAX) == 0


def test_owners_of_a_file(processor: OperationProcessor, tmp_path: Path, here: Run) -> None:
    """One a line, from any editor: with a byte order mark, other line ends, empty lines, or no last line end."""
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
    assert [(report["owner_id"], report["valid"]) for report in reports(verified)] == [
        ("ada", True),
        (FOREIGN, True),
    ]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (b"a#b\n", "-: line 1: is no owner's id: "),
        (b"\n\nx y\n", "-: line 3: is no owner's id: "),
        (b"\xff\n", "-: line 1: is no owner's id: it is not UTF-8"),
        (b"x" * 2000, "-: line 1: is no owner's id: String should have at most 128 characters"),
        (
            "\u200b".encode(),
            "-: line 1: is no owner's id: must not hold control, format or unassigned characters",
        ),
    ],
)
def test_line_that_names_no_owner(
    processor: OperationProcessor, lines: bytes, told: str, here: Run
) -> None:
    """It is told by its number, and what comes after it is not done."""
    for command in ("export", "verify"):
        refused(here(command, "-", input=lines), told)


def test_all_owners(
    real_client: "DynamoDBClient", processor: OperationProcessor, here: Run
) -> None:
    """Every owner who has a row, also one whose row was cleared or cannot be read."""
    for number in range(5):
        processor.process(add(1, "n", owner_id=f"owner-{number}"))
    table = os.environ["LEDGER_ACCOUNTS_TABLE"]
    real_client.put_item(TableName=table, Item=item_from({"account": "owner-3"}))
    real_client.put_item(TableName=table, Item=item_from({"account": "owner-4", "balance": "lots"}))
    done = here("verify", "--all")
    told = {report["owner_id"]: report["valid"] for report in reports(done)}
    assert told.keys() - {"owner-4"} == {f"owner-{number}" for number in range(4)}
    assert sorted(owner_id for owner_id, valid in told.items() if valid) == [
        "owner-0",
        "owner-1",
        "owner-2",
    ]
    assert done.returncode == 1
    assert "owner-4" in told or b"ledger: owner-4: " in done.stderr
    heads = [row for row in reports(here("export", "--all")) if "head_hash" in row]
    assert {f"owner-{number}" for number in range(4)} <= {head["owner_id"] for head in heads}


def test_accounts_of_a_unit(real_client: "DynamoDBClient", here: Run) -> None:
    """A named owner's account is in CREDIT unless `--unit` says otherwise; `--all` is every unit."""
    processor = OperationProcessor(create_store(real_client), GameOperations)
    processor.process(add(1, "n"))
    processor.process(operation(GameOperationType.FIND_GEM, "n"))

    def accounts(*arguments: str) -> list[tuple[str, str, int]]:
        return sorted(
            (report["owner_id"], report["unit"], report["entries_checked"])
            for report in reports(here("verify", *arguments))
        )

    credit, gems = ("ada", "CREDIT", 1), ("ada", "GEMS", 1)
    assert accounts("ada") == accounts("ada", "--unit", "CREDIT") == [credit]
    assert accounts("ada", "--unit", "GEMS") == [gems]
    assert accounts("--all") == [credit, gems]
    assert accounts("--all", "--unit", "GEMS") == [gems]
    head, entry = reports(here("export", "ada", "--unit", "GEMS"))
    assert (head["v"], head["unit"], entry["unit"], entry["app"]) == (1, "GEMS", "GEMS", "game")
    with pytest.raises(SystemExit):
        here("verify", "ada", "--unit", "gems")


def test_as_many_owners_as_there_are(tmp_path: Path) -> None:
    """Their names are never in memory at once: neither those of a file, nor those of the table, read page by page."""
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
    assert peak < OWNERS  # not one byte each
    owners = chosen_accounts(Namespace(owner_id=[], all=True, owners_file=None, unit=None), some)
    assert (next(owners), pages) == ("1-a", [None])
    assert ([*owners], pages) == (["1-b", "2-a", "2-b", "3-a", "3-b"], [None, "1", "2"])


def test_owner_without_an_entry(processor: OperationProcessor, tmp_path: Path, here: Run) -> None:
    """Nothing contradicts nothing, and a misspelt id has nothing: the report says so, and so do we, or it fails."""
    processor.process(add(1, "n"))
    done = here("verify", "ada", "adda")
    ada, adda = reports(done)
    assert ("note" in ada, adda["note"], adda["valid"], done.returncode) == (False, NOTE, True, 0)
    assert done.stderr == f"ledger: adda: {NOTE}\n".encode()
    assert here("verify", "ada", "--must-exist").returncode == 0
    assert here("verify", "adda", "ada", "--must-exist").returncode == 1
    (tmp_path / "export").write_bytes(here("export", "adda").stdout)
    of_file = here("verify", "--file", str(tmp_path / "export"), "--must-exist")
    assert (of_file.returncode, reports(of_file)[0]["note"]) == (1, NOTE)


def test_receipt_takes_one_file(
    processor: OperationProcessor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: Run
) -> None:
    """The owner who is named after it is the owner."""
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
        assert [(report["owner_id"], report["valid"]) for report in reports(done)] == [
            ("ada", True)
        ], done.stderr
    other = "receipt: is a receipt of the ledger 'ledger', not of 'another'; --issuer names another"
    by_option = here("verify", "ada", "--receipt", "receipt", "--issuer", "another")
    refused(by_option, other)
    variables = {"LEDGER_SERVICE": "another"}
    refused(here("verify", "ada", "--receipt", "receipt", variables=variables), other)


@pytest.mark.parametrize(
    "arguments", [[], ["export"], ["verify"], ["verify", "--all", "ada"], ["nothing"], ["--what"]]
)
def test_arguments_that_make_no_sense(
    arguments: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The parser tells, with 2."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert (stop.value.code, "error: " in capsys.readouterr().err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "variables", "told"),
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
            {"AWS_PROFILE": "nobody"},
            "cannot reach DynamoDB: The config profile (nobody) could not",
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
        (["receipt-key", "broken.pem"], {}, "local: is no private key in PEM"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(
    real_client: "DynamoDBClient",
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    variables: dict[str, str | None],
    told: str,
    here: Run,
) -> None:
    """With 2, never with 1, which says that a ledger does not add up; and in no words of Python's."""
    (tmp_path / "broken.pem").write_text("{}")
    monkeypatch.chdir(tmp_path)
    refused(here(*arguments, variables=variables), told)


def test_installation_that_is_not_whole(tmp_path: Path) -> None:
    """Even what goes wrong before there is a command is told as one that could not be done."""
    (tmp_path / "botocore.py").write_text("import no_such_module")
    variables: dict[str, str | None] = {"PYTHONPATH": str(tmp_path)}
    refused(
        ledger("export", "ada", variables=variables),
        "the installation is not whole: no_such_module cannot be imported",
    )


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            KeyError("hash"),
            "this is a fault of the ledger's own, please report it: KeyError, cli/test_cli.py, line ",
        ),
        (MemoryError(), "there is not enough memory"),
    ],
)
def test_fault_of_its_own(
    client: "DynamoDBClient",
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    told: str,
) -> None:
    """What nobody thought of is 2 as well, in a line that says where it was."""

    def broken(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("ledger_core.wiring.create_client", lambda: client)
    monkeypatch.setattr("ledger_core.cli.ledgers.audit_store", broken)
    assert main(["verify", "ada"]) == 2
    assert capsys.readouterr().err.startswith(f"ledger: {told}")


def test_ledger_that_cannot_be_read_is_not_the_end_of_it(
    client: "DynamoDBClient", monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is told, the others are seen to, and the exit code says that not all was done."""

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
        told = capsys.readouterr()
        assert [json.loads(line)["owner_id"] for line in told.out.splitlines()] == ["ada", "eve"]
        assert "ledger: bob: try again\n" in told.err


def test_interrupted(processor: OperationProcessor) -> None:
    """By Ctrl-C, while it waits for owners."""
    with waiting() as (process, stdin, stdout):
        stdin.write(b"ada\n")
        stdin.flush()
        assert stdout.readline()
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=SECONDS_MAX)
    assert (process.returncode, told.splitlines()[-1][:13]) == (130, b"ledger: ended")


COUNT = ("--dry-run", "--force")
COMMANDS = [
    ["export", "ada"],
    ["verify", "--all"],
    [
        "rewards",
        "--app",
        f"{ExampleAppOperations.__module__}:ExampleAppOperations",
        "--date",
        "2026-11-22",
        *COUNT,
    ],
]


@pytest.mark.parametrize("arguments", COMMANDS)
def test_endpoint_that_does_not_answer_is_named(arguments: list[str], here: Run) -> None:
    """Nobody is there, or somebody who says nothing, or somebody else: it is tried once, and told which endpoint it is.

    How long it waits for one who says nothing is ANSWER_SECONDS_MAX.
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


def test_keys_that_do_not_answer_are_named(here: Run) -> None:
    """KMS as well."""
    variables: dict[str, str | None] = {"AWS_ENDPOINT_URL_KMS": "http://127.0.0.1:9"}
    refused(here("receipt-key", "1" * 36, variables=variables), "no answer from http://127.0.0.1:9")


def connections(server: socket.socket) -> int:
    """How many wait to be accepted."""
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
