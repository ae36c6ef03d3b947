"""Hold a fault that this machine cannot produce to saying why."""

from __future__ import annotations

import re

__all__ = ["is_impossible"]


def is_impossible(reason: str | None) -> bool:
    """Whether a fault cannot be had, for a reason that a report can print; there is nothing to be tested then."""
    assert reason is None or re.fullmatch(r"\S.{10,}", reason, re.DOTALL)
    return reason is not None
