"""Where the command prints: JSON to standard output, messages for people to standard error. Either may be closed.

Where standard output is not UTF-8 the JSON is ASCII, with escapes: the same text, whatever the terminal's characters.
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
"""Handles what an encoding has no character for, as JSON does within its strings; elsewhere there is no such thing."""


class OutputError(OSError):
    """What was to be printed could not be."""


def prepare() -> None:
    """Make standard output fit for JSON.

    Raises:
        OutputError: it is closed.
    """
    codecs.register_error(ESCAPING, _escaped)
    if sys.stdout is None:
        raise OutputError("standard output is closed")
    if isinstance(sys.stdout, TextIOWrapper):
        is_utf8 = codecs.lookup(sys.stdout.encoding).name == "utf-8"
        sys.stdout.reconfigure(encoding="utf-8" if is_utf8 else "ascii", errors=ESCAPING)


def show(line: str) -> None:
    """Print a line of JSON.

    Raises:
        BrokenPipeError: nobody reads it.
        OutputError: it cannot be written.
    """
    with _named():
        print(line)


def flush() -> None:
    """Hand over what was printed. Raises as `show`."""
    with _named():
        sys.stdout.flush()


def say(line: str) -> None:
    """Tell people something."""
    print(line, file=sys.stderr)


def complain(message: str) -> None:
    """Tell people in one line why a command ends, if anybody can be told."""
    with contextlib.suppress(OSError):
        say(f"ledger: {' '.join(message.split())}")


def settle() -> None:
    """Leave nothing to print at the end of the process that cannot be printed then."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except OSError:
            with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())


@contextlib.contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"standard output: {error.strerror}") from None


def _escaped(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end
