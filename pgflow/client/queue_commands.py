"""A caller's requests on queues and limits as values, like those of `pgflow.client.commands`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from pgflow.client.commands import Command
from pgflow.core.models.queue import Limit, Queue

__all__ = [
    "ClearLimit",
    "CountRunning",
    "DrainQueue",
    "ListLimits",
    "ListQueues",
    "PauseQueue",
    "QueueCommand",
    "ResumeQueue",
    "ScaleQueue",
    "SetLimit",
]

R_co = TypeVar("R_co", covariant=True)


class QueueCommand(Command[R_co]):
    """A request on queues or limits."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class PauseQueue(QueueCommand[None]):
    """Pause a queue, on one node or (None) on all."""

    queue: str
    node: str | None = None
    by: str | None = None


@dataclass(frozen=True, slots=True)
class ResumeQueue(QueueCommand[bool]):
    """End the pause of a queue, that of one node or (None) of all. The answer is whether there was one."""

    queue: str
    node: str | None = None


@dataclass(frozen=True, slots=True)
class ScaleQueue(QueueCommand[None]):
    """Set how many jobs of a queue each worker runs at once; None: as many as it was started with."""

    queue: str
    worker_concurrency: int | None
    node: str | None = None


@dataclass(frozen=True, slots=True)
class DrainQueue(QueueCommand[int]):
    """Pause a queue unless it is paused. The answer is how many of its jobs run."""

    queue: str
    node: str | None = None
    by: str | None = None


@dataclass(frozen=True, slots=True)
class CountRunning(QueueCommand[int]):
    """Count the jobs of a queue that run, on one node or (None) on all."""

    queue: str
    node: str | None = None


@dataclass(frozen=True, slots=True)
class ListQueues(QueueCommand[list[Queue]]):
    """Read the queues in use, or one of them."""

    queue: str | None = None


@dataclass(frozen=True, slots=True)
class SetLimit(QueueCommand[None]):
    """Set limits of a queue, or of one partition key; None leaves one as it is. Rates are starts per second."""

    queue: str
    concurrency: int | None = None
    key_concurrency: int | None = None
    rate: float | None = None
    burst: int | None = None
    key_rate: float | None = None
    key_burst: int | None = None
    key: str | None = None
    weight: int | None = None
    is_new: bool = False


@dataclass(frozen=True, slots=True)
class ClearLimit(QueueCommand[bool]):
    """Remove the limits of a queue, or of one partition key. The answer is whether there were any."""

    queue: str
    key: str | None = None


@dataclass(frozen=True, slots=True)
class ListLimits(QueueCommand[list[Limit]]):
    """Read the limits of all queues, or of one."""

    queue: str | None = None
