"""The context of a running task: its job, its attempt, and what was stored with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pgflow.core.definition.context import Context
from pgflow.core.definition.control import Control, Controlled
from pgflow.errors import JobNotFound

__all__ = ["TaskContext", "current_job", "running"]


@dataclass(frozen=True, slots=True)
class TaskContext(Controlled):
    """The job that runs a task: the value of a parameter annotated with it, and of `current_job()`.

    - `id`: the job's id; `task`: the task's name; `queue`: the queue it was claimed from.
    - `attempt`: the number of this attempt, from 1, of `max_attempts`. An attempt that was lost with its worker is
      repeated under the same number.
    - `tags`, `metadata`: those of the task and of the enqueue. `enqueued_at`: when it was enqueued.
    - `conn`: in a task with `transactional=True` the database connection, whose writes commit together with the task's
      result; otherwise None.
    - `idempotency_key`: the same in all attempts of a job, and in no other job: pass it to services that take one.

    - `cancelled`, `progress`, `checkpoint` and `checkpointed` are those of `Context`.

    Everything has a default, so in a unit test `TaskContext()` is enough.

        @task
        def send_receipt(ctx: TaskContext, order_id: int) -> None:
            post(order_id, headers={"Idempotency-Key": ctx.idempotency_key})
    """

    id: int = 0
    task: str = ""
    attempt: int = 1
    max_attempts: int = 1
    queue: str = "default"
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    enqueued_at: datetime | None = None
    conn: Any = None
    idempotency_key: str = ""
    control: Control = field(default_factory=Control, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.idempotency_key:
            object.__setattr__(self, "idempotency_key", f"{self.task}:{self.id}")

    @classmethod
    def of_step(cls, ctx: Context[Any], *, id: int = 0, queue: str = "default", max_attempts: int = 1) -> TaskContext:  # noqa: A002 -- as in the field
        """Return the context of a workflow's step, for `current_job()`: its task is "OrderFlow.charge"."""
        return cls(
            id=id,
            task=f"{ctx.workflow}.{ctx.step}",
            attempt=ctx.attempt,
            max_attempts=max_attempts,
            queue=queue,
            metadata=ctx.metadata,
            conn=ctx.conn,
            idempotency_key=ctx.idempotency_key,
            control=ctx.control,
        )


# A function for a step: most steps never ask for it.
CURRENT: ContextVar[TaskContext | Callable[[], TaskContext]] = ContextVar("pgflow_current_job")


def current_job() -> TaskContext:
    """Return the context of the job that this code runs in: of a task, or of a workflow's step. Raises `JobNotFound`.

    It works in async and in sync tasks, and in the functions that they call. A thread that a task starts itself has it
    only if it runs in a copy of the task's context variables (`asyncio.to_thread` does that).

        log.info("attempt %s of job %s", current_job().attempt, current_job().id)
    """
    ctx = CURRENT.get(None)
    if ctx is None:
        raise JobNotFound("current_job() was called outside of a job", hint="A task can have a TaskContext parameter.")
    return ctx if isinstance(ctx, TaskContext) else ctx()


class running:
    """Make `ctx`, or what it returns, the current job inside the `with` block."""

    __slots__ = ("_ctx", "_token")

    def __init__(self, ctx: TaskContext | Callable[[], TaskContext]) -> None:
        self._ctx = ctx

    def __enter__(self) -> None:
        self._token = CURRENT.set(self._ctx)

    def __exit__(self, *exception: object) -> None:
        CURRENT.reset(self._token)
