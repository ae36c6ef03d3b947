"""What callers read about tasks: the answer of an enqueue, and one execution with its attempts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self, TypedDict, get_args

from pgflow.core.definition.control import Progress
from pgflow.core.engine.state import Status
from pgflow.core.models.filters import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE, Order, read_statuses
from pgflow.core.values.containment import contains
from pgflow.core.values.names import check_options
from pgflow.core.values.payload import decode
from pgflow.core.values.query_args import check_tag_filter, check_text, encode_filter, is_integer, refuse

__all__ = ["MAX_JOB_ID", "Enqueued", "TaskFilters", "TaskInstance", "TaskListOptions"]

MAX_JOB_ID = 2**63 - 1


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
    - `progress`: what it has reported last, while it is live.
    - `is_paused`: its attempts are used up, and it waits for an operator, who retries it, completes it or fails it.
    - `unreadable`: which stored values could not be read, and why; they are left out.
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
    unreadable: str | None = None
    progress: Progress | None = None
    is_paused: bool = False


class TaskListOptions(TypedDict, total=False):
    """Filters for executions of tasks; an execution must match all of them.

    - `status`: one status or several. `queue`: its queue.
    - `tags`: tags that it has, all of them.
    - `args`: JSON that its arguments contain, as `@>` in PostgreSQL.
    - `order`: "newest" (default) or "oldest" first, by id.
    - `limit`: executions in a page, from 1 to 10,000, by default 50.
    - `before`, `after`: the id of the previous page's last one, with the newest or the oldest first.
    """

    status: str | Sequence[str] | None
    queue: str | None
    tags: Sequence[str] | None
    args: Mapping[str, Any] | None
    order: Order
    before: int | None
    after: int | None
    limit: int


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

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """Return the filters given to a call.

        Raises `UnknownOption` for an unknown filter, and `InvalidValue` or `InvalidPayload` for an invalid value.
        """
        check_options("filter", options, TaskListOptions)
        limit, order = options.get("limit", DEFAULT_PAGE_SIZE), options.get("order", "newest")
        if not is_integer(limit, 1, MAX_PAGE_SIZE):
            refuse("limit", limit, f"a page has 1 to {MAX_PAGE_SIZE:,} jobs", "Read on with before= or after=.")
        if order not in get_args(Order):
            refuse("order", order, 'it must be "newest" or "oldest"')
        for name in ("before", "after"):
            if (job := options.get(name)) is not None and not is_integer(job, 0, MAX_JOB_ID):
                refuse(name, job, "it must be the id of a job")
        args = options.get("args")
        if args is not None and not isinstance(args, Mapping):
            refuse("args", args, "it must be a dict of arguments by name")
        return cls(
            statuses=read_statuses(options.get("status")),
            queue=check_text("queue", options.get("queue")),
            tags=check_tag_filter(options.get("tags")),
            args=encode_filter("args", args),
            oldest=order == "oldest",
            before=options.get("before"),
            after=options.get("after"),
            limit=limit,
        )

    def page(self, found: Iterable[TaskInstance]) -> list[TaskInstance]:
        """Return the matching executions of `found`, in the requested order, up to the limit."""
        kept = sorted(filter(self.matches, found), key=lambda each: each.id, reverse=not self.oldest)
        return kept[: self.limit]

    def matches(self, each: TaskInstance) -> bool:
        """Whether an execution matches all filters."""
        return (
            (self.statuses is None or each.status in self.statuses)
            and self.queue in (None, each.queue)
            and set(self.tags).issubset(each.tags)
            and (self.args is None or contains(each.args, decode(self.args)))
            and (self.before is None or each.id < self.before)
            and (self.after is None or each.id > self.after)
        )
