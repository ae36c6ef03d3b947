"""A caller's requests as values. Client methods make them, a backend executes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Generic, TypedDict, TypeVar

from pgflow.core.definition.definition import VersionSet
from pgflow.core.definition.step import Target
from pgflow.core.definition.task import TaskDefinition
from pgflow.core.definition.unique_task import UniqueKey
from pgflow.core.models.bulk import Action, BulkResult
from pgflow.core.models.filters import Filters
from pgflow.core.models.instance import Instance, Scheduled, Started, Unscheduler
from pgflow.core.models.job import Job, JobFilters
from pgflow.core.models.query import Query as FilterQuery
from pgflow.core.models.task import Enqueued, TaskFilters, TaskInstance
from pgflow.core.values.absent import ABSENT

__all__ = [
    "ENDED",
    "AwaitTask",
    "Bulk",
    "Cancel",
    "CancelOptions",
    "CancelTask",
    "Command",
    "CompleteStep",
    "CompleteStepOptions",
    "CompleteTask",
    "Delete",
    "DeleteTask",
    "Enqueue",
    "EnqueueOptions",
    "FailStep",
    "FailStepOptions",
    "FailTask",
    "Find",
    "FindTasks",
    "Get",
    "GetTask",
    "List",
    "ListJobs",
    "ListTasks",
    "Load",
    "Prune",
    "Put",
    "Query",
    "Register",
    "ResumeBulk",
    "Retry",
    "RetryOptions",
    "RetryStepOptions",
    "RetryTask",
    "Runs",
    "ScheduleOptions",
    "ScheduleSignal",
    "Signal",
    "SignalOptions",
    "Start",
    "StartOptions",
    "Unschedule",
    "UnscheduleOptions",
    "UpdateTask",
]

R_co = TypeVar("R_co", covariant=True)

ENDED = ("completed", "failed", "cancelled")  # the statuses of an instance that has ended


class Command(Generic[R_co]):
    """A request that a backend answers with an `R_co`."""

    __slots__ = ()


# -- the options of each call, as its methods take them by keyword


class StartOptions(TypedDict, total=False):
    """How to start: not before `at` (an aware datetime) or for `delay`; with tags and metadata of this instance's own.

    An instance has at most 32 tags, those of its workflow included, of at most 64 characters each.
    `priority` overrides the workflow's: the lowest goes first. `version` names one of the workflow's versions; without
    it `version_for` chooses, which also receives `options`. `telemetry` is stored with the instance; workers add it to
    the metadata of every event they emit about it, below the events' own fields.
    `expires_in`: a timedelta from then on; unless a worker has started it by then, the instance is cancelled with the
    reason "expired". `deadline`: a timedelta within which it must end, instead of the workflow's; otherwise it fails.
    `idempotency_key`: a repeated start with the same key does nothing, and returns what the first one returned.
    """

    version: int | None
    options: Mapping[str, Any] | None
    at: datetime | None
    delay: timedelta | None
    tags: Sequence[str]
    metadata: Mapping[str, Any] | None
    telemetry: Mapping[str, Any] | None
    priority: int | None
    expires_in: timedelta | None
    deadline: timedelta | None
    idempotency_key: str | None


class SignalOptions(TypedDict, total=False):
    """`step` is needed only where several steps wait for the same signal."""

    step: str | Target | None
    idempotency_key: str | None


class ScheduleOptions(TypedDict, total=False):
    """`idempotency_key`: a repeated call with the same key schedules no second signal."""

    idempotency_key: str | None


class UnscheduleOptions(TypedDict, total=False):
    """`idempotency_key`: a repeated call with the same key returns what the first one returned."""

    idempotency_key: str | None


class CancelOptions(TypedDict, total=False):
    """`reason` becomes the instance's error."""

    reason: str | None
    idempotency_key: str | None


class RetryOptions(TypedDict, total=False):
    """`idempotency_key`: a repeated call with the same key retries nothing a second time."""

    idempotency_key: str | None


class RetryStepOptions(RetryOptions, total=False):
    """`step`: retry only this step, which waits for an operator."""

    step: str | Target | None


class CompleteStepOptions(TypedDict, total=False):
    """`event` is needed only for a step with several.

    `idempotency_key`: a repeated call with the same key does nothing a second time.
    """

    event: str | None
    idempotency_key: str | None


class FailStepOptions(TypedDict, total=False):
    """`reason` becomes that of the instance's error; without one it is that of the last attempt.

    `idempotency_key`: a repeated call with the same key does nothing a second time.
    """

    reason: str | None
    idempotency_key: str | None


class EnqueueOptions(TypedDict, total=False):
    """How to enqueue: not before `at` (an aware datetime) or for `delay`; with tags and metadata of this job's own.

    `queue`, `priority` (the lowest goes first) and `max_attempts` override those of the task. A job has at most 32
    tags, those of its task included. `telemetry` is added to the metadata of every event about the job.
    `expires_in`: a timedelta from when it is due; unless a worker has started it by then, it is cancelled with the
    reason "expired".
    `idempotency_key`: a repeated enqueue with the same key does nothing, and returns what the first one returned.
    """

    at: datetime | None
    delay: timedelta | None
    queue: str | None
    priority: int | None
    max_attempts: int | None
    tags: Sequence[str]
    metadata: Mapping[str, Any] | None
    telemetry: Mapping[str, Any] | None
    expires_in: timedelta | None
    idempotency_key: str | None


# -- commands that change something


@dataclass(frozen=True, slots=True)
class Start(Command[list[Started]]):
    """Start an instance for each (value, input), or (value,) without an input, all in one transaction."""

    workflow: VersionSet
    items: tuple[tuple[str, Any] | tuple[str], ...]
    version: int | None = None
    options: Mapping[str, Any] | None = None
    at: datetime | None = None
    delay: timedelta | None = None
    tags: Sequence[str] = ()
    metadata: Mapping[str, Any] | None = None
    telemetry: Mapping[str, Any] | None = None
    priority: int | None = None
    expires_in: timedelta | None = None
    deadline: timedelta | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class Signal(Command[str]):
    """Send a signal to the newest run of a value. The answer is "delivered" or "kept"."""

    workflow: VersionSet
    value: str
    event: str
    payload: Any = ABSENT
    step: str | Target | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class ScheduleSignal(Command[Scheduled]):
    """Send a signal to one step later. `app` is what the handle's `cancel` calls."""

    workflow: VersionSet
    value: str
    step: str | Target
    delay: timedelta
    app: Unscheduler = field(repr=False, compare=False)
    event: str | None = None
    payload: Any = ABSENT
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class Unschedule(Command[bool]):
    """Cancel a scheduled signal. The answer is whether it was still to be sent."""

    id: int
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class Cancel(Command[None]):
    """Cancel the newest run of a value."""

    workflow: VersionSet
    value: str
    reason: str | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class Retry(Command[None]):
    """Retry the newest run of a value from the step that failed, or a step (None: all) that waits for an operator."""

    workflow: VersionSet
    value: str
    step: str | Target | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class CompleteStep(Command[None]):
    """Complete a step of the newest run of a value that waits for an operator."""

    workflow: VersionSet
    value: str
    step: str | Target
    output: Any = ABSENT
    event: str | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class FailStep(Command[None]):
    """Fail a step of the newest run of a value that waits for an operator, and with it the instance."""

    workflow: VersionSet
    value: str
    step: str | Target
    reason: str | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class Put(Command[int]):
    """Store a whole instance. The answer is its run id."""

    instance: Instance


@dataclass(frozen=True, slots=True)
class Delete(Command[int]):
    """Delete all runs that match, which have the business id of `filters`. The answer is how many."""

    filters: Filters


@dataclass(frozen=True, slots=True)
class Prune(Command[int]):
    """Delete instances that ended longer ago than `older_than` with one of `statuses`. The answer is how many."""

    older_than: timedelta
    statuses: Iterable[str] = ENDED


@dataclass(frozen=True, slots=True)
class SweepPayloads(Command[int]):
    """Delete the objects of the payload store, older than `older_than`, that no row refers to. Answers how many."""

    older_than: timedelta


@dataclass(frozen=True, slots=True)
class Bulk(Command[BulkResult]):
    """Change all instances that a filter matches, `batch` at a time, each batch in its own transaction.

    `options` are those of the action: `reason` of a cancel, `queue`, `priority`, or `at` as an ISO 8601 text. `by` is
    recorded beside the database user. `on_progress` gets how many were worked off and how many there are.
    """

    action: Action
    filter: FilterQuery
    options: Mapping[str, Any] = field(default_factory=dict)
    dry_run: bool = False
    by: str | None = None
    batch: int = 500
    on_progress: Callable[[int, int], None] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class ResumeBulk(Command[BulkResult]):
    """Continue a bulk operation, by the number of its audit row, where it stopped."""

    operation: int
    batch: int = 500


@dataclass(frozen=True, slots=True)
class Register(Command[None]):
    """Store the definitions of the app, unless they are stored."""


@dataclass(frozen=True, slots=True)
class Enqueue(Command[list[Enqueued]]):
    """Enqueue a task once for each of `arguments`, which are JSON objects as text, all in one transaction.

    `queue`, `priority` and `max_attempts` override those of the task. `unique` has a key for each of `arguments`,
    which have been validated.
    """

    task: TaskDefinition
    arguments: tuple[str, ...]
    unique: UniqueKey | None = None
    at: datetime | None = None
    delay: timedelta | None = None
    queue: str | None = None
    priority: int | None = None
    max_attempts: int | None = None
    tags: Sequence[str] = ()
    metadata: Mapping[str, Any] | None = None
    telemetry: Mapping[str, Any] | None = None
    expires_in: timedelta | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class CancelTask(Command[None]):
    """Cancel a task that has not ended. Raises `JobNotFound`, `NotActive`."""

    task: TaskDefinition | None
    id: int
    reason: str | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class RetryTask(Command[None]):
    """Run a failed or cancelled task once more, with all its attempts; or one that waits, also for an operator, now.

    Raises `JobNotFound`, and `NotRetryable` for one that is pending, running or completed.
    """

    task: TaskDefinition | None
    id: int
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class CompleteTask(Command[None]):
    """Complete a task that waits for an operator, with an output. Raises `JobNotFound`, `NotActive`."""

    task: TaskDefinition | None
    id: int
    output: Any = None
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class FailTask(Command[None]):
    """Fail a task that waits for an operator. Raises `JobNotFound`, `NotActive`."""

    task: TaskDefinition | None
    id: int
    reason: str | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class UpdateTask(Command[None]):
    """Move a task that has not ended and does not run to another queue, priority or time; None changes nothing.

    `delay` counts from now: zero lets it run at once. Raises `JobNotFound`, `NotActive`, and `AlreadyStarted` while it
    runs.
    """

    task: TaskDefinition | None
    id: int
    queue: str | None = None
    priority: int | None = None
    at: datetime | None = None
    delay: timedelta | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class DeleteTask(Command[None]):
    """Delete an execution of a task, also one that ended. Raises `JobNotFound`, and `AlreadyStarted` while it runs."""

    task: TaskDefinition | None
    id: int
    idempotency_key: str | None = None


# -- commands that read


@dataclass(frozen=True, slots=True)
class GetTask(Command[TaskInstance]):
    """Read one execution of a task (of any task for None) by its job's id. Raises `JobNotFound`."""

    task: TaskDefinition | None
    id: int


@dataclass(frozen=True, slots=True)
class ListTasks(Command[list[TaskInstance]]):
    """Read a page of executions of one task, or of all."""

    filters: TaskFilters
    task: TaskDefinition | None = None


@dataclass(frozen=True, slots=True)
class AwaitTask(Command[TaskInstance]):
    """Wait until a task has ended, for `timeout` at most. Raises `StillRunning` after that, and `JobNotFound`."""

    task: TaskDefinition | None
    id: int
    timeout: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Get(Command[Instance]):
    """Read the newest run of a value, with its history."""

    workflow: VersionSet
    value: str


@dataclass(frozen=True, slots=True)
class List(Command[list[Instance]]):
    """Read a page of instances, without their histories."""

    filters: Filters


@dataclass(frozen=True, slots=True)
class Find(Command[list[Instance]]):
    """Read a page of the instances that a filter matches, without their histories.

    `page` has the order, the limit and the run that precedes the page; its other filters are not used.
    """

    filter: FilterQuery
    page: Filters


@dataclass(frozen=True, slots=True)
class FindTasks(Command[list[TaskInstance]]):
    """Read a page of the executions of tasks that a filter matches; `page` as in `Find`."""

    filter: FilterQuery
    page: Filters


@dataclass(frozen=True, slots=True)
class Runs(Command[list[Instance]]):
    """Read a page of the runs of a value, without their histories."""

    workflow: VersionSet
    value: str
    before: int | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class ListJobs(Command[list[Job]]):
    """Read a page of live jobs, of one workflow or of all."""

    filters: JobFilters
    workflow: VersionSet | None = None


@dataclass(frozen=True, slots=True)
class Load(Command[Instance]):
    """Read the newest run that matches, which has the business id of `filters`, as a whole."""

    filters: Filters


@dataclass(frozen=True, slots=True)
class Query(Command[list[Instance]]):
    """Read all instances that match, as wholes."""

    filters: Filters
