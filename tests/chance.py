"""The seed of the tests that use random values, and the settings of Hypothesis."""

from typing import Any

from hypothesis import settings

from tests.support import new_seed

__all__ = ["SEED", "looking_at"]

SEED = new_seed()
"""The seed of all tests of a process, which print it."""


def looking_at(examples: int, **options: Any) -> settings:
    """Settings with a number of examples. A failure prints the `@reproduce_failure` for it."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=False,
        database=None,
        print_blob=True,
        **options,
    )
