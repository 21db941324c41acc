"""Print JSON to standard output, and messages for people to standard error. Either may be closed.

If standard output is not UTF-8, the JSON is ASCII with escapes, which means the same.
"""

import codecs
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from io import TextIOWrapper

__all__ = ["OutputError", "complain", "flush", "prepare", "say", "settle", "show"]

ESCAPING = "ledger-json"
"""The handler of characters that an encoding lacks: in a string, it writes JSON's escapes."""


class OutputError(OSError):
    """Standard output takes no text."""


def prepare() -> None:
    """Set the encoding of standard output for JSON.

    Raises:
        OutputError: standard output is closed.
    """
    codecs.register_error(ESCAPING, _escaped)
    if sys.stdout is None:
        raise OutputError("standard output is closed")
    if isinstance(sys.stdout, TextIOWrapper):
        encoding = codecs.lookup(sys.stdout.encoding).name
        if encoding != "utf-8":
            encoding = "ascii"
        sys.stdout.reconfigure(encoding=encoding, errors=ESCAPING)


def show(line: str) -> None:
    """Print a line of JSON.

    Raises:
        BrokenPipeError: the reader closed the pipe.
        OutputError: the line cannot be written.
    """
    with _output_errors():
        print(line)


def flush() -> None:
    """Flush standard output. Raises as `show`."""
    with _output_errors():
        sys.stdout.flush()


def say(line: str) -> None:
    """Print a message for people."""
    print(line, file=sys.stderr)


def complain(message: str) -> None:
    """Print a line for people that says what failed, if standard error is open."""
    with contextlib.suppress(OSError):
        say(f"ledger: {' '.join(message.split())}")


def settle() -> None:
    """Flush both streams, and drop text that cannot be written: Python would fail at its exit."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except OSError:
            with contextlib.suppress(OSError), open(os.devnull, "wb") as devnull:
                os.dup2(devnull.fileno(), stream.fileno())


@contextlib.contextmanager
def _output_errors() -> Iterator[None]:
    """Turn an OSError of standard output into an OutputError."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"standard output: {error.strerror}") from None


def _escaped(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end
