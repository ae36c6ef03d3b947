"""What callers read about tasks: the answer of an enqueue, and one execution with its attempts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pgflow.core.engine.state import Status

__all__ = ["Enqueued", "TaskFilters", "TaskInstance"]


@dataclass(frozen=True, slots=True)
class Enqueued:
    """The answer of an enqueue: the `id` of the job that holds the task.

    `created` is False if an earlier enqueue with the same unique key made the job; None as `id` if the conflict policy
    was "skip".
    """

    id: int | None
    created: bool = True


@dataclass(frozen=True, slots=True)
class TaskInstance:
    """One execution of a task: live (its job), or ended (its row in `task_results`).

    - `id`: the job's id; `task`: the task's name; `args`: the arguments as JSON, by parameter name.
    - `status`: "pending" (not started yet), "running", "waiting" (for the next attempt), "completed", "failed" or
      "cancelled".
    - `attempt`: the number of attempts that have started, of `max_attempts`; `errors`: the failed ones, dicts with
      `reason`, `type` and `attempt`; `error`: why it failed, or the reason of its cancellation.
    - `output`: what it returned, as JSON.
    - `run_at`: when it may start, or its next attempt; `started_at`: the start of the last attempt that ended.
    - `worker`: the id of the worker that runs it or ran it.
    """

    id: int
    task: str
    status: Status
    queue: str
    priority: int
    attempt: int
    max_attempts: int
    args: Mapping[str, Any]
    enqueued_at: datetime
    run_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    worker: int | None = None
    output: Any = None
    error: Mapping[str, Any] | None = None
    errors: tuple[Mapping[str, Any], ...] = ()
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TaskFilters:
    """Validated filters of executions of tasks; None, and empty `tags`, match every one. `args` is JSON text.

    `before` and `after` are the id of the previous page's last entry, with the newest or the oldest first.
    """

    statuses: tuple[str, ...] | None = None
    queue: str | None = None
    tags: tuple[str, ...] = ()
    args: str | None = None
    oldest: bool = False
    before: int | None = None
    after: int | None = None
    limit: int | None = None
