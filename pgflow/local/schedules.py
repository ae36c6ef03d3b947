"""The schedules of a `Local`: they fire on its virtual clock, by the same decisions as on a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from pgflow.client import commands
from pgflow.client import schedule_commands as schedules
from pgflow.client.schedule_request import backfill_instants, check_count, known_target, spec_of
from pgflow.core.definition.registry import Registry
from pgflow.core.definition.schedule import check_schedule_name
from pgflow.core.definition.schedule_runs import decrypted_input
from pgflow.core.definition.task import TaskDefinition
from pgflow.core.definition.timing import instants
from pgflow.core.engine.firing import LastRun, decide
from pgflow.core.models.schedule import ScheduledRun, ScheduleInfo, ScheduleSpec, ScheduleState
from pgflow.core.values.absent import ABSENT
from pgflow.core.values.codec import Codec
from pgflow.core.values.payload import decode
from pgflow.core.values.sanitize import error_message
from pgflow.errors import PgflowError, ScheduleConflict, UnknownSchedule
from pgflow.local.scheduler import Scheduler
from pgflow.logs import Logger

__all__ = ["LocalSchedules"]

log = Logger("pgflow.local")

END = datetime.max.replace(tzinfo=UTC)


@dataclass(slots=True, eq=False)
class LocalSchedule:
    """A schedule and its state, as in a row of the table."""

    spec: ScheduleSpec
    created_at: datetime
    handled: datetime
    is_declared: bool = False
    next_at: datetime | None = None
    is_waiting: bool = False  # its next run starts when the last one has ended
    queued_until: datetime | None = None
    last: LastRun | None = None
    last_at: datetime | None = None
    last_run: int | None = None
    last_error: dict[str, Any] | None = None
    counts: dict[str, int] = field(default_factory=lambda: {"fired": 0, "skipped": 0, "missed": 0})
    paused_at: datetime | None = None
    paused_by: str | None = None

    def begin(self, now: datetime) -> None:
        """Fire from the first instant after now."""
        self.handled, self.is_waiting = now, False
        self.next_at = self.spec.timing.next(now)


class LocalSchedules:
    """Holds schedules by name. Commands take the lock; the scheduler calls the other methods with the lock held."""

    def __init__(
        self, registry: Registry, scheduler: Scheduler, execute: Callable[[Any], Any], codec: Codec | None
    ) -> None:
        self._registry = registry
        self._scheduler = scheduler
        self._execute_command = execute
        self._codec = codec
        self._by_name: dict[str, LocalSchedule] = {}

    def declare(self, specs: Iterable[ScheduleSpec]) -> None:
        """Add the schedules of the app."""
        with self._scheduler.lock:
            for spec in specs:
                self._add(spec, is_declared=True)

    # -- for the scheduler

    def next(self) -> datetime | None:
        """Return when the next one is due."""
        moments = [each.next_at for each in self._by_name.values() if each.next_at is not None and not each.is_waiting]
        return min(moments, default=None)

    @property
    def has_waiting(self) -> bool:
        """Whether one waits for its last run to end."""
        return any(each.is_waiting for each in self._by_name.values())

    def ended(self, run: int, at: datetime | None) -> None:
        """Take note that an instance has ended."""
        for each in self._by_name.values():
            if each.spec.kind == "workflow" and each.last is not None and each.last_run == run:
                each.last = LastRun(each.last.started_at, at)

    def fire_due(self) -> None:
        """Start the runs of all schedules that are due."""
        now = self._scheduler.clock.now()
        for each in list(self._by_name.values()):
            while each.next_at is not None and each.next_at <= now and self._fire(each, now):
                pass

    def _fire(self, each: LocalSchedule, now: datetime) -> bool:
        """Decide about a schedule; returns whether it has moved on."""
        spec = each.spec
        if spec.kind == "task" and each.last is not None:
            task = self._scheduler.tasks.by_id.get(each.last_run or 0)
            each.last = LastRun(each.last.started_at, now if task is None else task.finished_at)
        decided = decide(
            spec.timing,
            spec.overlap,
            spec.catch_up,
            handled=each.handled,
            now=now,
            last=each.last,
            queued_until=each.queued_until,
        )
        each.is_waiting = decided.handled == each.handled
        if each.is_waiting:
            return False
        if decided.cancels_last and each.last_run is not None:
            self._cancel(each, each.last_run)
        for instant in decided.starts:
            try:
                run = self._start(spec, instant)
            except PgflowError as error:
                log.error("the schedule %s cannot start a run: %s", spec.name, error_message(error))
                each.last_error = {"reason": error_message(error), "at": now.isoformat()}
                continue
            if run.created:
                each.last, each.last_at, each.last_run, each.last_error = LastRun(now), instant, run.run, None
            each.counts["fired" if run.created else "skipped"] += 1
        each.counts["skipped"] += decided.skipped
        each.counts["missed"] += decided.missed
        each.handled, each.next_at, each.queued_until = decided.handled, decided.next_at, decided.queued_until
        return True

    def _start(self, spec: ScheduleSpec, instant: datetime) -> ScheduledRun:
        target = known_target(spec.target, self._registry)
        text = decrypted_input(spec, self._codec)
        at, metadata = spec.start_at(instant) if spec.jitter else None, spec.metadata_at(instant)
        if isinstance(target, TaskDefinition):
            (job,) = self._execute_command(commands.Enqueue(target, (text or "{}",), at=at, metadata=metadata))
            return ScheduledRun(instant, job.id, job.created)
        assert target is not None  # noqa: S101 -- checked when it was added, and an app forgets no workflow
        item = (spec.value_at(instant), ABSENT if text is None else decode(text))
        (started,) = self._execute_command(commands.Start(target, (item,), at=at, metadata=metadata))
        return ScheduledRun(instant, started.run, started.created)

    def _cancel(self, each: LocalSchedule, run: int) -> None:
        reason = f"the next run of the schedule {each.spec.name} is due"
        if each.spec.kind == "task":
            self._execute_command(commands.CancelTask(None, run, reason))
        else:
            self._scheduler.cancel(self._scheduler.live[run], reason)

    # -- commands

    def execute(self, command: schedules.ScheduleCommand) -> Any:
        """Execute a command about schedules."""
        with self._scheduler.lock:
            answer = self._execute(command)
            self._scheduler.schedules_changed()
        return answer

    def _execute(self, command: schedules.ScheduleCommand) -> Any:
        now = self._scheduler.clock.now()
        match command:
            case schedules.AddSchedule(given, replace):
                return self._add_new(spec_of(given, self._registry, self._codec), replace=replace)
            case schedules.PauseSchedule(name, paused_by):
                each = self._named(name)
                if each.paused_at is None:
                    each.paused_at, each.paused_by, each.next_at, each.is_waiting = now, paused_by, None, False
                return None
            case schedules.ResumeSchedule(name):
                each = self._named(name)
                if each.paused_at is not None:
                    each.paused_at, each.paused_by = None, None
                    each.begin(now)
                return None
            case schedules.RemoveSchedule(name, force):
                if self._named(name).is_declared and not force:
                    raise ScheduleConflict(f"this app declares the schedule {name!r}", hint="Remove it from the code.")
                del self._by_name[name]
                return None
            case schedules.RunSchedule(name):
                return self._start(self._named(name).spec, now)
            case schedules.BackfillSchedule(name, start, end, dry_run):
                return self._backfill(
                    self._named(name).spec, backfill_instants(self._named(name).spec, start, end), dry_run
                )
            case schedules.ListSchedules(name):
                names = sorted(self._by_name) if name is None else [name]
                return [self._info(self._named(each)) for each in names]
            case schedules.NextInstants(name, count):
                known = self._named(name)
                return list(islice(instants(known.spec.timing, max(now, known.handled), END), check_count(count)))
        raise TypeError(f"{type(command).__name__} is not a command of pgflow.client.schedule_commands")

    def _add_new(self, spec: ScheduleSpec, *, replace: bool) -> None:
        existing = self._by_name.get(spec.name)
        if existing is not None and (existing.is_declared or not replace):
            raise ScheduleConflict(
                f"there is a schedule named {spec.name!r} already", hint="Use another name, or replace it."
            )
        self._add(spec)

    def _add(self, spec: ScheduleSpec, *, is_declared: bool = False) -> None:
        now = self._scheduler.clock.now()
        added = LocalSchedule(spec, now, now, is_declared)
        added.begin(now)
        self._by_name[spec.name] = added

    def _backfill(self, spec: ScheduleSpec, found: Sequence[datetime], dry_run: bool) -> list[ScheduledRun]:
        if dry_run:
            return [ScheduledRun(instant, None, created=False) for instant in found]
        return [self._start(spec, instant) for instant in found]

    def _named(self, name: str) -> LocalSchedule:
        found = self._by_name.get(check_schedule_name(name))
        if found is None:
            hint = f"There are: {', '.join(sorted(self._by_name)) or 'none'}."
            raise UnknownSchedule(f"there is no schedule named {name!r}", hint=hint)
        return found

    def _info(self, each: LocalSchedule) -> ScheduleInfo:
        spec = each.spec
        state: ScheduleState = "active"
        if each.paused_at is not None:
            state = "paused"
        elif each.next_at is None:
            state = "ended"
        return ScheduleInfo(
            name=spec.name,
            target=spec.target,
            kind=spec.kind,
            timing=spec.timing,
            input=None if spec.input is None else decode(spec.input),
            value=spec.value,
            overlap=spec.overlap,
            catch_up=spec.catch_up,
            jitter=spec.jitter,
            state=state,
            created_at=each.created_at,
            next_at=each.next_at,
            last_at=each.last_at,
            last_run=each.last_run,
            last_error=each.last_error,
            paused_at=each.paused_at,
            paused_by=each.paused_by,
            declared_by="Local" if each.is_declared else None,
            last_declared_at=each.created_at if each.is_declared else None,
            fired=each.counts["fired"],
            skipped=each.counts["skipped"],
            missed=each.counts["missed"],
        )
