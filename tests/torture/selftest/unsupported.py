"""Require a printable reason for a fault that this machine does not support."""

from __future__ import annotations

import re

__all__ = ["is_unsupported"]


def is_unsupported(reason: str | None) -> bool:
    """Whether a fault is unsupported, with a reason that a report can print."""
    assert reason is None or re.fullmatch(r"\S.{10,}", reason, re.DOTALL)
    return reason is not None
