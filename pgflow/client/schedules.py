"""The calls of an app on its schedules: `app.schedules`."""

from __future__ import annotations

import builtins
from datetime import datetime, timedelta
from typing import Any, TypedDict, TypeVar, Unpack

from pgflow.client.backend import Backend
from pgflow.client.commands import Command
from pgflow.client.schedule_commands import (
    AddSchedule,
    BackfillSchedule,
    ListSchedules,
    NextInstants,
    PauseSchedule,
    RemoveSchedule,
    ResumeSchedule,
    RunSchedule,
)
from pgflow.core.definition.schedule import Schedule, schedule
from pgflow.core.models.schedule import CatchUp, Overlap, ScheduledRun, ScheduleInfo
from pgflow.core.values.absent import Absent
from pgflow.core.values.query_args import refuse

__all__ = ["ScheduleOptions", "Schedules"]

R = TypeVar("R")


class ScheduleOptions(TypedDict, total=False):
    """The options of `schedule`, which documents them."""

    name: str | None
    tz: Any
    args: Any | Absent
    value: str | None
    overlap: Overlap
    catch_up: CatchUp
    jitter: timedelta | None


class Schedules:
    """The schedules of an app's database: those that apps declare, and those that were added at run time.

    Each method has an async twin with an `a` before its name. All take `conn`, a connection of the caller's, and those
    that change something an `idempotency_key`, like the calls of workflows. They raise `UnknownSchedule` for a name
    that does not exist.

        app.schedules.add("0 9 * * mon", SendReport, name="weekly", tz="Europe/Berlin")
        app.schedules.next("weekly", 3)
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    # -- changes

    def add(
        self,
        when: Any,
        target: Any = None,
        *,
        replace: bool = False,
        idempotency_key: str | None = None,
        conn: Any = None,
        **options: Unpack[ScheduleOptions],
    ) -> None:
        """Add a schedule at run time: takes what `schedule` takes, or what it has returned.

        A worker that knows the target computes the first instant within about a second; none before this call fires.
        With `replace` it takes the place of one of that name that was added before. Raises `ScheduleConflict` when
        there is one otherwise, or when an app declares it; `InvalidValue`, `InvalidInput`, `UnknownWorkflow`.

            app.schedules.add(every(timedelta(minutes=5)), Poll, name="poll-acme", args={"tenant": "acme"})
        """
        self._execute(AddSchedule(_schedule(when, target, options), replace, idempotency_key), conn)

    async def aadd(
        self,
        when: Any,
        target: Any = None,
        *,
        replace: bool = False,
        idempotency_key: str | None = None,
        conn: Any = None,
        **options: Unpack[ScheduleOptions],
    ) -> None:
        """`add`, async."""
        await self._aexecute(AddSchedule(_schedule(when, target, options), replace, idempotency_key), conn)

    def pause(self, name: str, *, by: str | None = None, idempotency_key: str | None = None, conn: Any = None) -> None:
        """Let nothing fire until `resume`; runs that have started go on. `by` is shown, by default the database role.

        app.schedules.pause("weekly", by="ada")
        """
        self._execute(PauseSchedule(name, by, idempotency_key), conn)

    async def apause(
        self, name: str, *, by: str | None = None, idempotency_key: str | None = None, conn: Any = None
    ) -> None:
        """`pause`, async."""
        await self._aexecute(PauseSchedule(name, by, idempotency_key), conn)

    def resume(self, name: str, *, idempotency_key: str | None = None, conn: Any = None) -> None:
        """Resume a paused schedule from the first instant after now: those in between are not caught up, backfill them.

        It also resumes a schedule that waits because the clock of the database was set back.
        """
        self._execute(ResumeSchedule(name, idempotency_key), conn)

    async def aresume(self, name: str, *, idempotency_key: str | None = None, conn: Any = None) -> None:
        """`resume`, async."""
        await self._aexecute(ResumeSchedule(name, idempotency_key), conn)

    def remove(self, name: str, *, force: bool = False, idempotency_key: str | None = None, conn: Any = None) -> None:
        """Remove a schedule; runs that have started go on.

        Raises `ScheduleConflict` for one that an app still declares and would add again, unless `force`.
        """
        self._execute(RemoveSchedule(name, force, idempotency_key), conn)

    async def aremove(
        self, name: str, *, force: bool = False, idempotency_key: str | None = None, conn: Any = None
    ) -> None:
        """`remove`, async."""
        await self._aexecute(RemoveSchedule(name, force, idempotency_key), conn)

    # -- runs

    def run(self, name: str, *, idempotency_key: str | None = None, conn: Any = None) -> ScheduledRun:
        """Start a run now, for the instant now, whatever the schedule's state and overlap.

        app.schedules.run("weekly").run    # 7, the run id
        """
        return self._execute(RunSchedule(name, idempotency_key), conn)

    async def arun(self, name: str, *, idempotency_key: str | None = None, conn: Any = None) -> ScheduledRun:
        """`run`, async."""
        return await self._aexecute(RunSchedule(name, idempotency_key), conn)

    def backfill(
        self,
        name: str,
        start: datetime,
        end: datetime,
        *,
        dry_run: bool = False,
        idempotency_key: str | None = None,
        conn: Any = None,
    ) -> builtins.list[ScheduledRun]:
        """Start a run for each instant from `start` to `end`, which is excluded: at once, in one transaction.

        Instants that have fired before fire again, except that one whose run is active is not started twice
        (`created` False). At most 1,000. With `dry_run` nothing is started. Raises `InvalidValue`.

            app.schedules.backfill("weekly", datetime(2030, 1, 1, tzinfo=UTC), datetime(2030, 2, 1, tzinfo=UTC))
        """
        return self._execute(BackfillSchedule(name, start, end, dry_run, idempotency_key), conn)

    async def abackfill(
        self,
        name: str,
        start: datetime,
        end: datetime,
        *,
        dry_run: bool = False,
        idempotency_key: str | None = None,
        conn: Any = None,
    ) -> builtins.list[ScheduledRun]:
        """`backfill`, async."""
        return await self._aexecute(BackfillSchedule(name, start, end, dry_run, idempotency_key), conn)

    # -- reads

    def list(self, *, conn: Any = None) -> builtins.list[ScheduleInfo]:
        """Return all schedules, in the order of their names."""
        return self._execute(ListSchedules(), conn)

    async def alist(self, *, conn: Any = None) -> builtins.list[ScheduleInfo]:
        """`list`, async."""
        return await self._aexecute(ListSchedules(), conn)

    def get(self, name: str, *, conn: Any = None) -> ScheduleInfo:
        """Return one schedule."""
        return self._execute(ListSchedules(name), conn)[0]

    async def aget(self, name: str, *, conn: Any = None) -> ScheduleInfo:
        """`get`, async."""
        return (await self._aexecute(ListSchedules(name), conn))[0]

    def next(self, name: str, count: int = 5, *, conn: Any = None) -> builtins.list[datetime]:
        """Return the next instants, at most 1,000, as if the schedule were not paused."""
        return self._execute(NextInstants(name, count), conn)

    async def anext(self, name: str, count: int = 5, *, conn: Any = None) -> builtins.list[datetime]:
        """`next`, async."""
        return await self._aexecute(NextInstants(name, count), conn)

    def _execute(self, command: Command[R], conn: Any) -> R:
        return self._backend.execute(command, conn)

    async def _aexecute(self, command: Command[R], conn: Any) -> R:
        return await self._backend.aexecute(command, conn)


def _schedule(when: Any, target: Any, options: ScheduleOptions) -> Schedule:
    if not isinstance(when, Schedule):
        return schedule(when, target, **options)
    if target is not None or options:
        refuse("target", target, "a schedule that schedule() returned has a target and options already")
    return when
