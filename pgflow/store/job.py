"""Claim jobs, settle their outcomes, and keep the queue moving: the statements of the hot path."""

from __future__ import annotations

from builtins import list as Builtin
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple

from psycopg.types.numeric import Int8

from pgflow.core.engine.state import Status
from pgflow.core.models.job import Job, JobFilters, progress_of
from pgflow.core.values.payload import decode
from pgflow.database import files
from pgflow.database.arrays import Bigints, Doubles, Integers, Smallints, Texts
from pgflow.database.statement import Row, Statement
from pgflow.store.job_updates import Branch, Finish, InstanceUpdate, JobUpdate, encode
from pgflow.store.schedule import NO_SCHEDULES, ScheduleScope

__all__ = [
    "QUEUE_START",
    "ClaimedRow",
    "LimitedAnswer",
    "PeekResult",
    "QueuePosition",
    "RepairResult",
    "Report",
    "RescueResult",
    "SettleResult",
    "StageResult",
    "claim",
    "claim_limited",
    "drained",
    "list",
    "peek",
    "reconcile",
    "repair_orphaned",
    "replan",
    "report",
    "rescue",
    "revoked",
    "settle",
    "stage",
]


class ClaimedRow(NamedTuple):
    """A claimed job.

    The instance's columns come with the first job of each run and are None in its other rows. `waited` is the number
    of seconds since the job parked, `age` since the instance was created, or the task enqueued. `key` is its partition
    key, "*" for a job without one in a queue with limits. `moment` is `run_at` in seconds of the epoch, `took` the time
    the server spent on the claim, in seconds; `expires_in` is in how many seconds it expires. A task has no run and no
    instance: its `input` are its arguments, and `tags` and `metadata` are its own.
    """

    id: int
    kind: str
    run: int | None
    step: str
    config: str | None
    queue: str
    priority: int
    attempt: int
    max_attempts: int
    crashes: int
    solo: bool
    awaits: str | None
    errors: str | None
    business_id: str | None
    workflow: str | None
    version: int | None
    status: Status | None
    revision: int | None
    input: str | None
    metadata: str | None
    results: str | None
    signals: str | None
    parked: Sequence[str] | None
    tags: Sequence[str] | None
    waited: float | None
    age: float | None
    key: str | None
    moment: float
    took: float
    expires_in: float | None = None
    checkpoint: str | None = None


class Report(NamedTuple):
    """What a running job has reported: its progress and its checkpoint as JSON texts, None for no new one."""

    id: int
    attempt: int
    step: str
    progress: str | None
    checkpoint: str | None


class LimitedAnswer(NamedTuple):
    """The answer to a claim of a queue with limits.

    "more": there may be more | "done" | "full": no free place | "busy": another worker claims | "paused" | "throttled":
    by a rate. `seconds`: when to claim again if nothing else happens before (None: not until then).
    """

    queue: str
    answer: str
    seconds: float | None = None


@dataclass(frozen=True, order=True, slots=True)
class QueuePosition:
    """A position in a queue's order. A claim from it takes the jobs after it; the default precedes all jobs."""

    priority: int = -32768
    moment: float = -inf
    id: int = 0


class SettleResult(NamedTuple):
    """The result for one job of the batch, or (`is_branch`) for one job that a fan-out inserted.

    `status` is "done", "conflict" (the instance was locked or had moved on: the job is now an advance job), "busy"
    (another session had locked it: settle it again) or "fenced" (the job is not this worker's). `kept`: it runs on
    here. `run` and `step` are None for a task that ends; `is_awaited`: an app waits for tasks.
    """

    id: int
    run: int | None
    step: str | None
    status: str
    kept: bool
    is_branch: bool = False
    is_awaited: bool = False


@dataclass(frozen=True, slots=True)
class StageResult:
    """How many jobs became ready in which queues, and in how many seconds the next one is due (None: none is)."""

    queues: Sequence[str]
    jobs: int
    next_due: float | None


@dataclass(frozen=True, slots=True)
class PeekResult:
    """Whether a job is ready, and in how many seconds a job or signal is due (0: one is due, None: none will be)."""

    ready: bool
    next_due: float | None


@dataclass(frozen=True, slots=True)
class RescueResult:
    """How many jobs were returned to which queues, and in how many seconds the next lease may expire."""

    queues: Sequence[str]
    jobs: int
    next_expiry: float | None = None


@dataclass(frozen=True, slots=True)
class RepairResult:
    """How many orphaned instances got a job, in which queues; `last_run` ends the page (None: it was the last one)."""

    queues: Sequence[str]
    jobs: int
    last_run: int | None


QUEUE_START = QueuePosition()
NO_WATERMARKS: Mapping[str, QueuePosition] = {}
NO_HINTS: Mapping[str, Sequence[str]] = {}


def claim(
    schema: str,
    worker: int,
    capacities: Mapping[str, int],
    watermarks: Mapping[str, QueuePosition] = NO_WATERMARKS,
) -> Statement[Builtin[ClaimedRow]]:
    """Claim up to `capacities[queue]` ready jobs of each queue, the most urgent first, and one quarantined job.

    Of a queue with a watermark, only jobs after it are claimed.
    """
    starts = [watermarks.get(queue, QUEUE_START) for queue in capacities]
    params = {
        "worker": worker,
        "queues": Texts(capacities),
        "capacities": Integers(capacities.values()),
        "priorities": Smallints(start.priority for start in starts),
        "moments": Doubles(start.moment for start in starts),
        "ids": Bigints(start.id for start in starts),
    }
    return Statement("job/claim", files.load("queries/job/claim.sql", schema), params, _claimed, prepare=True)


def claim_limited(
    schema: str, worker: int, rooms: Mapping[str, int], hints: Mapping[str, Sequence[str]] = NO_HINTS
) -> Statement[Builtin[LimitedAnswer]]:
    """Claim up to `rooms[queue]` jobs of queues with limits or partition keys.

    The rows come with a `claim`, which must follow in the same transaction. `hints` are keys of which this worker has
    settled jobs, by queue.
    """
    pairs = [(queue, key) for queue in rooms for key in hints.get(queue, ())]
    params = {
        "worker": worker,
        "queues": Texts(rooms),
        "rooms": Integers(rooms.values()),
        "hint_queues": Texts(queue for queue, _ in pairs),
        "hint_keys": Texts(key for _, key in pairs),
    }
    query = files.load("queries/job/claim_limited.sql", schema)
    return Statement("job/claim_limited", query, params, _answered, prepare=True)


def _answered(rows: Sequence[Row]) -> Builtin[LimitedAnswer]:
    return [*map(LimitedAnswer._make, rows)]


def _claimed(rows: Sequence[Row]) -> Builtin[ClaimedRow]:
    return [*map(ClaimedRow._make, rows)]


def settle(
    schema: str,
    worker: int,
    updates: Sequence[JobUpdate],
    instances: Sequence[InstanceUpdate] = (),
    branches: Sequence[Branch] = (),
    finishes: Sequence[Finish] = (),
) -> Statement[Builtin[SettleResult]]:
    """Write the outcomes of a batch of claimed jobs in one statement."""
    params = {"worker": worker, **encode(updates, instances, branches, finishes)}
    return Statement("job/settle", files.load("queries/job/settle.sql", schema), params, _settled, prepare=True)


def _settled(rows: Sequence[Row]) -> Builtin[SettleResult]:
    return [*map(SettleResult._make, rows)]


def replan(schema: str) -> Statement[None]:
    """Discard the session's plans, so that each statement is planned again for the tables' present size.

    PostgreSQL would keep a plan until the next analyze. The statements leave the planner only the choice of an index
    (sql/README.md), and while a table is empty all indexes cost the same.
    """
    return Statement("job/replan", files.load("queries/job/replan.sql", schema), {}, lambda rows: None)


def peek(schema: str, queues: Iterable[str], schedules: ScheduleScope = NO_SCHEDULES) -> Statement[PeekResult]:
    """Poll: is a job ready in these queues, and when is the next job, signal or schedule due? Claims nothing."""
    params = {"queues": Texts(queues), "targets": Texts(schedules.targets), "declared": Texts(schedules.declared)}
    query = files.load("queries/job/peek.sql", schema)
    return Statement("job/peek", query, params, lambda rows: PeekResult(*rows[0]), prepare=True)


def stage(schema: str, limit: int = 1000) -> Statement[StageResult]:
    """Make up to `limit` due jobs ready, the longest overdue first."""
    return Statement(
        "job/stage",
        files.load("queries/job/stage.sql", schema),
        {"limit": limit},
        lambda rows: StageResult(*rows[0]),
        prepare=True,
    )


def rescue(schema: str, limit: int = 1000) -> Statement[RescueResult]:
    """Return up to `limit` jobs of workers whose lease has expired to their queues."""
    return Statement(
        "job/rescue",
        files.load("queries/job/rescue.sql", schema),
        {"limit": limit},
        lambda rows: RescueResult(*rows[0]),
    )


def repair_orphaned(schema: str, after: int = 0, limit: int = 1000) -> Statement[RepairResult]:
    """Give a job to each active instance without one, among the `limit` active instances after run `after`."""
    params = {"after": Int8(after), "limit": limit}
    return Statement(
        "job/repair_orphaned",
        files.load("queries/job/repair_orphaned.sql", schema),
        params,
        lambda rows: RepairResult(*rows[0]),
    )


def reconcile(schema: str, worker: int, held: Iterable[int]) -> Statement[RescueResult]:
    """Release the jobs that `worker` holds in the database but not in memory (`held`): the reply was lost."""
    params = {"worker": worker, "held": Bigints(held)}
    return Statement(
        "job/reconcile", files.load("queries/job/reconcile.sql", schema), params, lambda rows: RescueResult(*rows[0])
    )


def revoked(schema: str, worker: int, held: Mapping[int, int]) -> Statement[Builtin[int]]:
    """Return the jobs in `held` (id: attempt) whose lease was revoked: cancelled, or rescued by another worker."""
    params = {
        "worker": worker,
        "ids": Bigints(held),
        "attempts": Integers(held.values()),
    }
    return Statement(
        "job/revoked", files.load("queries/job/revoked.sql", schema), params, lambda rows: [row[0] for row in rows]
    )


def report(schema: str, worker: int, reports: Sequence[Report]) -> Statement[Builtin[int]]:
    """Write what running jobs have reported. Returns those that were written: not locked, and still this worker's."""
    params = {
        "worker": worker,
        "ids": Bigints(each.id for each in reports),
        "attempts": Integers(each.attempt for each in reports),
        "steps": Texts(each.step for each in reports),
        "progress": Texts(each.progress for each in reports),
        "checkpoints": Texts(each.checkpoint for each in reports),
    }
    query = files.load("queries/job/report.sql", schema)
    return Statement("job/report", query, params, lambda rows: [row[0] for row in rows], prepare=True)


def drained(schema: str, queues: Iterable[str]) -> Statement[bool]:
    """Return whether these queues are drained: each job left in them waits for a signal that is not scheduled."""
    params = {"queues": Builtin(queues)}
    return Statement(
        "job/drained", files.load("queries/job/drained.sql", schema), params, lambda rows: bool(rows[0][0])
    )


def list(  # noqa: A001 -- path is name: job/list.sql
    schema: str, filters: JobFilters, *, workflow: str | None = None, version: int | None = None
) -> Statement[Builtin[Job]]:
    """Return a page of live jobs, oldest first; `filters.after` is the last id of the previous page."""
    params = {
        "workflow": workflow,
        "version": version,
        "queue": filters.queue,
        "state": filters.state,
        "after": filters.after,
        "tags": Builtin(filters.tags),
        "meta": filters.meta,
        "limit": filters.limit,
    }
    return Statement("job/list", files.load("queries/job/list.sql", schema), params, _jobs)


def _jobs(rows: Sequence[Row]) -> Builtin[Job]:
    return [_job(*row) for row in rows]


def _job(*row: Any) -> Job:
    *known, tags, meta, errors, progress = row
    values: Sequence[Any] = [*known, tuple(tags), decode(meta), tuple(decode(errors)), progress_of(progress)]
    return Job(*values)
