"""Values for the payloads of NOTIFY: the one place that knows how they are encoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, assert_never

__all__ = ["CheckCancels", "Notification", "QueueReady", "SweepRequested", "decode", "encode"]

# Neither is the name of a queue. SQL functions send "" as well: cancel.sql and put.sql.
CHECK_CANCELS = ""
SWEEP = "!"


@dataclass(frozen=True, slots=True)
class QueueReady:
    """A queue may have a ready job."""

    queue: str


@dataclass(frozen=True, slots=True)
class CheckCancels:
    """An instance has ended or was replaced: its jobs that run somewhere were taken from their workers."""


@dataclass(frozen=True, slots=True)
class SweepRequested:
    """Every worker sweeps at once, and so checks for an announced migration."""


Notification: TypeAlias = QueueReady | CheckCancels | SweepRequested


def encode(notification: Notification) -> str:
    """Return a notification's payload."""
    match notification:
        case QueueReady(queue):
            return queue
        case CheckCancels():
            return CHECK_CANCELS
        case SweepRequested():
            return SWEEP
    assert_never(notification)


def decode(payload: str) -> Notification:
    """Return what a payload notifies of. Any other text is taken for a queue: payloads can be forged."""
    match payload:
        case "":
            return CheckCancels()
        case "!":
            return SweepRequested()
        case queue:
            return QueueReady(queue)
