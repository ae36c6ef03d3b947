"""Read the views and functions for people: why something waits, backlogs and throughput."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from psycopg.types.numeric import Int8

from pgflow.core.models.overview import Happening, Reason, TaskInfo, Throughput
from pgflow.database import files
from pgflow.database.statement import Row, Statement

__all__ = ["backlog", "events", "tasks", "throughput", "why", "why_job"]


def why(
    schema: str, run: int | None = None, *, workflow: str | None = None, value: str | None = None
) -> Statement[list[Reason]]:
    """Explain where an instance is, each branch and each join that waits: a run, or the newest of a business value.

    Raises `InstanceNotFound`, and `UnknownWorkflow` if there is no run given.
    """
    params = {"run": run, "workflow": workflow, "value": value}
    return Statement("overview/why", files.load("queries/overview/why.sql", schema), params, _reasons)


def why_job(schema: str, job: int) -> Statement[list[Reason]]:
    """Explain where one job is, of an instance or of a task. Raises `JobNotFound`."""
    query = files.load("queries/overview/why_job.sql", schema)
    return Statement("overview/why_job", query, {"job": Int8(job)}, _reasons)


def backlog(schema: str, queue: str) -> Statement[int]:
    """Count the jobs of a queue that workers could work on now, what runs included, up to 10,000."""
    query = files.load("queries/overview/backlog.sql", schema)
    return Statement("overview/backlog", query, {"queue": queue}, lambda rows: int(rows[0][0]))


def throughput(schema: str, period: timedelta) -> Statement[list[Throughput]]:
    """Count what has ended within a period, by workflow and task. Raises `InvalidValue` for a period of zero."""
    query = files.load("queries/overview/throughput.sql", schema)
    params = {"seconds": period.total_seconds()}
    return Statement("overview/throughput", query, params, lambda rows: [Throughput(*row) for row in rows])


def events(schema: str, period: timedelta, *, name: str | None = None, limit: int) -> Statement[list[Happening]]:
    """Read what happened within a period, newest first, at most `limit`; `name` is that of a workflow or task."""
    query = files.load("queries/overview/events.sql", schema)
    params = {"seconds": period.total_seconds(), "name": name, "limit": Int8(limit)}
    return Statement("overview/events", query, params, lambda rows: [Happening(*row) for row in rows])


def tasks(schema: str) -> Statement[list[TaskInfo]]:
    """Read the tasks that apps have registered, by name."""
    query = files.load("queries/overview/tasks.sql", schema)
    return Statement("overview/tasks", query, {}, lambda rows: [TaskInfo(*row) for row in rows])


def _reasons(rows: Sequence[Row]) -> list[Reason]:
    return [Reason(*row) for row in rows]
