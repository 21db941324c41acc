"""Imported first by what Lambda starts: until `over`, Python looks for no garbage, for there is none among modules.

The objects of the imports stay, so garbage collection leaves them out, in Lambda and in a server.
"""

import gc

__all__ = ["over"]

gc.disable()


def over() -> None:
    """All is imported and made."""
    gc.freeze()
    gc.enable()
