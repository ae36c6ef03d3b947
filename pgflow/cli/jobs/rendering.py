"""Render jobs of tasks: as text for people, and as objects for JSON documents."""

from datetime import UTC, datetime
from typing import Any

from pgflow.cli.instances.rendering import format_elapsed
from pgflow.cli.output import format_time, printable
from pgflow.core.models.task import TaskInstance

__all__ = ["describe", "elapsed", "job_record"]


def job_record(job: TaskInstance) -> dict[str, Any]:
    """Return a job as an object of a JSON document; numbers that identify are strings."""
    return {
        "id": str(job.id),
        "task": job.task,
        "status": job.status,
        "queue": job.queue,
        "priority": job.priority,
        "attempt": job.attempt,
        "max_attempts": job.max_attempts,
        "args": job.args,
        "enqueued_at": job.enqueued_at,
        "run_at": job.run_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "worker": None if job.worker is None else str(job.worker),
        "output": job.output,
        "error": job.error,
        "errors": job.errors,
        "tags": job.tags,
        "metadata": job.metadata,
        "is_paused": job.is_paused,
    }


def describe(job: TaskInstance) -> str | None:
    """Describe what a job waits for, or why it failed or was cancelled; None where its status is all there is.

    describe(job)    # "retry at 2030-01-31 12:00:00Z (attempt 2 of 5): ConnectionError: refused"
    """
    failure = job.error or (job.errors[-1] if job.errors and job.finished_at is None else None)
    reason = None
    if failure is not None:
        kind, text = failure.get("type", "Error"), str(failure.get("reason", "no reason given"))
        reason = text if kind == "Error" else f"{kind}: {text}"
    match job.status:
        case "waiting" if job.is_paused:
            state: str | None = f"waits for an operator after attempt {job.attempt}"
        case "waiting":
            next_attempt = f"(attempt {job.attempt + 1} of {job.max_attempts})"
            state = f"retry at {format_time(job.run_at)} {next_attempt}"
        case "pending" if job.run_at is not None and job.run_at > datetime.now(UTC):
            state = f"scheduled for {format_time(job.run_at)}"
        case "running" if job.attempt > 1:
            state = f"attempt {job.attempt} of {job.max_attempts}"
        case _:
            state = None
    parts = [part for part in (state, reason) if part]
    return printable(": ".join(parts)) if parts else None


def elapsed(job: TaskInstance) -> str:
    """Return the time from the enqueue to the end, or until now."""
    # This machine's clock is good enough for display; decisions use the database's.
    return format_elapsed((job.finished_at or datetime.now(UTC)) - job.enqueued_at)
