"""Turns garbage collection off while the modules of a Lambda function are imported.

Import this module first, and call `finish_startup` last. Imports create no garbage, and their
objects stay: garbage collection skips them from then on, in Lambda and in a server.
"""

import gc

__all__ = ["finish_startup"]

gc.disable()


def finish_startup() -> None:
    """Turn garbage collection on again. Call it after the last import."""
    gc.freeze()
    gc.enable()
