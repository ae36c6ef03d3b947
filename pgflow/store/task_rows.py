"""Decode tasks from rows. A value that cannot be decoded is reported in `unreadable` and left out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pgflow.core.models.job import progress_of
from pgflow.core.models.task import TaskInstance
from pgflow.core.values.names import TELEMETRY
from pgflow.core.values.payload import decode
from pgflow.database.statement import Row
from pgflow.store.instance_rows import NO_ITEMS, NO_OBJECT, TIME_LIMITS, UNREADABLE, DecodeErrors, decode_object

__all__ = ["Listed", "listed", "task"]


@dataclass(frozen=True, slots=True)
class Listed:
    """A task as a list shows it. `state` is that of its job, or how it ended; `args` None is larger than was read."""

    id: int
    task: str
    state: str
    attempt: int
    max_attempts: int
    queue: str
    priority: int
    args: str | None
    args_size: int | None
    enqueued_at: datetime
    run_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    worker: int | None
    error_type: str | None
    error_reason: str | None
    tags: tuple[str, ...]


def listed(row: Row) -> Listed:
    """Decode a task from a row of sql/queries/task/page.sql."""
    errors = DecodeErrors()
    at, run_at, started, finished = (None if text is None else errors.timestamp("a time", text) for text in row[9:13])
    worker, kind, reason, tags = row[13:]
    enqueued = at or TIME_LIMITS["-infinity"]
    number, name, state, attempt, max_attempts, queue, priority, args, args_size = row[:9]
    return Listed(
        id=number,
        task=name,
        state=state,
        attempt=attempt,
        max_attempts=max_attempts,
        queue=queue,
        priority=priority,
        args=args,
        args_size=args_size,
        enqueued_at=enqueued,
        run_at=run_at,
        started_at=started,
        finished_at=finished,
        worker=worker,
        error_type=kind,
        error_reason=reason,
        tags=tuple(tags or ()),
    )


def task(row: Row) -> TaskInstance:
    """Decode a task from a row of sql/queries/task/list.sql or get.sql."""
    number, name, status, queue, priority, attempt, max_attempts, args, *times, worker, output, error = row[:15]
    failed, tags, metadata, progress, is_paused = row[15:]
    errors = DecodeErrors()
    enqueued_at, run_at, started_at, finished_at = (
        None if text is None else errors.timestamp(what, text)
        for what, text in zip(("enqueued_at", "run_at", "started_at", "finished_at"), times, strict=True)
    )
    own = errors.decode("metadata", lambda: decode_object(metadata or "{}"), NO_OBJECT)
    return TaskInstance(
        id=number,
        task=name,
        status=status,
        queue=queue,
        priority=priority,
        attempt=attempt,
        max_attempts=max_attempts,
        args=errors.decode("args", lambda: decode_object(args or "{}"), NO_OBJECT),
        enqueued_at=enqueued_at or TIME_LIMITS["-infinity"],
        run_at=run_at,
        started_at=started_at,
        finished_at=finished_at,
        worker=worker,
        output=None if output is None else errors.decode("output", lambda: decode(output), None),
        error=None if error is None else errors.decode("error", lambda: decode_object(error), UNREADABLE),
        errors=errors.decode("errors", lambda: tuple(decode(failed or "[]", extra_levels=2)), NO_ITEMS),
        tags=tuple(tags or ()),
        metadata={key: value for key, value in own.items() if key != TELEMETRY},
        progress=errors.decode("progress", lambda: progress_of(progress), None),
        is_paused=is_paused,
        unreadable=str(errors) or None,
    )
