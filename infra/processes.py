"""Runs servers on loopback ports of this machine. They end with this process."""

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
# The shell runs the server, and a watch that ends the server when the pipe ends.
# When the server ends first, the shell ends the watch.
SERVE_UNTIL_PIPE_ENDS = """
exec 3<&0
"$@" </dev/null 3<&- & server=$!
{ cat <&3; kill $server; } 2>/dev/null & watch=$!
exec 3<&- </dev/null
wait $server
kill $watch 2>/dev/null
"""


def free_port() -> int:
    """A loopback port that no process uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def has_port(port: int) -> bool:
    """Whether the loopback port is free."""
    try:
        _try(port)
        return True
    except (OSError, OverflowError):
        return False


def own_port(port: int, name: str = "PORT") -> int:
    """The port, if it is free; else end the program with an error.

    Args:
        port: the port that the user wants.
        name: make's variable for it, which the error names.
    """
    try:
        _try(port)
    except (OSError, OverflowError) as error:
        sys.exit(
            f"ledger: port {port} is not free ({error}); "
            f"choose another, as in: make run {name}=8001"
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
    """Run a server until the end of the block, which begins when the server listens on `port`.

    The server ends with this process, also when this process is killed: a shell beside the server
    waits for the end of a pipe that this process holds.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            ["sh", "-c", SERVE_UNTIL_PIPE_ENDS, name, *command],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C reaches only this process, which ends the server
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
