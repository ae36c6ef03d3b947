"""Rows of instances as the dashboard reads them. A time that Python cannot represent becomes the nearest one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from pgflow.core.models.job import progress_of
from pgflow.core.values.payload import decode
from pgflow.database.statement import Row
from pgflow.errors import InvalidPayload
from pgflow.store.instance_rows import DecodeErrors

__all__ = ["Listed", "ListedJob", "LiveJob", "Other", "Recorded", "Run", "SentSignal", "failures"]


def _time(text: str | None) -> datetime | None:
    return None if text is None else DecodeErrors().timestamp("a time", text)


def _known(text: str | None) -> datetime:
    return DecodeErrors().timestamp("a time", text or "infinity")


def _worker(node: str | None, pid: int | None, worker: int | None) -> str | None:
    return f"{node}:{pid}" if node is not None else None if worker is None else f"worker {worker}"


def failures(text: str | None) -> list[dict[str, Any]]:
    """Return the failed attempts of a step, oldest first; an unreadable text is one entry with the reason."""
    if text is None:
        return []
    try:
        found = decode(text, extra_levels=1)
    except InvalidPayload as error:
        return [{"type": "Unreadable", "reason": str(error)}]
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


@dataclass(frozen=True, slots=True)
class ListedJob:
    """A live job in a list."""

    step: str
    kind: str
    state: str
    attempt: int
    run_at: datetime | None
    has_failed: bool


@dataclass(frozen=True, slots=True)
class Listed:
    """An instance in a list: `jobs` are at most four of its `job_count` live ones; `done` of `total` steps are over."""

    run: int
    id: str
    workflow: str
    version: int
    status: str
    tags: tuple[str, ...]
    created_at: datetime
    finished_at: datetime | None
    deadline: datetime | None
    error_step: str | None
    error_type: str | None
    error_reason: str | None
    jobs: tuple[ListedJob, ...]
    job_count: int
    done: int
    total: int | None

    @classmethod
    def of(cls, row: Row) -> Self:
        """Decode a row of sql/queries/run/page.sql."""
        run, id_, workflow, version, status, tags, created, finished, deadline, *rest = row
        error_step, error_type, error_reason, jobs, job_count, done, total = rest
        return cls(
            run=run,
            id=id_,
            workflow=workflow,
            version=version,
            status=status,
            tags=tuple(tags or ()),
            created_at=_known(created),
            finished_at=_time(finished),
            deadline=_time(deadline),
            error_step=error_step,
            error_type=error_type,
            error_reason=error_reason,
            jobs=tuple(
                ListedJob(j["step"], j["kind"], j["state"], j["attempt"], _time(j["run_at"]), j["has_failed"])
                for j in decode(jobs or "[]")
            ),
            job_count=job_count,
            done=done,
            total=total,
        )


@dataclass(frozen=True, slots=True)
class Run:
    """One instance; `input`, `metadata` and `error` are JSON texts, of a large one the beginning."""

    run: int
    id: str
    workflow: str
    version: int
    status: str
    tags: tuple[str, ...]
    created_at: datetime
    finished_at: datetime | None
    deadline: datetime | None
    input: str
    input_size: int
    metadata: str
    error: str | None
    now: datetime

    @classmethod
    def of(cls, row: Row) -> Self:
        """Decode a row of sql/queries/run/get.sql."""
        run, id_, workflow, version, status, tags, created, finished, deadline, *values = row
        text, size, metadata, error, now = values
        return cls(
            run=run,
            id=id_,
            workflow=workflow,
            version=version,
            status=status,
            tags=tuple(tags or ()),
            created_at=_known(created),
            finished_at=_time(finished),
            deadline=_time(deadline),
            input=text,
            input_size=size,
            metadata=metadata,
            error=error,
            now=_known(now),
        )


@dataclass(frozen=True, slots=True)
class Recorded:
    """The result of a step; `output` is JSON text, of a large one the beginning. `worker` is "node:pid"."""

    step: str
    event: str
    targets: tuple[str, ...] | None
    started_at: datetime
    finished_at: datetime
    attempt: int
    worker: str | None
    is_applied: bool
    output: str | None
    output_size: int | None
    errors: str | None

    @classmethod
    def of(cls, row: Row) -> Self:
        """Decode a row of sql/queries/run/results.sql."""
        step, event, targets, started, finished, attempt, worker, node, pid, *rest = row
        routed = None if targets is None else tuple(targets)
        return cls(step, event, routed, _known(started), _known(finished), attempt, _worker(node, pid, worker), *rest)


@dataclass(frozen=True, slots=True)
class LiveJob:
    """A live job with what decides when it runs: its queue's pause, limits and number of workers."""

    id: int
    step: str
    kind: str
    state: str
    queue: str
    priority: int
    attempt: int
    max_attempts: int
    run_at: datetime | None
    parked_at: datetime | None
    worker: str | None
    awaits: dict[str, str]
    errors: str | None
    progress_at: float | None
    progress_note: str
    key: str | None
    paused_at: datetime | None
    paused_by: str | None
    is_limited: bool
    concurrency: int | None
    key_concurrency: int | None
    workers: int

    @classmethod
    def of(cls, row: Row) -> Self:
        """Decode a row of sql/queries/run/jobs.sql."""
        id_, step, kind, state, queue, priority, attempt, max_attempts, run_at, parked_at, *rest = row
        worker, node, pid, awaits, errors, progress, key, paused_at, paused_by, *limits = rest
        decoding = DecodeErrors()
        reported = decoding.decode("progress", lambda: progress_of(progress), None)
        waits: Any = decoding.decode("awaits", lambda: decode(awaits or "{}"), None)
        return cls(
            *(id_, step, kind, state, queue, priority, attempt, max_attempts, _time(run_at), _time(parked_at)),
            _worker(node, pid, worker),
            {str(name): str(event) for name, event in waits.items()} if isinstance(waits, dict) else {},
            errors,
            None if reported is None else reported.at,
            "" if reported is None else reported.note,
            key,
            _time(paused_at),
            paused_by,
            *limits,
        )


@dataclass(frozen=True, slots=True)
class SentSignal:
    """A signal of an instance: sent, consumed, or scheduled for `due_at`."""

    id: int
    name: str
    step: str | None
    payload: str | None
    payload_size: int | None
    sent_at: datetime | None
    consumed_at: datetime | None
    due_at: datetime | None

    @classmethod
    def of(cls, row: Row) -> Self:
        """Decode a row of sql/queries/run/signals.sql."""
        id_, name, step, payload, size, sent, consumed, due = row
        return cls(id_, name, step, payload, size, _time(sent), _time(consumed), _time(due))


@dataclass(frozen=True, slots=True)
class Other:
    """A run of a business id."""

    run: int
    workflow: str
    status: str
    created_at: datetime

    @classmethod
    def of(cls, row: Row) -> Self:
        """Decode a row of sql/queries/run/others.sql."""
        run, workflow, status, created = row
        return cls(run, workflow, status, _known(created))
