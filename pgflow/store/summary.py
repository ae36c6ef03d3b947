"""What the first page shows: bounded counts, what has ended, what fails, and workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from pgflow.database import files
from pgflow.database.statement import Row, Statement
from pgflow.store.instance_rows import DecodeErrors

__all__ = ["About", "Ended", "Failure", "JobCounts", "WorkerCounts", "about", "ended", "failures", "jobs", "workers"]


def _time(text: str | None) -> datetime | None:
    return None if text is None else DecodeErrors().timestamp("a time", text)


@dataclass(frozen=True, slots=True)
class JobCounts:
    """How many live jobs do what, each up to a limit."""

    running: int
    running_tasks: int
    ready: int
    scheduled: int
    retrying: int
    parked: int
    held: int
    next_attempt_at: datetime | None
    oldest_ready_at: datetime | None


class Ended(NamedTuple):
    """How many instances and tasks ended in one span of time."""

    completed: int
    failed: int


@dataclass(frozen=True, slots=True)
class Failure:
    """A group of failures: of a step of a workflow, or of a task."""

    name: str
    step: str | None
    type: str | None
    reason: str | None
    many: int
    newest_at: datetime | None
    is_task: bool


class WorkerCounts(NamedTuple):
    """How many workers are alive, and how many have lost their lease while they held jobs."""

    alive: int
    lost: int
    lost_jobs: int


class About(NamedTuple):
    """The server, and the newest migration."""

    server_version: str
    migration: int | None
    is_replica: bool


def jobs(schema: str, *, limit: int) -> Statement[JobCounts]:
    """Count live jobs, up to `limit` each."""

    def counts(rows: Sequence[Row]) -> JobCounts:
        running, tasks, ready, scheduled, retrying, parked, held, next_attempt, oldest_ready = rows[0]
        times = (_time(next_attempt), _time(oldest_ready))
        return JobCounts(running, tasks, ready, scheduled, retrying, parked, held, *times)

    return Statement("summary/jobs", files.load("queries/summary/jobs.sql", schema), {"limit": limit}, counts)


def ended(schema: str, *, spans: int, seconds: float, limit: int) -> Statement[list[Ended]]:
    """Count what ended in each of `spans` spans of `seconds` each before now, oldest first, up to `limit` each."""
    params = {"spans": spans, "seconds": seconds, "limit": limit}
    query = files.load("queries/summary/ended.sql", schema)
    return Statement("summary/ended", query, params, lambda rows: [Ended(row[1], row[2]) for row in rows])


def failures(schema: str, *, sample: int, limit: int) -> Statement[list[Failure]]:
    """Group the newest `sample` failed instances and tasks each, the largest group first."""
    query = files.load("queries/summary/failures.sql", schema)

    def groups(rows: Sequence[Row]) -> list[Failure]:
        return [
            Failure(name, step, kind, reason, many, _time(newest), is_task)
            for name, step, kind, reason, many, newest, is_task in rows
        ]

    return Statement("summary/failures", query, {"sample": sample, "limit": limit}, groups)


def workers(schema: str) -> Statement[WorkerCounts]:
    """Count the workers."""
    query = files.load("queries/summary/workers.sql", schema)
    return Statement("summary/workers", query, {}, lambda rows: WorkerCounts._make(rows[0]))


def about(schema: str) -> Statement[About]:
    """Read the versions of the server and of the schema."""
    query = files.load("queries/summary/about.sql", schema)
    return Statement("summary/about", query, {}, lambda rows: About._make(rows[0]))
