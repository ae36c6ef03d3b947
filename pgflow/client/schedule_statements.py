"""Turn each command about schedules into SQL: plans of the PostgreSQL backend."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, TypeAlias, TypeVar

from pgflow.client import schedule_commands as commands
from pgflow.client.addressing import checked_key
from pgflow.client.schedule_request import backfill_instants, check_count, known_target, spec_of
from pgflow.client.statements import Write
from pgflow.core.definition.registry import Registry
from pgflow.core.definition.schedule import check_schedule_name
from pgflow.core.definition.schedule_runs import instant_starts
from pgflow.core.definition.timing import instants
from pgflow.core.models.schedule import ScheduledRun, ScheduleInfo
from pgflow.core.values.codec import Codec
from pgflow.core.values.query_args import check_text
from pgflow.database.statement import Statement
from pgflow.errors import UnknownSchedule, UnknownWorkflow
from pgflow.store import schedule
from pgflow.store.schedule import StoredSpec

__all__ = ["ScheduleStatements", "unknown_schedule"]

R = TypeVar("R")
Plan: TypeAlias = Generator[Statement[Any] | Write[Any], Any, R]


class ScheduleStatements:
    """Makes the SQL of each command about schedules."""

    def __init__(self, schema: str, registry: Registry, codec: Codec | None) -> None:
        self._schema = schema
        self._registry = registry
        self._codec = codec

    def plan(self, command: commands.ScheduleCommand) -> Plan[Any]:
        """Return the plan of a command."""
        match command:
            case commands.AddSchedule():
                return self._add(command)
            case commands.PauseSchedule(name, paused_by, key):
                check_text("paused_by", paused_by)
                statement = schedule.pause(self._schema, check_schedule_name(name), paused_by)
                return _write(f"pause schedule {name}", statement, key)
            case commands.ResumeSchedule(name, key):
                statement = schedule.resume(self._schema, check_schedule_name(name))
                return _write(f"resume schedule {name}", statement, key)
            case commands.RemoveSchedule(name, force, key):
                statement = schedule.remove(self._schema, check_schedule_name(name), force=force)
                return _write(f"remove schedule {name}", statement, key)
            case commands.RunSchedule():
                return self._run(command)
            case commands.BackfillSchedule():
                return self._backfill(command)
            case commands.ListSchedules():
                return self._list(command)
            case commands.NextInstants():
                return self._next(command)
        raise TypeError(f"{type(command).__name__} is not a command of pgflow.client.schedule_commands")

    def _add(self, command: commands.AddSchedule) -> Plan[None]:
        spec = spec_of(command.schedule, self._registry, self._codec)
        statement = schedule.add(self._schema, spec, replace=command.replace)
        return _write(f"add schedule {spec.name}", statement, command.idempotency_key)

    def _run(self, command: commands.RunSchedule) -> Plan[ScheduledRun]:
        key = checked_key(command.idempotency_key)
        stored = yield from self._stored(command.name)
        runs = yield self._start(stored, [stored.now], f"run schedule {command.name}", key)
        found: ScheduledRun = runs[0]
        return found

    def _backfill(self, command: commands.BackfillSchedule) -> Plan[list[ScheduledRun]]:
        key = checked_key(command.idempotency_key)
        stored = yield from self._stored(command.name)
        found = backfill_instants(stored.spec, command.start, command.end)
        if command.dry_run or not found:
            return [ScheduledRun(instant, None, created=False) for instant in found]
        call = f"backfill schedule {command.name} {command.start.isoformat()} {command.end.isoformat()}"
        runs: list[ScheduledRun] = yield self._start(stored, found, call, key)
        return runs

    def _list(self, command: commands.ListSchedules) -> Plan[list[ScheduleInfo]]:
        name = command.name if command.name is None else check_schedule_name(command.name)
        found: list[ScheduleInfo] = yield schedule.list(self._schema, name)
        if name is not None and not found:
            raise unknown_schedule(name)
        return found

    def _next(self, command: commands.NextInstants) -> Plan[list[datetime]]:
        count = check_count(command.count)
        stored = yield from self._stored(command.name)
        after = max(stored.now, stored.handled)
        return list(islice(instants(stored.spec.timing, after, datetime.max.replace(tzinfo=after.tzinfo)), count))

    def _stored(self, name: str) -> Plan[StoredSpec]:
        found: StoredSpec | None = yield schedule.get(self._schema, check_schedule_name(name))
        if found is None:
            raise unknown_schedule(name)
        return found

    def _start(
        self, stored: StoredSpec, moments: Sequence[datetime], call: str, key: str | None
    ) -> Write[list[ScheduledRun]]:
        spec = stored.spec
        target = known_target(spec.target, self._registry)
        if target is None:
            raise UnknownWorkflow(
                f"this app has no workflow or task named {spec.target!r}, which the schedule {spec.name!r} starts",
                hint="Call it in the app that defines it, or in SQL: select pgflow.run_schedule(…).",
            )
        starts = instant_starts(target, spec, moments, self._codec)

        def statement(notify: bool) -> Statement[list[ScheduledRun]]:
            return schedule.start(self._schema, spec, starts, notify=notify)

        return Write(call, statement, schedule.decode_runs, key)


def unknown_schedule(name: str) -> UnknownSchedule:
    """Return the error for a name that no schedule has."""
    return UnknownSchedule(f"there is no schedule named {name!r}", hint="List them: pgflow schedule list")


def _write(call: str, statement: Statement[None], key: str | None) -> Plan[None]:
    yield Write(call, lambda notify: statement, lambda answer: None, checked_key(key))
