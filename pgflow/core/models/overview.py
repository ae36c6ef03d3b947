"""What people read about a running system: why something waits, what has ended, and which workers there are."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

__all__ = ["Happening", "Reason", "TaskInfo", "Throughput", "WorkerInfo"]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a branch of an instance, or a task, is where it is.

    - `step`: the step, or the task's name; empty for the instance itself. `job`: the live job, None if there is none.
    - `kind`: a word for programs. A branch is "running", "lost" (its worker's lease has expired) or waits for: "timer",
      "signal", "retry", "delay" (a later start), "operator", "join" (other branches), "queue" (its turn),
      "quarantine". What keeps it from being claimed: "paused", "unserved" (no worker), "concurrency", "rate". An
      instance is "orphaned", "completed", "failed" or "cancelled".
    - `reason`: the same in words.
    - `since`: since when, as far as that is known; `until`: when it continues by itself, None if it does not.
    """

    step: str
    job: int | None
    kind: str
    reason: str
    since: datetime | None
    until: datetime | None
    queue: str | None


@dataclass(frozen=True, slots=True)
class Throughput:
    """What has ended within a period: instances of the workflow `name`, or executions of the task (`kind`).

    A count is exact up to 100,000 and an estimate above. `per_second` is that of all three together.
    """

    kind: str
    name: str
    completed: int
    failed: int
    cancelled: int
    per_second: float


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A worker process: `running` is how many jobs it holds, counted up to 10,001."""

    id: int
    node: str
    pid: int
    version: str
    queues: tuple[str, ...]
    started_at: datetime
    lease_expires_at: datetime | None
    is_alive: bool
    running: int


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """A task that an app has registered, with its defaults."""

    name: str
    queue: str
    priority: int | None
    max_attempts: int | None
    registered_at: datetime


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that happened: an instance "started" or ended, a task ended, or an operator did something.

    `subject` is "workflow", "task" or "audit", and `name` that of the workflow or task, or the action. `event` is
    "started", "completed", "failed", "cancelled" or "done". `id` is the business id, or who acted; `number` the run,
    the job or the id of the audit row.
    """

    at: datetime
    subject: str
    name: str
    event: str
    id: str | None
    number: int
    detail: str | None
