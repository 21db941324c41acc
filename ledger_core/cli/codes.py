"""The exit codes of the command. What could not be done is never told like what was found to be wrong."""

__all__ = ["DONE", "INTERRUPTED", "NOT_DONE", "PIPE_CLOSED", "WRONG"]

DONE = 0
WRONG = 1
"""A ledger does not add up, or an owner could not be rewarded."""
NOT_DONE = 2
"""The command could not be done, or not for all, for whatever reason."""
INTERRUPTED = 130
PIPE_CLOSED = 141
"""What a shell tells of a program that SIGPIPE ended."""
