"""A caller's requests about schedules as values: see `pgflow.client.commands`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pgflow.client.commands import Command
from pgflow.core.definition.schedule import Schedule
from pgflow.core.models.schedule import ScheduledRun, ScheduleInfo

__all__ = [
    "AddSchedule",
    "BackfillSchedule",
    "ListSchedules",
    "NextInstants",
    "PauseSchedule",
    "RemoveSchedule",
    "ResumeSchedule",
    "RunSchedule",
    "ScheduleCommand",
]


class ScheduleCommand:
    """A command about schedules."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class AddSchedule(ScheduleCommand, Command[None]):
    """Add a schedule, or with `replace` put it in the place of one that was added before."""

    schedule: Schedule
    replace: bool = False
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class PauseSchedule(ScheduleCommand, Command[None]):
    """Pause a schedule; `paused_by` is shown, by default the database role."""

    name: str
    paused_by: str | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class ResumeSchedule(ScheduleCommand, Command[None]):
    """Resume a paused schedule, from the first instant after now."""

    name: str
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class RemoveSchedule(ScheduleCommand, Command[None]):
    """Remove a schedule; with `force` also one that an app declares."""

    name: str
    force: bool = False
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class RunSchedule(ScheduleCommand, Command[ScheduledRun]):
    """Start a run of a schedule now."""

    name: str
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class BackfillSchedule(ScheduleCommand, Command[list[ScheduledRun]]):
    """Start the runs of the instants from `start` to `end`, which is excluded; with `dry_run` only return them."""

    name: str
    start: datetime
    end: datetime
    dry_run: bool = False
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class ListSchedules(ScheduleCommand, Command[list[ScheduleInfo]]):
    """Read all schedules, or the one named `name`."""

    name: str | None = None


@dataclass(frozen=True, slots=True)
class NextInstants(ScheduleCommand, Command[list[datetime]]):
    """Compute the next instants of a schedule, as if it were not paused."""

    name: str
    count: int
