"""Chance for timing, apart from the program's own: its seed, and what it draws, stay untouched."""

import random

__all__ = ["uniform"]

_dice = random.Random()  # noqa: S311 -- for timing, not for secrets


def uniform(low: float, high: float) -> float:
    """Return a number between `low` and `high`, so that many who wait do not wake in step."""
    return _dice.uniform(low, high)
