"""The overview: what runs, what waits, what has ended, and what needs attention."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from pgflow.store import queue, run, summary
from pgflow.web.rendering.words import COUNT_LIMIT
from pgflow.web.routing.page import Model, Nav, Page, Params, View

__all__ = ["PAGE", "Overview"]

# A window, the number of its spans, and the seconds of each.
WINDOWS = {"1h": (60, 60.0), "24h": (48, 1800.0), "7d": (56, 10_800.0)}
SPAN_LIMIT = 20_000  # of one name, status and span: what a count reads at most
SAMPLE = 1000  # failed instances and tasks that are grouped
QUEUES = 8


class OverviewParams(Params):
    """`window`: how far back the counts of what has ended go."""

    window: Literal["1h", "24h", "7d"] = Field("1h", description="How far back")


class Ended(BaseModel):
    """What ended in one span of the window: instances and tasks together."""

    completed: int
    failed: int


class FailureGroup(BaseModel):
    """Failures of one step, or of one task, with one type of error, among the newest thousand of each."""

    name: str
    step: str | None
    type: str | None
    reason: str | None
    count: int
    newest_at: datetime | None
    is_task: bool


class QueueLine(BaseModel):
    """A queue: what runs and waits in it; `limit` is its global concurrency."""

    name: str
    running: int
    ready: int
    limit: int | None
    paused_at: datetime | None
    paused_by: str | None
    workers: int


class Overview(Model):
    """Counts are bounded: at most `COUNT_LIMIT` + 1 each, which means more than that."""

    window: str
    seconds: float
    running: int
    running_tasks: int
    ready: int
    oldest_ready_at: datetime | None
    waiting: int
    scheduled: int
    retrying: int
    next_attempt_at: datetime | None
    held: int
    failed: int
    completed: int
    ended: tuple[Ended, ...]
    failures: tuple[FailureGroup, ...]
    queues: tuple[QueueLine, ...]
    more_queues: int
    workers: int
    lost_workers: int
    lost_jobs: int
    server_version: str
    migration: int | None
    is_replica: bool

    @property
    def paused(self) -> list[QueueLine]:
        """The queues that are paused."""
        return [each for each in self.queues if each.paused_at is not None]


async def load(view: View[OverviewParams]) -> Overview:
    """Read the overview."""
    schema, limit = view.schema, COUNT_LIMIT + 1
    spans, seconds = WINDOWS[view.params.window]
    jobs = await view.read(summary.jobs(schema, limit=limit))
    states = await view.read(run.states(schema, limit=limit))
    ended = await view.read(summary.ended(schema, spans=spans, seconds=seconds, limit=SPAN_LIMIT))
    failures = await view.read(summary.failures(schema, sample=SAMPLE, limit=6))
    queues = await view.read(queue.list(schema))
    workers = await view.read(summary.workers(schema))
    about = await view.read(summary.about(schema))
    queues.sort(key=lambda each: (each.paused_at is None, -each.ready, -each.running))
    return Overview(
        window=view.params.window,
        seconds=seconds,
        running=jobs.running,
        running_tasks=jobs.running_tasks,
        ready=jobs.ready,
        oldest_ready_at=jobs.oldest_ready_at,
        waiting=jobs.parked,
        scheduled=jobs.scheduled,
        retrying=jobs.retrying,
        next_attempt_at=jobs.next_attempt_at,
        held=jobs.held,
        failed=states.get("failed", 0),
        completed=sum(each.completed for each in ended),
        ended=tuple(Ended(completed=each.completed, failed=each.failed) for each in ended),
        failures=tuple(
            FailureGroup(
                name=each.name,
                step=each.step,
                type=each.type,
                reason=each.reason,
                count=each.many,
                newest_at=each.newest_at,
                is_task=each.is_task,
            )
            for each in failures
        ),
        queues=tuple(
            QueueLine(
                name=each.name,
                running=each.running,
                ready=each.ready,
                limit=None if each.limits is None else each.limits.concurrency,
                paused_at=each.paused_at,
                paused_by=each.paused_by,
                workers=each.workers,
            )
            for each in queues[:QUEUES]
        ),
        more_queues=max(0, len(queues) - QUEUES),
        workers=workers.alive,
        lost_workers=workers.lost,
        lost_jobs=workers.lost_jobs,
        server_version=about.server_version,
        migration=about.migration,
        is_replica=about.is_replica,
    )


PAGE = Page("overview", "/", "Overview", Overview, load, OverviewParams, nav=Nav("Overview", "o", 1))
