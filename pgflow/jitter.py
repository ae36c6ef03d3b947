"""Chance for timing, apart from the program's own: its seed, and what it draws, stay untouched."""

import random

from pgflow.process import after_fork

__all__ = ["uniform"]

_dice = random.Random()  # noqa: S311 -- for timing, not for secrets
after_fork(_dice.seed)  # or the children of one parent would all draw the same


def uniform(low: float, high: float) -> float:
    """Return a number between `low` and `high`, so that many who wait do not wake in step."""
    return _dice.uniform(low, high)
