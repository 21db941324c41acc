"""The exit codes of the command. A command that fails never exits like one that finds a fault."""

__all__ = ["DONE", "INTERRUPTED", "NOT_DONE", "PIPE_CLOSED", "WRONG"]

DONE = 0
WRONG = 1
"""An account is not valid, or an owner could not be rewarded."""
NOT_DONE = 2
"""The command failed, for some accounts or for all."""
INTERRUPTED = 130
PIPE_CLOSED = 141
"""The exit code that shells give to a program which SIGPIPE ended."""
