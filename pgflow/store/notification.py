"""Values for the payloads of NOTIFY: the one place that knows how they are encoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, assert_never

__all__ = ["CheckCancels", "Notification", "QueueReady", "QueuesChanged", "SweepRequested", "decode", "encode"]

# None is the name of a queue. SQL functions send "" and "*" as well: cancel.sql, put.sql, queues.sql and limits.sql.
CHECK_CANCELS = ""
SWEEP = "!"
QUEUES = "*"


@dataclass(frozen=True, slots=True)
class QueueReady:
    """A queue may have a ready job."""

    queue: str


@dataclass(frozen=True, slots=True)
class CheckCancels:
    """An instance has ended or was replaced: its jobs that run somewhere were taken from their workers."""


@dataclass(frozen=True, slots=True)
class SweepRequested:
    """Every worker sweeps at once, and so checks for an announced migration and for due jobs."""


@dataclass(frozen=True, slots=True)
class QueuesChanged:
    """A queue was paused, resumed or scaled, or its limits were changed: every worker reads its queues again."""


Notification: TypeAlias = QueueReady | CheckCancels | SweepRequested | QueuesChanged


def encode(notification: Notification) -> str:
    """Return a notification's payload."""
    match notification:
        case QueueReady(queue):
            return queue
        case CheckCancels():
            return CHECK_CANCELS
        case SweepRequested():
            return SWEEP
        case QueuesChanged():
            return QUEUES
    assert_never(notification)


def decode(payload: str) -> Notification:
    """Return what a payload notifies of. Any other text is taken for a queue: payloads can be forged."""
    match payload:
        case "":
            return CheckCancels()
        case "!":
            return SweepRequested()
        case "*":
            return QueuesChanged()
        case queue:
            return QueueReady(queue)
