"""Servers that run beside us on this machine: on loopback ports, and ended when we end."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

__all__ = ["free_port", "has_port", "own_port", "running"]

START_SECONDS_MAX = 60
# The server, and a watch that ends it when the pipe ends; whichever ends first, the other follows.
BESIDE = """
exec 3<&0
"$@" </dev/null 3<&- & server=$!
{ cat <&3; kill $server; } 2>/dev/null & watch=$!
exec 3<&- </dev/null
wait $server
kill $watch 2>/dev/null
"""


def free_port() -> int:
    """A loopback port that nobody has just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def has_port(port: int) -> bool:
    """Whether the loopback port can be had."""
    try:
        _try(port)
        return True
    except (OSError, OverflowError):
        return False


def own_port(port: int, name: str = "PORT") -> int:
    """The port, if it can be had; else this ends the program with one line, which names make's variable for it."""
    try:
        _try(port)
    except (OSError, OverflowError) as error:
        sys.exit(
            f"ledger: port {port} cannot be had ({error}); choose another, as in: make run {name}=8001"
        )
    return port


@contextlib.contextmanager
def running(
    name: str,
    command: Sequence[str],
    *,
    port: int,
    log: Path,
    folder: Path | None = None,
    environment: Mapping[str, str] = os.environ,
    pass_fds: Sequence[int] = (),
) -> Iterator[None]:
    """Run a server until the end of the block, which begins when it listens on `port`.

    It ends with this process however that ends: a shell beside it waits for the end of a pipe that we hold.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            ["sh", "-c", BESIDE, name, *command],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,  # so that Ctrl-C reaches us alone, and we end in order
            pass_fds=pass_fds,
        )
        assert process.stdin is not None
        try:
            _wait_for(name, port, log, process)
            yield
        finally:
            process.stdin.close()
            process.wait()


def _try(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))


def _wait_for(name: str, port: int, log: Path, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{name} did not start: see {log}") from None
            time.sleep(0.05)
