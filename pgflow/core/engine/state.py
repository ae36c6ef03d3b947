"""The words of the engine: where an instance stands, what has happened to it, and what is to be done."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, TypeAlias

from pgflow.core.definition.graph import Graph
from pgflow.core.values.append_map import AppendMap

__all__ = [
    "ACTIVE",
    "Begun",
    "CancelTimer",
    "Cancelled",
    "Command",
    "Complete",
    "Completed",
    "Completion",
    "Event",
    "Execute",
    "Fail",
    "Failed",
    "Failure",
    "Parked",
    "ScheduleResume",
    "State",
    "Status",
]

Status: TypeAlias = Literal["pending", "running", "waiting", "completed", "failed", "cancelled"]
ACTIVE: frozenset[Status] = frozenset({"pending", "running", "waiting"})

NONE: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Completion:
    """How a step ended: its event, and the targets that this took."""

    event: str
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an instance failed; `step` is None when no step is to blame."""

    step: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class State:
    """Where an instance stands: a pure function of its graph and of what its steps came to.

    `active` steps run or wait, those in `waiting` wait, those in `timers` have a timer; `done` holds each completed
    step, Done itself included, and `skipped` those that no branch can reach any more.
    """

    graph: Graph
    status: Status
    done: AppendMap[str, Completion]
    active: frozenset[str] = NONE
    waiting: frozenset[str] = NONE
    skipped: frozenset[str] = NONE
    timers: frozenset[str] = NONE
    error: Failure | None = None
    pointers: dict[str, int] = field(default_factory=dict, repr=False, compare=False)  # hints for joins: engine._fate


# Events: what has happened.


@dataclass(frozen=True, slots=True)
class Begun:
    """The instance begins."""


@dataclass(frozen=True, slots=True)
class Completed:
    """A step completed with an event; `targets` are a route's choice, `by_timer` says that its timer ended its wait."""

    step: str
    event: str
    targets: tuple[str, ...] | None = None
    by_timer: bool = False


@dataclass(frozen=True, slots=True)
class Parked:
    """A step waits; with a delay it will complete with `timeout_event` by itself."""

    step: str
    delay: timedelta | None = None
    timeout_event: str | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """A step failed for good, or the instance did (None)."""

    step: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Somebody cancelled the instance."""


Event: TypeAlias = Begun | Completed | Parked | Failed | Cancelled


# Commands: what is to be done.


@dataclass(frozen=True, slots=True)
class Execute:
    """Run a step, with the configuration that it has now."""

    step: str
    config: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class ScheduleResume:
    """Complete the step with `event` after `delay`, unless something else completes it first."""

    step: str
    delay: timedelta
    event: str


@dataclass(frozen=True, slots=True)
class CancelTimer:
    """Forget the step's timer."""

    step: str


@dataclass(frozen=True, slots=True)
class Complete:
    """Record that the instance has reached Done."""


@dataclass(frozen=True, slots=True)
class Fail:
    """Record that the instance has failed; nothing of it runs any more."""

    error: Failure


Command: TypeAlias = Execute | ScheduleResume | CancelTimer | Complete | Fail
