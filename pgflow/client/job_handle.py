"""A handle on one job of a task: its result, its state, and the calls that change it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Generic, TypeVar, Unpack, cast

from pgflow.client.backend import Backend
from pgflow.client.commands import (
    AwaitTask,
    CancelOptions,
    CancelTask,
    Command,
    CompleteTask,
    FailStepOptions,
    FailTask,
    GetTask,
    RetryOptions,
    RetryTask,
    UpdateTask,
)
from pgflow.core.definition.registry import Registry
from pgflow.core.definition.task import TaskDefinition
from pgflow.core.models.task import MAX_JOB_ID, TaskInstance
from pgflow.core.values.duration import is_duration
from pgflow.core.values.names import check_options
from pgflow.core.values.query_args import is_integer
from pgflow.errors import AlreadyEnqueued, InvalidValue, TaskCancelled, TaskFailed

__all__ = ["JobHandle"]

R_co = TypeVar("R_co", covariant=True)


class JobHandle(Generic[R_co]):
    """One job of a task, as `enqueue` returns it, or `app.job(17)` for an id that was stored.

    - `id`: the job's id. Raises `AlreadyEnqueued` where the enqueue was skipped: a job with its unique key exists.
    - `task`: the task's name; None for a job of any task.
    - `created`: False where an earlier enqueue with the same unique key had made the job.

    Each call has an async twin. All raise `JobNotFound` for an id that no job has, or one of another task.

        handle = send_receipt.enqueue(7)
        handle.result(timeout=10)    # Receipt(number="r-1")
    """

    __slots__ = ("_backend", "_definition", "_id", "_registry", "created")

    def __init__(
        self,
        backend: Backend,
        registry: Registry,
        definition: TaskDefinition | None,
        id: int | None,  # noqa: A002 -- "id" is the word for it in all of the API
        *,
        created: bool = False,
    ) -> None:
        if id is not None and not is_integer(id, 0, MAX_JOB_ID):
            raise InvalidValue(f"{id!r} is not the id of a job", hint="Give a whole number, as in app.job(17).")
        self._backend = backend
        self._registry = registry
        self._definition = definition
        self._id = id
        self.created = created

    @property
    def id(self) -> int:
        """The job's id. Raises `AlreadyEnqueued` where nothing was enqueued."""
        if self._id is None:
            raise AlreadyEnqueued(
                f"{self.task} was not enqueued: a job with its unique key exists",
                hint='Its id is known with on_conflict="existing", the default.',
            )
        return self._id

    @property
    def task(self) -> str | None:
        """The task's name; None for a job of any task."""
        return None if self._definition is None else self._definition.name

    def __repr__(self) -> str:
        return f"JobHandle(id={self._id}, task={self.task!r}, created={self.created})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, JobHandle):
            return NotImplemented
        return self._id is not None and (self._backend, self._id) == (other._backend, other._id)

    def __hash__(self) -> int:
        return hash((id(self._backend), self._id))

    # -- the result

    def result(self, timeout: float | timedelta | None = None) -> R_co:
        """Wait until the task has ended, and return its output in the declared type.

        `timeout` is in seconds, None for as long as it takes. Raises `TaskFailed` and `TaskCancelled`, and
        `StillRunning` (a `TimeoutError`) after the timeout.
        """
        return self._output(self._backend.execute(self._wait(timeout)))

    async def aresult(self, timeout: float | timedelta | None = None) -> R_co:  # noqa: ASYNC109 -- as its sync twin
        """`result`, async."""
        return self._output(await self._backend.aexecute(self._wait(timeout)))

    def _wait(self, timeout: float | timedelta | None) -> AwaitTask:
        if timeout is None or isinstance(timeout, timedelta):
            span = timeout
        elif isinstance(timeout, int | float) and not isinstance(timeout, bool) and 0 <= timeout <= 1e9:
            span = timedelta(seconds=timeout)
        else:
            raise InvalidValue(f"timeout={timeout!r} is refused: give seconds, a timedelta, or None for no limit")
        if span is not None and not is_duration(span):
            raise InvalidValue(f"timeout={timeout!r} is refused: give a positive duration, or None for no limit")
        return AwaitTask(self._definition, self.id, span)

    def _output(self, ended: TaskInstance) -> R_co:
        who = f"job {ended.id} ({ended.task})"
        reason = (ended.error or {}).get("reason")
        match ended.status:
            case "failed":
                hint = f"See its attempts: pgflow job show {ended.id}. Run it once more: pgflow job retry {ended.id}."
                raise TaskFailed(f"{who} failed: {reason or 'no reason is stored'}", hint=hint, job=ended.id)
            case "cancelled":
                hint = f"Run it after all: pgflow job retry {ended.id}."
                raise TaskCancelled(f"{who} was cancelled" + (f": {reason}" if reason else ""), hint=hint, job=ended.id)
        task = self._definition
        if task is None and (known := self._registry.tasks_by_name.get(ended.task)) is not None:
            task = known.definition
        return cast("R_co", ended.output if task is None else task.output.read(json.dumps(ended.output)))

    # -- its state

    def get(self, *, conn: Any = None) -> TaskInstance:
        """Read the job: its status, its attempts, and its output as JSON."""
        return self._backend.execute(GetTask(self._definition, self.id), conn)

    async def aget(self, *, conn: Any = None) -> TaskInstance:
        """`get`, async."""
        return await self._backend.aexecute(GetTask(self._definition, self.id), conn)

    # -- changes

    def cancel(self, *, conn: Any = None, **options: Unpack[CancelOptions]) -> None:
        """Cancel the job, also while it runs: its result is then discarded. Raises `NotActive` after its end."""
        self._backend.execute(self._cancel(options), conn)

    async def acancel(self, *, conn: Any = None, **options: Unpack[CancelOptions]) -> None:
        """`cancel`, async."""
        await self._backend.aexecute(self._cancel(options), conn)

    def retry(self, *, conn: Any = None, **options: Unpack[RetryOptions]) -> None:
        """Run a failed or cancelled job once more, with all its attempts; one that waits for its next attempt runs now.

        One that waits for an operator runs with as many attempts more as its task has.

        Raises `NotRetryable` for one that is pending, running or completed.
        """
        self._backend.execute(self._retry(options), conn)

    async def aretry(self, *, conn: Any = None, **options: Unpack[RetryOptions]) -> None:
        """`retry`, async."""
        await self._backend.aexecute(self._retry(options), conn)

    def run_now(self, *, conn: Any = None) -> None:
        """Run a job now that is scheduled for later. Raises `NotActive` after its end, `AlreadyStarted` if it runs."""
        self._backend.execute(self._run_now(), conn)

    async def arun_now(self, *, conn: Any = None) -> None:
        """`run_now`, async."""
        await self._backend.aexecute(self._run_now(), conn)

    def complete(self, output: Any = None, *, conn: Any = None, idempotency_key: str | None = None) -> None:
        """Complete a job that waits for an operator, with an output of the task's type, as if it had run to its end.

        A job waits for an operator when its attempts are used up and its task has `Retry(on_exhausted="pause")`. Raises
        `NotActive` for any other, and `InvalidInput` for an output that is not of the type.

            send_receipt.job(17).complete(Receipt(number="r-1"))
        """
        self._backend.execute(CompleteTask(self._definition, self.id, output, idempotency_key), conn)

    async def acomplete(self, output: Any = None, *, conn: Any = None, idempotency_key: str | None = None) -> None:
        """`complete`, async."""
        await self._backend.aexecute(CompleteTask(self._definition, self.id, output, idempotency_key), conn)

    def fail(self, *, conn: Any = None, **options: Unpack[FailStepOptions]) -> None:
        """Fail a job that waits for an operator; it can still be retried. Raises `NotActive` for any other."""
        self._backend.execute(self._fail(options), conn)

    async def afail(self, *, conn: Any = None, **options: Unpack[FailStepOptions]) -> None:
        """`fail`, async."""
        await self._backend.aexecute(self._fail(options), conn)

    def _fail(self, options: Mapping[str, Any]) -> Command[None]:
        check_options("option", options, FailStepOptions)
        return FailTask(self._definition, self.id, **options)

    def _cancel(self, options: Mapping[str, Any]) -> Command[None]:
        check_options("option", options, CancelOptions)
        return CancelTask(self._definition, self.id, **options)

    def _retry(self, options: Mapping[str, Any]) -> Command[None]:
        check_options("option", options, RetryOptions)
        return RetryTask(self._definition, self.id, **options)

    def _run_now(self) -> Command[None]:
        return UpdateTask(self._definition, self.id, delay=timedelta(0))
