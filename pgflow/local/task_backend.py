"""Execute the commands on tasks in memory."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import Any

from pgflow.client import commands
from pgflow.client.enqueue_request import EnqueueRequest, check_queue
from pgflow.client.start_request import check_moment, priority_of
from pgflow.core.definition.registry import Registry
from pgflow.core.definition.task import TaskDefinition
from pgflow.core.models.query import Subject
from pgflow.core.models.task import Enqueued, TaskFilters, TaskInstance
from pgflow.core.values.query_args import check_text
from pgflow.errors import ConfigError, StillRunning, UnknownTask
from pgflow.local.instances import Instances
from pgflow.local.local_task import LocalTask
from pgflow.local.scheduler import Scheduler

__all__ = ["TASK_COMMANDS", "TaskBackend"]

TASK_COMMANDS = (
    commands.Enqueue,
    commands.CancelTask,
    commands.RetryTask,
    commands.CompleteTask,
    commands.FailTask,
    commands.UpdateTask,
    commands.DeleteTask,
    commands.GetTask,
    commands.ListTasks,
    commands.FindTasks,
    commands.AwaitTask,
)


class TaskBackend:
    """Checks commands on tasks, and changes the scheduler's tasks under its lock."""

    def __init__(
        self, registry: Registry, instances: Instances, scheduler: Scheduler, *, allow_transactional: bool
    ) -> None:
        self._registry = registry
        self._instances = instances
        self._scheduler = scheduler
        self._tasks = scheduler.tasks
        self._allow_transactional = allow_transactional

    def execute(self, command: Any) -> Any:
        """Execute one of `TASK_COMMANDS`; `AwaitTask` blocks."""
        match command:
            case commands.Enqueue():
                return self._enqueue(command)
            case commands.CancelTask(task, number, reason):
                check_text("reason", reason)
                with self._instances.opened():
                    return self._tasks.cancel(self._tasks.find(number, task), reason)
            case commands.RetryTask(task, number):
                with self._instances.opened():
                    return self._tasks.retry(self._tasks.find(number, task))
            case commands.CompleteTask(task, number, output):
                with self._instances.opened():
                    job = self._tasks.find(number, task)
                    return self._tasks.complete(job, job.task.output.write(output, limit=self._registry.payload_limit))
            case commands.FailTask(task, number, reason):
                check_text("reason", reason)
                with self._instances.opened():
                    return self._tasks.fail(self._tasks.find(number, task), reason)
            case commands.UpdateTask(task, number):
                check_moment(command.at, command.delay)
                check_queue(command.queue)
                priority_of(command.priority)
                with self._instances.opened():
                    return self._tasks.update(self._tasks.find(number, task), command)
            case commands.DeleteTask(task, number):
                with self._instances.opened():
                    return self._tasks.delete(self._tasks.find(number, task))
            case commands.GetTask(task, number):
                with self._scheduler.lock:
                    return self._tasks.find(number, task).saved()
            case commands.ListTasks(filters, task):
                with self._scheduler.lock:
                    found = [each.saved() for each in self._tasks.by_id.values() if task in (None, each.task)]
                return filters.page(found)
            case commands.FindTasks(query, page):
                with self._scheduler.lock:
                    known = [each.saved() for each in self._tasks.by_id.values()]
                now = self._scheduler.clock.now()
                ids = [each for each in known if query.matches(Subject.of_task(each, now))]
                return TaskFilters(None, None, (), None, page.oldest, page.before, page.after, page.limit).page(ids)
            case commands.AwaitTask():
                return self._wait(command)
        raise TypeError(f"{type(command).__name__} is not a command on tasks")

    def _enqueue(self, command: commands.Enqueue) -> list[Enqueued]:
        task = command.task
        self._check_known(task)
        if task.transactional and not self._allow_transactional:
            raise ConfigError(
                f"{task.name} is transactional, and without a database there is no transaction",
                hint="Run it on PostgreSQL, or pass allow_transactional=True: then ctx.conn is None.",
            )
        request = EnqueueRequest.of(command)
        with self._instances.opened():
            return self._tasks.enqueue(command, request)

    def _check_known(self, task: TaskDefinition) -> None:
        own = self._registry.tasks_by_name.get(task.name)
        if own is None or own.definition is not task:
            names = ", ".join(sorted(self._registry.tasks_by_name)) or "none"
            raise UnknownTask(f"this app has no task {task.name}", hint=f"It has: {names}.")

    def _wait(self, command: commands.AwaitTask) -> TaskInstance:
        if not self._scheduler.may_block():
            raise ConfigError("an async task cannot block its own Local", hint="Await the result: aresult().")
        job, ended = self._awaited(command)
        try:
            ended.result(None if command.timeout is None else command.timeout.total_seconds())
        except TimeoutError:
            ended.cancel()
            raise self._still_running(job, command) from None
        return self._read(job, command)

    async def wait(self, command: commands.AwaitTask) -> TaskInstance:
        """Execute an `AwaitTask`, async."""
        job, ended = self._awaited(command)
        try:
            async with asyncio.timeout(None if command.timeout is None else command.timeout.total_seconds()):
                await asyncio.wrap_future(ended)
        except TimeoutError:
            raise self._still_running(job, command) from None
        return self._read(job, command)

    def _awaited(self, command: commands.AwaitTask) -> tuple[LocalTask, Future[None]]:
        with self._scheduler.lock:
            job = self._tasks.find(command.id, command.task)
            return job, self._scheduler.until(lambda: not job.is_active)

    def _read(self, job: LocalTask, command: commands.AwaitTask) -> TaskInstance:
        with self._scheduler.lock:
            if job.is_active:  # the Local was closed
                raise self._still_running(job, command)
            return job.saved()

    def _still_running(self, job: LocalTask, command: commands.AwaitTask) -> StillRunning:
        after = "" if command.timeout is None else f" after {command.timeout.total_seconds():g} s"
        return StillRunning(f"job {job.id} has not ended{after}", hint="It continues: wait for it again.", job=job.id)
