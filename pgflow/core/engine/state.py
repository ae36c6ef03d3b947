"""The types of the engine: the state of an instance, the events that change it, and the commands that follow."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, TypeAlias

from pgflow.core.definition.graph import Graph
from pgflow.core.values.append_map import AppendMap

__all__ = [
    "ACTIVE",
    "SKIPPED",
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
    "Paused",
    "Retried",
    "ScheduleResume",
    "Skipped",
    "State",
    "Status",
]

Status: TypeAlias = Literal["pending", "running", "waiting", "completed", "failed", "cancelled"]
ACTIVE: frozenset[Status] = frozenset({"pending", "running", "waiting"})

NONE: frozenset[str] = frozenset()
SKIPPED = "skipped"  # the event of a step that was skipped because it failed; its completion has no targets


@dataclass(frozen=True, slots=True)
class Completion:
    """How a step completed: its event, and the targets that were taken; none if it failed and was skipped."""

    event: str
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an instance failed; `step` is None if no step caused it."""

    step: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class State:
    """The state of an instance: a pure function of its graph and the results of its steps.

    `active` steps run or wait; `waiting` are those that wait, also for an operator, `timers` those with a timer. `done`
    has each completed step, including Done and those that failed and were skipped, and `skipped` the steps that no
    branch can reach.
    """

    graph: Graph
    status: Status
    done: AppendMap[str, Completion]
    active: frozenset[str] = NONE
    waiting: frozenset[str] = NONE
    skipped: frozenset[str] = NONE
    timers: frozenset[str] = NONE
    error: Failure | None = None
    pointers: dict[str, int] = field(default_factory=dict, repr=False, compare=False)  # cache of machine._join_starts


# Events: what has happened.


@dataclass(frozen=True, slots=True)
class Begun:
    """The instance has started."""


@dataclass(frozen=True, slots=True)
class Completed:
    """A step completed; `targets` are those that a route chose, `by_timer` is True if a timer ended its wait."""

    step: str
    event: str
    targets: tuple[str, ...] | None = None
    by_timer: bool = False


@dataclass(frozen=True, slots=True)
class Parked:
    """A step waits; after `delay`, if there is one, a timer completes it with `timeout_event`."""

    step: str
    delay: timedelta | None = None
    timeout_event: str | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """A step failed for the last time, and its policy is to go on without its branch: its edges are dead."""

    step: str


@dataclass(frozen=True, slots=True)
class Paused:
    """A step failed for the last time, and its policy is to wait for an operator."""

    step: str


@dataclass(frozen=True, slots=True)
class Retried:
    """An operator retries a step that was paused."""

    step: str


@dataclass(frozen=True, slots=True)
class Failed:
    """A step failed for the last time, or the instance failed (`step` is None)."""

    step: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The instance was cancelled."""


Event: TypeAlias = Begun | Completed | Parked | Skipped | Paused | Retried | Failed | Cancelled


# Commands: what the caller has to do.


@dataclass(frozen=True, slots=True)
class Execute:
    """Run a step with this configuration."""

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
    """Cancel the step's timer."""

    step: str


@dataclass(frozen=True, slots=True)
class Complete:
    """Record that the instance has reached Done."""


@dataclass(frozen=True, slots=True)
class Fail:
    """Record that the instance has failed; its other steps stop."""

    error: Failure


Command: TypeAlias = Execute | ScheduleResume | CancelTimer | Complete | Fail
