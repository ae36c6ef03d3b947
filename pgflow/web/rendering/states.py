"""The label and the icon of each state. A state is always shown by icon, word and colour together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["STATES", "Look"]


class Look(NamedTuple):
    """How a state is shown; its colours are those of the class `s-<state>`."""

    label: str
    icon: str


STATES: Mapping[str, Look] = {
    "running": Look("Running", "turn"),
    "completed": Look("Completed", "check"),
    "waiting": Look("Waiting", "wait"),
    "retrying": Look("Retrying", "retry"),
    "failed": Look("Failed", "fail"),
    "held": Look("Held", "hand"),
    "ready": Look("Ready", "ready"),
    "scheduled": Look("Scheduled", "clock"),
    "pending": Look("Pending", "clock"),
    "cancelled": Look("Cancelled", "cancel"),
    "skipped": Look("Skipped", "skip"),
    "idle": Look("Not reached", "hollow"),
    "paused": Look("Paused", "pause"),
    "draining": Look("Draining", "drain"),
    "lost": Look("Lease expired", "lost"),
    "problem": Look("Problem", "fail"),
    "note": Look("Note", "warn"),
}
