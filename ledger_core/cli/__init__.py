"""`ledger`, for people: export ledgers, verify them in the store or in an export, with receipts; grant rewards."""

import sys
import traceback
from collections.abc import Sequence

from ledger_core.cli import output
from ledger_core.cli.codes import INTERRUPTED, NOT_DONE, PIPE_CLOSED

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 when all is well, 1 when a ledger does not add up or an owner could not be rewarded, 2 when the command could
        not be done, 130 when it was interrupted, 141 when nobody reads its output any more.
    """
    try:
        return _run(arguments)
    except BrokenPipeError:
        return PIPE_CLOSED
    except KeyboardInterrupt:
        output.complain("ended; what was done stays done, run it again for the rest")
        return INTERRUPTED
    except SystemExit as stop:
        if not isinstance(stop.code, str):
            raise  # the parser's: it has told what is wrong, or was asked for help
        output.complain(stop.code.removeprefix("ledger: "))
        return NOT_DONE
    except Exception as error:
        output.complain(_told(error))
        return NOT_DONE
    finally:
        output.settle()


def _run(arguments: Sequence[str] | None) -> int:
    output.prepare()
    from ledger_core.cli.commands import (
        run,
    )  # so that what goes wrong with an import is told as well

    code = run(arguments)
    output.flush()
    return code


def _told(error: Exception) -> str:
    """One line about it."""
    if isinstance(error, OSError) and (reason := error.strerror or str(error)):
        return f"{error.filename}: {reason}" if error.filename else reason
    if isinstance(error, ImportError):
        return f"the installation is not whole: {error.name or 'a module'} cannot be imported"
    if isinstance(error, MemoryError):
        return "there is not enough memory"
    *_, place = traceback.extract_tb(error.__traceback__)
    file = "/".join(place.filename.split("/")[-2:])
    return f"this is a fault of the ledger's own, please report it: {type(error).__name__}, {file}, line {place.lineno}"


if __name__ == "__main__":
    sys.exit(main())
