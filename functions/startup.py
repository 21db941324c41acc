"""Imported first by what Lambda starts. Imports make no garbage, so Python looks for none until `finish_startup`.

The objects of the imports stay. Garbage collection leaves them out afterwards, in Lambda and in a server.
"""

import gc

__all__ = ["finish_startup"]

gc.disable()


def finish_startup() -> None:
    """Turn garbage collection on; call it once all is imported."""
    gc.freeze()
    gc.enable()
