"""Store schedules, read those that are due, and carry out what a worker has decided about them."""

from __future__ import annotations

import json
from builtins import list as Builtin
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from pgflow.core.definition.schedule_runs import InstantStart
from pgflow.core.definition.timing import Cron, Every, Timing
from pgflow.core.engine.firing import GRACE, LastRun
from pgflow.core.models.schedule import ScheduledRun, ScheduleInfo, ScheduleSpec, ScheduleState
from pgflow.core.values.payload import decode
from pgflow.database import files
from pgflow.database.arrays import Texts
from pgflow.database.statement import Row, Statement

__all__ = [
    "NO_SCHEDULES",
    "DueResult",
    "DueSchedule",
    "FireResult",
    "ScheduleFiring",
    "ScheduleScope",
    "StoredSpec",
    "add",
    "declare",
    "decode_runs",
    "due",
    "fire",
    "get",
    "list",
    "names",
    "pause",
    "remove",
    "resume",
    "start",
]


@dataclass(frozen=True, slots=True)
class ScheduleScope:
    """Which schedules a worker may fire: those of `targets` that were added at run time or are among `declared`."""

    targets: Sequence[str] = ()
    declared: Sequence[str] = ()


NO_SCHEDULES = ScheduleScope()
SPEC_COLUMNS = ("name", "target", "kind", "cron", "every", "tz", "input", "value", "overlap", "catch_up", "jitter")


@dataclass(frozen=True, slots=True)
class DueSchedule:
    """A schedule that is due, as it was at `revision`. `input` is JSON text."""

    spec: ScheduleSpec
    revision: int
    handled: datetime
    next_at: datetime
    last: LastRun | None
    queued_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class DueResult:
    """The schedules that are due, the database's time, and in how many seconds the next one is due."""

    now: datetime
    schedules: Sequence[DueSchedule]
    next_due: float | None


@dataclass(frozen=True, slots=True)
class ScheduleFiring:
    """A decision about a schedule: what to start, which instants are handled, the next one, and what went wrong."""

    name: str
    revision: int
    handled: datetime
    next_at: datetime | None
    starts: Sequence[InstantStart] = ()
    cancels_last: bool = False
    skipped: int = 0
    missed: int = 0
    queued_until: datetime | None = None
    error: str | None = None


class FireResult(NamedTuple):
    """The result of a firing: see sql/functions/schedule_fire.sql."""

    name: str
    status: str
    started: int
    queues: Sequence[str]
    cancelled: bool
    error: str | None


@dataclass(frozen=True, slots=True)
class StoredSpec:
    """A schedule as it is stored: its input as JSON text may be encrypted. `now` is the database's time."""

    spec: ScheduleSpec
    handled: datetime
    now: datetime


def due(schema: str, scope: ScheduleScope, passed_over: Sequence[str] = (), limit: int = 100) -> Statement[DueResult]:
    """Read the schedules in a worker's scope that are due, except `passed_over`, the longest overdue first."""
    params = {
        "targets": Texts(scope.targets),
        "declared": Texts(scope.declared),
        "passed_over": Texts(passed_over),
        "limit": limit,
    }
    return Statement("schedule/due", files.load("queries/schedule/due.sql", schema), params, _due, prepare=True)


def _due(rows: Sequence[Row]) -> DueResult:
    now, found, next_due = rows[0]
    return DueResult(now, [_due_schedule(each) for each in decode(found, extra_levels=2)], next_due)


def _due_schedule(row: Mapping[str, Any]) -> DueSchedule:
    started, ended = _moment(row["started_at"]), _moment(row["ended_at"])
    last = None if started is None else LastRun(started, ended)
    handled, next_at = datetime.fromisoformat(row["handled_at"]), datetime.fromisoformat(row["next_at"])
    return DueSchedule(_spec(row), row["revision"], handled, next_at, last, _moment(row["queued_until"]))


def fire(schema: str, firings: Sequence[ScheduleFiring]) -> Statement[Builtin[FireResult]]:
    """Carry out decisions; those about a schedule that has changed since are left out of the answer."""
    written = json.dumps([_firing(each) for each in firings])
    query = files.load("queries/schedule/fire.sql", schema)
    return Statement("schedule/fire", query, {"firings": written}, lambda rows: [FireResult(*row) for row in rows])


def _firing(each: ScheduleFiring) -> dict[str, Any]:
    return {
        "name": each.name,
        "revision": each.revision,
        "handled_at": each.handled.isoformat(),
        "next_at": each.next_at and each.next_at.isoformat(),
        "queued_until": each.queued_until and each.queued_until.isoformat(),
        "skipped": each.skipped,
        "missed": each.missed,
        "cancels_last": each.cancels_last,
        "error": each.error,
        "starts": [_start(start) for start in each.starts],
    }


def _start(each: InstantStart) -> dict[str, Any]:
    given = {} if each.input is None else {"input": decode(each.input)}
    at = each.at and each.at.isoformat()
    given |= {name: key for name, key in (("key", each.key), ("unique", each.unique)) if key is not None}
    return {"instant": each.instant.isoformat(), "value": each.value, "version": each.version, "at": at, **given}


def declare(schema: str, app: str, specs: Sequence[ScheduleSpec], *, is_worker: bool) -> Statement[None]:
    """Store the schedules that an app declares. A worker's app also marks those that it declares no longer."""
    declared = json.dumps([_columns(each) for each in specs])
    params = {"app": app, "declared": declared, "is_worker": is_worker}
    query = files.load("queries/schedule/declare.sql", schema)
    return Statement("schedule/declare", query, params, _nothing)


def add(schema: str, spec: ScheduleSpec, *, replace: bool) -> Statement[None]:
    """Add a schedule at run time, or replace one that was."""
    params = {**_columns(spec), "input": spec.input, "replace": replace}
    del params["kind"]
    return Statement("schedule/add", files.load("queries/schedule/add.sql", schema), params, _nothing)


def pause(schema: str, name: str, paused_by: str | None) -> Statement[None]:
    """Pause a schedule."""
    params = {"name": name, "paused_by": paused_by}
    return Statement("schedule/pause", files.load("queries/schedule/pause.sql", schema), params, _nothing)


def resume(schema: str, name: str) -> Statement[None]:
    """Resume a schedule."""
    return Statement("schedule/resume", files.load("queries/schedule/resume.sql", schema), {"name": name}, _nothing)


def remove(schema: str, name: str, *, force: bool) -> Statement[None]:
    """Remove a schedule; with `force` also one that an app declares."""
    params = {"name": name, "force": force}
    return Statement("schedule/remove", files.load("queries/schedule/remove.sql", schema), params, _nothing)


def start(
    schema: str, spec: ScheduleSpec, starts: Sequence[InstantStart], *, notify: bool
) -> Statement[Builtin[ScheduledRun]]:
    """Start the runs of instants at once, in order."""
    written = json.dumps([_start(each) for each in starts])
    params = {"name": spec.name, "target": spec.target, "starts": written, "notify": notify}
    query = files.load("queries/schedule/start.sql", schema)
    return Statement("schedule/start", query, params, lambda rows: [ScheduledRun(*row) for row in rows])


def decode_runs(answer: Any) -> Builtin[ScheduledRun]:
    """Return the result of an earlier `start` with the same idempotency key, from its recorded answer."""
    rows = zip(answer["instants"], answer["runs"], answer["created"], strict=True)
    return [ScheduledRun(datetime.fromisoformat(instant), run, created) for instant, run, created in rows]


def get(schema: str, name: str) -> Statement[StoredSpec | None]:
    """Read what a run of a schedule needs; None without the schedule."""
    query = files.load("queries/schedule/get.sql", schema)
    return Statement("schedule/get", query, {"name": name}, lambda rows: _stored_spec(rows[0]) if rows else None)


def _stored_spec(row: Row) -> StoredSpec:
    *columns, handled, now = row
    given = dict(zip(SPEC_COLUMNS, columns, strict=True))
    return StoredSpec(_spec({**given, "input": _decoded(given["input"])}), handled, now)


def list(schema: str, name: str | None = None) -> Statement[Builtin[ScheduleInfo]]:  # noqa: A001 -- path is name
    """Read all schedules in the order of their names, or the one of that name."""
    query = files.load("queries/schedule/list.sql", schema)
    return Statement("schedule/list", query, {"name": name}, lambda rows: [_info(row) for row in rows])


def names(schema: str) -> Statement[Builtin[str]]:
    """List the names of all schedules, in order."""
    query = files.load("queries/schedule/names.sql", schema)
    return Statement("schedule/names", query, {}, lambda rows: [name for (name,) in rows])


def _info(row: Row) -> ScheduleInfo:
    names = (
        *SPEC_COLUMNS,
        *("created_at", "handled_at", "next_at", "last_at", "last_run", "last_error", "fired", "skipped", "missed"),
        *("paused_at", "paused_by", "declared_by", "last_declared_at", "undeclared_at", "is_running", "now"),
    )
    each = dict(zip(names, row, strict=True))
    value = _decoded(each["input"])
    spec = _spec({**each, "input": value})
    is_computed = each["next_at"] is not None and each["next_at"] > each["handled_at"]
    return ScheduleInfo(
        name=spec.name,
        target=spec.target,
        kind=spec.kind,
        timing=spec.timing,
        input=value,
        value=spec.value,
        overlap=spec.overlap,
        catch_up=spec.catch_up,
        jitter=spec.jitter,
        state=_state(each),
        created_at=each["created_at"],
        next_at=each["next_at"] if is_computed else None,
        last_at=each["last_at"],
        last_run=each["last_run"],
        last_error=_decoded(each["last_error"]),
        fired=each["fired"],
        skipped=each["skipped"],
        missed=each["missed"],
        paused_at=each["paused_at"],
        paused_by=each["paused_by"],
        declared_by=each["declared_by"],
        last_declared_at=each["last_declared_at"],
        undeclared_at=each["undeclared_at"],
    )


def _state(row: Mapping[str, Any]) -> ScheduleState:
    if row["paused_at"] is not None:
        return "paused"
    if row["undeclared_at"] is not None:
        return "undeclared"
    if row["next_at"] is None:
        return "ended"
    is_waiting = row["is_running"] and row["overlap"] in ("skip", "queue")
    return "overdue" if row["next_at"] < row["now"] - GRACE and not is_waiting else "active"


def _spec(row: Mapping[str, Any]) -> ScheduleSpec:
    text = None if row["input"] is None else json.dumps(row["input"], ensure_ascii=False)
    options = (row["value"], row["overlap"], row["catch_up"], timedelta(seconds=row["jitter"]))
    return ScheduleSpec(row["name"], row["target"], row["kind"], _timing(row), text, *options)


def _timing(row: Mapping[str, Any]) -> Timing:
    return Cron(row["cron"], row["tz"]) if row["every"] is None else Every(timedelta(seconds=row["every"]))


def _columns(spec: ScheduleSpec) -> dict[str, Any]:
    timing = spec.timing
    given = {} if spec.input is None else {"input": decode(spec.input)}
    return {
        "name": spec.name,
        "target": spec.target,
        "kind": spec.kind,
        "cron": timing.expression if isinstance(timing, Cron) else None,
        "every": timing.period.total_seconds() if isinstance(timing, Every) else None,
        "tz": timing.tz if isinstance(timing, Cron) else "UTC",
        "value": spec.value,
        "overlap": spec.overlap,
        "catch_up": spec.catch_up,
        "jitter": spec.jitter.total_seconds(),
        **given,
    }


def _decoded(text: str | None) -> Any:
    return None if text is None else decode(text)


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _nothing(rows: Sequence[Row]) -> None:
    return None
