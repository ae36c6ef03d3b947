"""The calls of an app on its tasks, sync and async: enqueue, and find what was enqueued."""

from __future__ import annotations

import builtins
from collections.abc import Iterable
from typing import Any, TypeAlias, Unpack

from pgflow.client.backend import Backend
from pgflow.client.commands import Enqueue, EnqueueOptions, ListTasks
from pgflow.client.job_handle import JobHandle
from pgflow.client.task_call import Item, enqueue_command
from pgflow.core.definition.registry import Registry
from pgflow.core.definition.task import DefinedTask, TaskDefinition
from pgflow.core.models.task import Enqueued, TaskFilters, TaskInstance, TaskListOptions

__all__ = ["NamedTask", "TaskCalls"]

NamedTask: TypeAlias = DefinedTask | str


class TaskCalls:
    """The calls of a client on tasks, which are given as decorated functions or by name."""

    _registry: Registry
    _backend: Backend

    def enqueue(
        self, task: NamedTask, args: Item = (), *, conn: Any = None, **options: Unpack[EnqueueOptions]
    ) -> JobHandle[Any]:
        """Enqueue a task; `args` are a tuple by position, a dict by name, or a `call(…)`. See `Task.enqueue`.

        Raises `UnknownTask` for a name that the app does not have.

            app.enqueue("send_receipt", {"order_id": 7}, delay=timedelta(minutes=5))
            app.enqueue(send_receipt, send_receipt.call(7, copy=True))
        """
        return self.enqueue_many(task, [args], conn=conn, **options)[0]

    async def aenqueue(
        self, task: NamedTask, args: Item = (), *, conn: Any = None, **options: Unpack[EnqueueOptions]
    ) -> JobHandle[Any]:
        """`enqueue`, async."""
        return (await self.aenqueue_many(task, [args], conn=conn, **options))[0]

    def enqueue_many(
        self, task: NamedTask, calls: Iterable[Item], *, conn: Any = None, **options: Unpack[EnqueueOptions]
    ) -> builtins.list[JobHandle[Any]]:
        """Enqueue many calls of a task, all in one transaction: see `Task.enqueue_many`."""
        command = self._enqueue(task, calls, options)
        return self._handles(command.task, self._backend.execute(command, conn))

    async def aenqueue_many(
        self, task: NamedTask, calls: Iterable[Item], *, conn: Any = None, **options: Unpack[EnqueueOptions]
    ) -> builtins.list[JobHandle[Any]]:
        """`enqueue_many`, async."""
        command = self._enqueue(task, calls, options)
        return self._handles(command.task, await self._backend.aexecute(command, conn))

    def job(self, id: int, task: NamedTask | None = None) -> JobHandle[Any]:  # noqa: A002 -- "id" is the word for it
        """Return a handle on the job with this id, of `task` or (None) of any. It reads nothing yet.

        app.job(17).get().status    # "completed"
        """
        return JobHandle(self._backend, self._registry, None if task is None else self._definition(task), id)

    def list_tasks(
        self, task: NamedTask | None = None, *, conn: Any = None, **options: Unpack[TaskListOptions]
    ) -> builtins.list[TaskInstance]:
        """Read a page of executions of a task, or (None) of all tasks, the newest first: see `TaskListOptions`.

        Raises `UnknownOption` for an unknown filter, `InvalidValue` and `InvalidPayload` for invalid values.

            app.list_tasks(send_receipt, status=["failed", "cancelled"], args={"order_id": 7})
        """
        return self._backend.execute(self._list_tasks(task, options), conn)

    async def alist_tasks(
        self, task: NamedTask | None = None, *, conn: Any = None, **options: Unpack[TaskListOptions]
    ) -> builtins.list[TaskInstance]:
        """`list_tasks`, async."""
        return await self._backend.aexecute(self._list_tasks(task, options), conn)

    def _enqueue(self, task: NamedTask, calls: Iterable[Item], options: EnqueueOptions) -> Enqueue:
        registry = self._registry
        return enqueue_command(
            self._definition(task), calls, options, reveal=registry.has_codec, limit=registry.payload_limit
        )

    def _handles(self, task: TaskDefinition, enqueued: Iterable[Enqueued]) -> builtins.list[JobHandle[Any]]:
        return [JobHandle(self._backend, self._registry, task, each.id, created=each.created) for each in enqueued]

    def _list_tasks(self, task: NamedTask | None, options: TaskListOptions) -> ListTasks:
        return ListTasks(TaskFilters.of(options), None if task is None else self._definition(task))

    def _definition(self, task: NamedTask) -> TaskDefinition:
        return self._registry.task_definition(task)
