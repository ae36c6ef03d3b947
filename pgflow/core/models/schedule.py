"""What backends store and callers read about schedules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Literal, TypeAlias

from pgflow.core.definition.timing import Timing

__all__ = [
    "CatchUp",
    "Overlap",
    "ScheduleInfo",
    "ScheduleSpec",
    "ScheduleState",
    "ScheduledRun",
    "TargetKind",
    "instant_text",
]

Overlap: TypeAlias = Literal["skip", "queue", "cancel_old", "allow"]
CatchUp: TypeAlias = Literal["none", "last", "all"]
TargetKind: TypeAlias = Literal["workflow", "task"]
ScheduleState: TypeAlias = Literal["active", "paused", "overdue", "undeclared", "ended"]


@dataclass(frozen=True, slots=True)
class ScheduleSpec:
    """A validated schedule: what to start when.

    `input` is the input of a workflow or the arguments of a task as JSON text, None for none. `value` is the template
    of a workflow's business value.
    """

    name: str
    target: str
    kind: TargetKind
    timing: Timing
    input: str | None = None
    value: str = "{name}@{instant}"
    overlap: Overlap = "skip"
    catch_up: CatchUp = "last"
    jitter: timedelta = timedelta(0)

    def value_at(self, instant: datetime) -> str:
        """Return the business value of the run of an instant: "nightly@2030-01-31T09:00:00Z"."""
        return self.value.replace("{name}", self.name).replace("{instant}", instant_text(instant))

    def metadata_at(self, instant: datetime) -> dict[str, Any]:
        """Return the metadata of that run: which schedule started it, and for which instant."""
        return {"schedule": self.name, "scheduled_for": instant_text(instant)}

    def start_at(self, instant: datetime) -> datetime:
        """Return when that run may start: at its instant, or with jitter up to that much later.

        The delay depends on name and instant only, so a second computation gives the same one.
        """
        if not self.jitter:
            return instant
        digest = sha256(f"{self.name} {instant_text(instant)}".encode()).digest()
        microseconds = self.jitter // timedelta(microseconds=1)
        return instant + timedelta(microseconds=int.from_bytes(digest[:8]) * microseconds >> 64)


@dataclass(frozen=True, slots=True)
class ScheduleInfo:
    """A schedule, as `app.schedules.list()` returns it.

    - `name`; `target`, the workflow or task that it starts, and its `kind`; `timing`: when (`str(timing)` is the
      expression). `overlap`, `catch_up`, `jitter`: see `schedule`.
    - `input`: the workflow's input or the task's arguments, as JSON; None if it has none.
    - `state`: "active"; "paused" (`paused_at`, `paused_by`); "overdue": its time passed more than a minute ago and no
      worker took it, since none that runs knows the target and declares the schedule; "undeclared": a worker of a
      later release of the app runs that does not declare it (`undeclared_at`); "ended": no instant follows.
    - `next_at`: the next instant, None until a worker has computed it; `last_at`: the last instant that was started,
      as `last_run` (a run id, or a task's id).
    - `fired`, `skipped`, `missed`: how many instants were started, skipped because an earlier run was active, and
      dropped after they were missed.
    - `last_error`: why the last start was refused, with `reason` and `at`; None if it was not.
    - `declared_by`: the app whose code declares it, None if it was added at run time.
    """

    name: str
    target: str
    kind: TargetKind
    timing: Timing
    input: Any
    value: str
    overlap: Overlap
    catch_up: CatchUp
    jitter: timedelta
    state: ScheduleState
    created_at: datetime
    next_at: datetime | None = None
    last_at: datetime | None = None
    last_run: int | None = None
    last_error: Mapping[str, Any] | None = None
    fired: int = 0
    skipped: int = 0
    missed: int = 0
    paused_at: datetime | None = None
    paused_by: str | None = None
    declared_by: str | None = None
    last_declared_at: datetime | None = None
    undeclared_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ScheduledRun:
    """The run of one instant, that a call has started: `run` is the run id of the instance, or the task's id.

    `created` is False if that run was active already, or it is one of a dry run (`run` is None then).
    """

    instant: datetime
    run: int | None
    created: bool = True


def instant_text(instant: datetime) -> str:
    """Return an instant in UTC: "2030-01-31T09:00:00Z"."""
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")
