"""Declare in code when to start which workflow or task."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, get_args

from pgflow.core.definition.task import DefinedTask
from pgflow.core.definition.timing import Timing, parse_timing
from pgflow.core.definition.unique import validate_value
from pgflow.core.definition.workflow import DefinedWorkflow
from pgflow.core.models.schedule import CatchUp, Overlap, ScheduleSpec
from pgflow.core.values.absent import ABSENT, Absent
from pgflow.core.values.duration import plain
from pgflow.core.values.names import SEPARATOR, is_event
from pgflow.core.values.query_args import refuse
from pgflow.errors import DefinitionError, InvalidValue

__all__ = ["Schedule", "check_schedule_name", "check_schedules", "schedule"]

VALUE = "{name}@{instant}"
ANY_INSTANT = datetime.fromisoformat("2000-01-01T00:00:00.000001+00:00")


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """When to start which workflow or task: what `schedule` returns, for `Pgflow(…, schedules=[…])`."""

    name: str
    timing: Timing
    target: Any
    args: Any | Absent
    value: str
    overlap: Overlap
    catch_up: CatchUp
    jitter: timedelta

    @property
    def target_name(self) -> str:
        """The name of the workflow or task."""
        return self.target if isinstance(self.target, str) else str(self.target.name)

    def spec(self, kind: Any, text: str | None) -> ScheduleSpec:
        """Return what is stored of it; `text` is `args` as JSON text."""
        options = (self.value, self.overlap, self.catch_up, self.jitter)
        return ScheduleSpec(self.name, self.target_name, kind, self.timing, text, *options)


def schedule(
    when: Any,
    target: Any,
    *,
    name: str | None = None,
    tz: Any = None,
    args: Any | Absent = ABSENT,
    value: str | None = None,
    overlap: Overlap = "skip",
    catch_up: CatchUp = "last",
    jitter: timedelta | None = None,
) -> Schedule:
    """Declare when to start a workflow or a task; give it to the app: `Pgflow(…, schedules=[…])`.

    - `when`: a cron expression ("0 9 * * mon", six fields with seconds first, "@hourly"), on the wall clock of the time
      zone `tz`, by default UTC; or an interval, `every(timedelta(minutes=5))`.
    - `target`: a workflow class, a task, or the name of one.
    - `name`: by default that of the target. It identifies the schedule in the database.
    - `args`: the workflow's input, or the task's arguments: a dict by name, or a list. At most 64 KiB of JSON.
    - `value`: the business value of a workflow's runs, with "{instant}" and, if you like, "{name}" in it.
    - `overlap`: what happens at an instant at which the run before it is active. "skip": nothing; "queue": it starts
      when that one has ended; "cancel_old": that one is cancelled; "allow": both run.
    - `catch_up`: what happens to instants that were missed by more than a minute, because no worker ran. "none": they
      are dropped; "last": only the last one starts; "all": each one does.
    - `jitter`: start at a random time up to that much after the instant, so that many schedules do not start at once.

    Each instant is started exactly once, whatever the number of workers. A run knows its instant: the instance's
    or task's metadata has
    `schedule` and `scheduled_for`. Raises `InvalidValue`.

        weekly = schedule("0 9 * * mon", SendReport, tz="Europe/Berlin", args={"days": 7})
        app = Pgflow(dsn, workflows=[SendReport], schedules=[weekly])
    """
    is_workflow = isinstance(target, type) and issubclass(target, DefinedWorkflow)
    if not (is_workflow or isinstance(target, str | DefinedTask)):
        refuse("target", target, "it must be a workflow class, a function decorated with @task, or the name of one")
    given = target if isinstance(target, str) else target.name
    checked_name = check_schedule_name(given if name is None else name)
    timing = parse_timing(when, tz)
    return Schedule(
        checked_name,
        timing,
        target,
        args,
        _value(checked_name, value),
        _choice("overlap", overlap, get_args(Overlap)),
        _choice("catch_up", catch_up, get_args(CatchUp)),
        _jitter(jitter, timing),
    )


def check_schedule_name(name: Any) -> str:
    """Return the name of a schedule. Raises `InvalidValue`."""
    if not is_event(name) or SEPARATOR in name:
        refuse("name", name, 'a schedule\'s name is a string of 1 to 100 characters, without white space or "::"')
    return str(name)


def check_schedules(given: Iterable[Any]) -> tuple[Schedule, ...]:
    """Return the schedules of an app. Raises `DefinitionError` for another object, and for two with one name."""
    found: dict[str, Schedule] = {}
    for each in given:
        if not isinstance(each, Schedule):
            hint = 'Pass what schedule() returns: schedules=[schedule("@daily", OrderFlow)].'
            raise DefinitionError(f"{each!r} is not a schedule", hint=hint)
        if each.name in found:
            hint = "Give one of them another name: schedule(…, name=…)."
            raise DefinitionError(f"two schedules are named {each.name!r}", hint=hint)
        found[each.name] = each
    return tuple(found.values())


def _choice(field: str, given: Any, allowed: tuple[Any, ...]) -> Any:
    if given not in allowed:
        refuse(field, given, f"it is one of {', '.join(map(repr, allowed))}")
    return given


def _jitter(given: Any, timing: Timing) -> timedelta:
    if given is None:
        return timedelta(0)
    if not isinstance(given, timedelta) or given < timedelta(0):
        refuse("jitter", given, "it is a timedelta, zero or more")
    if given > timing.shortest:
        refuse("jitter", given, f"it is longer than the shortest period of the schedule, {timing.shortest}")
    return plain(given)


def _value(name: str, given: Any) -> str:
    if given is None:
        given = VALUE
    if not isinstance(given, str) or "{instant}" not in given:
        refuse("value", given, 'it must contain "{instant}", so that each run has a value of its own')
    spec = ScheduleSpec(name, "", "workflow", parse_timing("@daily"), value=given)
    try:
        validate_value(spec.value_at(ANY_INSTANT))
    except InvalidValue as error:
        refuse("value", given, str(error))
    return given
