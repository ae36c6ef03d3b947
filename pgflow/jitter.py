"""Random numbers for timing, from a generator of their own: the application's generator and seed stay untouched."""

import random

from pgflow.process import after_fork

__all__ = ["uniform"]

_random = random.Random()  # noqa: S311 -- for timing, not for secrets
after_fork(_random.seed)  # or the children of one parent would draw the same numbers


def uniform(low: float, high: float) -> float:
    """Return a number between `low` and `high`, so that clients and workers do not wake in step."""
    return _random.uniform(low, high)
