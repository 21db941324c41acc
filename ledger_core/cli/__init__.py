"""The command `ledger`: export and verify accounts, print the keys of receipts, grant rewards."""

import sys
import traceback
from collections.abc import Sequence

from ledger_core.cli import output
from ledger_core.cli.codes import INTERRUPTED, NOT_DONE, PIPE_CLOSED

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        0 for success; 1 if an account is not valid or an owner could not be rewarded; 2 if the
        command failed; 130 if it was interrupted; 141 if the reader of its output closed the pipe.
    """
    try:
        return _run(arguments)
    except BrokenPipeError:
        return PIPE_CLOSED
    except KeyboardInterrupt:
        output.complain("ended: what is done stays done; run it again for the rest")
        return INTERRUPTED
    except SystemExit as stop:
        if not isinstance(stop.code, str):
            raise  # of the parser, which has printed its message or the help
        output.complain(stop.code.removeprefix("ledger: "))
        return NOT_DONE
    except Exception as error:
        output.complain(_message(error))
        return NOT_DONE
    finally:
        output.settle()


def _run(arguments: Sequence[str] | None) -> int:
    output.prepare()
    # Imported here so that `main` reports a failure of an import like any other.
    from ledger_core.cli.commands import run

    code = run(arguments)
    output.flush()
    return code


def _message(error: Exception) -> str:
    """A line that describes an error."""
    if isinstance(error, OSError) and (reason := error.strerror or str(error)):
        return f"{error.filename}: {reason}" if error.filename else reason
    if isinstance(error, ImportError):
        module = error.name or "a module"
        return f"installation: {module} cannot be imported; install shared-ledger again"
    if isinstance(error, MemoryError):
        return "memory: there is not enough; run it on a larger machine"
    *_, place = traceback.extract_tb(error.__traceback__)
    file = "/".join(place.filename.split("/")[-2:])
    fault = f"{type(error).__name__}, {file}, line {place.lineno}"
    return f"this is a bug of the ledger, please report it: {fault}"


if __name__ == "__main__":
    sys.exit(main())
