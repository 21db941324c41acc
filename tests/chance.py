"""What tests that leave things to chance have in common: the seed, and how Hypothesis is to look for trouble."""

from typing import Any

from hypothesis import settings

from tests.support import new_seed

__all__ = ["SEED", "looking_at"]

SEED = new_seed()
"""One for all tests of a process, which print it."""


def looking_at(examples: int, **more: Any) -> settings:
    """So many examples, none of them kept; a failure prints the `@reproduce_failure` that repeats it alone."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=False,
        database=None,
        print_blob=True,
        **more,
    )
