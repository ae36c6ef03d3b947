"""The `@task` decorator, and the calls of a task: each goes to the app of the task."""

from __future__ import annotations

import builtins
import functools
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, Unpack, cast, overload

from pgflow.client.apps import Binding, only_app
from pgflow.client.client import Client
from pgflow.client.commands import CancelOptions, EnqueueOptions, RetryOptions
from pgflow.client.job_handle import JobHandle
from pgflow.client.task_call import TaskCall
from pgflow.core.definition.parameters import with_argument
from pgflow.core.definition.rules.callables import unwrapped
from pgflow.core.definition.rules.problems import try_collect
from pgflow.core.definition.task import DefinedTask
from pgflow.core.definition.task_context import CURRENT, TaskContext, current_job
from pgflow.core.definition.task_function import define
from pgflow.core.definition.task_options import TaskOptions
from pgflow.core.models.task import TaskInstance, TaskListOptions
from pgflow.core.values.absent import ABSENT
from pgflow.core.values.names import check_options
from pgflow.errors import DefinitionError

__all__ = ["BoundTask", "Task", "task"]

P = ParamSpec("P")
R = TypeVar("R")  # the output
T = TypeVar("T")  # what calling the function returns: the output, or a coroutine for it
O = TypeVar("O")  # noqa: E741 -- the type given as `output=`


class Enqueueing(ABC, Generic[P, R]):
    """The calls that enqueue, with some options or none: of a `Task`, and of what its `options(…)` returns."""

    @abstractmethod
    def _calls(self) -> BoundTask[P, R]:
        """Return the task with the options."""

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]:
        """Enqueue the task with these arguments; returns once its job is stored, for a worker to run.

        Raises `InvalidInput` for arguments that do not fit the signature, `InvalidPayload` for ones that cannot be
        stored, and `AlreadyEnqueued` where the task is unique with `on_conflict="raise"`.

            handle = send_receipt.enqueue(7, copy=True)
        """
        (handle,) = self._calls().enqueue_many([TaskCall(self._calls().task.definition, args, kwargs)])
        return handle

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]:
        """`enqueue`, async."""
        (handle,) = await self._calls().aenqueue_many([TaskCall(self._calls().task.definition, args, kwargs)])
        return handle

    def enqueue_many(
        self, calls: Iterable[TaskCall[R] | tuple[Any, ...] | Mapping[str, Any]]
    ) -> builtins.list[JobHandle[R]]:
        """Enqueue the task once for each call, all in one transaction, and return the handles in the same order.

        A call is what `call(…)` returns, which is typed like `enqueue`; or a tuple of arguments by position, or a dict
        of arguments by name. Where one of them is refused, none is enqueued.

            send_receipt.enqueue_many(send_receipt.call(order.id, copy=True) for order in orders)
        """
        return self._calls().enqueue_many(calls)

    async def aenqueue_many(
        self, calls: Iterable[TaskCall[R] | tuple[Any, ...] | Mapping[str, Any]]
    ) -> builtins.list[JobHandle[R]]:
        """`enqueue_many`, async."""
        return await self._calls().aenqueue_many(calls)


class BoundTask(Enqueueing[P, R], Generic[P, R]):
    """A task with options for its enqueues, as `send_receipt.options(…)` returns it. It can be used repeatedly."""

    def __init__(self, task: Task[P, R, Any], conn: Any, options: EnqueueOptions) -> None:
        self.task = task
        self._conn = conn
        self._options = options

    def _calls(self) -> BoundTask[P, R]:
        return self

    def enqueue_many(
        self, calls: Iterable[TaskCall[R] | tuple[Any, ...] | Mapping[str, Any]]
    ) -> builtins.list[JobHandle[R]]:
        """Enqueue the task once for each call: see `Task.enqueue_many`."""
        return self.task.bound().enqueue_many(self.task, calls, conn=self._conn, **self._options)

    async def aenqueue_many(
        self, calls: Iterable[TaskCall[R] | tuple[Any, ...] | Mapping[str, Any]]
    ) -> builtins.list[JobHandle[R]]:
        """`enqueue_many`, async."""
        return await self.task.bound().aenqueue_many(self.task, calls, conn=self._conn, **self._options)


class Task(Enqueueing[P, R], DefinedTask, Generic[P, R, T]):
    """A function that workers run in the background: what `@task` makes of it.

    Calling it calls the function, as before. `enqueue` stores the call for a worker. Each call has an async twin, with
    an `a` before its name. Calls go to the app that was made last with this task and is not closed; a task that belongs
    to no app goes to the only open one, which adds it. Without one, or with several, calls raise `NotBound`.

        @task(queue="mail", retry=Retry(max_attempts=10))
        async def send_receipt(order_id: int, *, copy: bool = False) -> Receipt: ...

        handle = send_receipt.enqueue(7, copy=True)
        receipt = await handle.aresult(timeout=10)
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self._binding = Binding()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function.

        A context that is not given is that of the current job, outside of one an empty one.
        """
        function: Any = self.__wrapped__  # type: ignore[attr-defined]  # by update_wrapper
        name = self.definition.takes_context
        if name is None or name in kwargs or any(isinstance(each, TaskContext) for each in args):
            return cast("T", function(*args, **kwargs))
        ctx = TaskContext(task=self.name) if CURRENT.get(None) is None else current_job()
        placed, named = with_argument(function, name, ctx, args, kwargs)
        return cast("T", function(*placed, **named))

    def __reduce__(self) -> str:
        return self.__qualname__  # type: ignore[attr-defined,no-any-return]  # pickled by reference, as a function is

    def __repr__(self) -> str:
        return f"<task {self.name}>" if self.is_valid else "<invalid task>"

    def _calls(self) -> BoundTask[P, R]:
        return BoundTask(self, None, {})

    def call(self, *args: P.args, **kwargs: P.kwargs) -> TaskCall[R]:
        """Return a call of the task with these arguments, for `enqueue_many`."""
        return TaskCall(self.definition, args, kwargs)

    def options(self, *, conn: Any = None, **options: Unpack[EnqueueOptions]) -> BoundTask[P, R]:
        """Return the task with options for its enqueues: see `EnqueueOptions`.

        `conn` is a connection of the caller's: the enqueue then commits or rolls back with its transaction. Raises
        `UnknownOption`.

            send_receipt.options(delay=timedelta(minutes=5), conn=conn).enqueue(7)
        """
        check_options("option", options, EnqueueOptions)
        return BoundTask(self, conn, options)

    # -- jobs by id

    def job(self, id: int) -> JobHandle[R]:  # noqa: A002 -- "id" is the word for it in all of the API
        """Return a handle on the job of this task with this id. It reads nothing yet.

        send_receipt.job(17).result(timeout=10)
        """
        return self.bound().job(id, self)

    def get(self, id: int, *, conn: Any = None) -> TaskInstance:  # noqa: A002 -- as in job
        """Read a job of this task. Raises `JobNotFound`."""
        return self.job(id).get(conn=conn)

    async def aget(self, id: int, *, conn: Any = None) -> TaskInstance:  # noqa: A002 -- as in job
        """`get`, async."""
        return await self.job(id).aget(conn=conn)

    def cancel(self, id: int, *, conn: Any = None, **options: Unpack[CancelOptions]) -> None:  # noqa: A002 -- as in job
        """Cancel a job of this task: see `JobHandle.cancel`. Raises `JobNotFound`, `NotActive`."""
        self.job(id).cancel(conn=conn, **options)

    async def acancel(self, id: int, *, conn: Any = None, **options: Unpack[CancelOptions]) -> None:  # noqa: A002 -- as in job
        """`cancel`, async."""
        await self.job(id).acancel(conn=conn, **options)

    def retry(self, id: int, *, conn: Any = None, **options: Unpack[RetryOptions]) -> None:  # noqa: A002 -- as in job
        """Run a failed or cancelled job once more: see `JobHandle.retry`. Raises `JobNotFound`, `NotRetryable`."""
        self.job(id).retry(conn=conn, **options)

    async def aretry(self, id: int, *, conn: Any = None, **options: Unpack[RetryOptions]) -> None:  # noqa: A002 -- as in job
        """`retry`, async."""
        await self.job(id).aretry(conn=conn, **options)

    def run_now(self, id: int, *, conn: Any = None) -> None:  # noqa: A002 -- as in job
        """Run a job now that is scheduled for later. Raises `JobNotFound`, `NotActive`, `AlreadyStarted`."""
        self.job(id).run_now(conn=conn)

    async def arun_now(self, id: int, *, conn: Any = None) -> None:  # noqa: A002 -- as in job
        """`run_now`, async."""
        await self.job(id).arun_now(conn=conn)

    def list(self, *, conn: Any = None, **options: Unpack[TaskListOptions]) -> builtins.list[TaskInstance]:
        """Read a page of jobs of this task, the newest first: see `TaskListOptions`.

        send_receipt.list(status="failed", args={"order_id": 7})
        """
        return self.bound().list_tasks(self, conn=conn, **options)

    async def alist(self, *, conn: Any = None, **options: Unpack[TaskListOptions]) -> builtins.list[TaskInstance]:
        """`list`, async."""
        return await self.bound().alist_tasks(self, conn=conn, **options)

    # -- the app that the calls go to

    def bind(self, app: Client) -> None:
        """Send these calls to `app`, until it is closed or a later one takes its place."""
        self._binding.bind(app)

    def unbind(self, app: Client) -> None:
        """Send these calls to the app that was made before `app`, if there is one: `app` is closed."""
        self._binding.unbind(app)

    def bound(self) -> Client:
        """Return the app that these calls go to. Raises `NotBound`."""
        own = self._binding.app
        if own is None:
            own = only_app(self.name, f"tasks=[{self.name}]", f"app.enqueue({self.name}, …)")
            own.adopt(self)
        return own


class Decorator(Protocol):
    """What `@task(…)` returns: it makes a task of a function, whose first parameter may be the context."""

    @overload
    def __call__(
        self, function: Callable[Concatenate[TaskContext, P], Coroutine[Any, Any, R]], /
    ) -> Task[P, R, Coroutine[Any, Any, R]]: ...

    @overload
    def __call__(self, function: Callable[Concatenate[TaskContext, P], R], /) -> Task[P, R, R]: ...

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R, Coroutine[Any, Any, R]]: ...

    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R, R]: ...


class OutputDecorator(Protocol[O]):
    """The same for `@task(output=…)`."""

    @overload
    def __call__(self, function: Callable[Concatenate[TaskContext, P], T], /) -> Task[P, O, T]: ...

    @overload
    def __call__(self, function: Callable[P, T], /) -> Task[P, O, T]: ...


@overload
def task(
    function: Callable[Concatenate[TaskContext, P], Coroutine[Any, Any, R]], /
) -> Task[P, R, Coroutine[Any, Any, R]]: ...


@overload
def task(function: Callable[Concatenate[TaskContext, P], R], /) -> Task[P, R, R]: ...


@overload
def task(function: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R, Coroutine[Any, Any, R]]: ...


@overload
def task(function: Callable[P, R], /) -> Task[P, R, R]: ...


@overload
def task(*, name: str | None = ..., **options: Unpack[TaskOptions]) -> Decorator: ...


@overload
def task(*, output: None, name: str | None = ..., **options: Unpack[TaskOptions]) -> OutputDecorator[None]: ...


@overload
def task(*, output: type[O], name: str | None = ..., **options: Unpack[TaskOptions]) -> OutputDecorator[O]: ...


def task(
    function: Callable[..., Any] | None = None,
    /,
    *,
    output: Any = ABSENT,
    name: str | None = None,
    **options: Unpack[TaskOptions],
) -> Any:
    """Make a task of a function, sync or async; the parentheses may be left out. See `TaskOptions` for the options.

    Its arguments are validated by their types, and stored as a JSON object by parameter name: pydantic models,
    dataclasses, defaults, keyword-only and positional-only parameters all work, `*args` and `**kwargs` do not. A
    parameter annotated with `TaskContext`, by convention the first, gets the context. What it returns is stored in its
    declared return type, or in the type `output`; `output=None` discards it. `name`, by default that of the function,
    identifies stored jobs. Raises `DefinitionError`.

        @task(queue="mail", retry=Retry(max_attempts=10), unique=UniqueTask(["order_id"]))
        async def send_receipt(order_id: int, *, copy: bool = False) -> Receipt: ...
    """
    local_names = sys._getframe(1).f_locals  # of the scope that uses the decorator: annotations may name its classes

    def decorate(function: Callable[..., Any]) -> Task[Any, Any, Any]:
        function = unwrapped(function)
        made: Task[Any, Any, Any] = Task(function)
        try:
            made.definition = define(function, options, name=name, output=output, local_names=local_names)
        except DefinitionError as error:
            if not try_collect(error):
                raise
            made.is_valid = False
        return made

    return decorate if function is None else decorate(function)
