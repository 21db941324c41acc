"""What tests that leave things to chance have in common: the seed, and how Hypothesis is to look for trouble."""

import os
from random import SystemRandom
from typing import Any

from hypothesis import settings

__all__ = ["SEED", "looking_at"]

SEED = int(os.environ.get("SEED") or SystemRandom().randrange(10**9))
"""Another one each run; the variable SEED makes a run again."""


def looking_at(examples: int, **more: Any) -> settings:
    """So many examples, none of them kept; a failure prints the `@reproduce_failure` that repeats it alone."""
    return settings(max_examples=examples, deadline=None, derandomize=False, database=None, print_blob=True, **more)
