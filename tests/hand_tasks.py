"""Tasks made by hand, without the decorator, and the commands of an app on them."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from pgflow import Pgflow
from pgflow.client.commands import (
    AwaitTask,
    CancelTask,
    DeleteTask,
    Enqueue,
    GetTask,
    ListTasks,
    RetryTask,
    UpdateTask,
)
from pgflow.core.definition.task import DefinedTask, TaskDefinition
from pgflow.core.models.task import Enqueued, TaskFilters, TaskInstance
from pgflow.core.values.payload import INPUT_LIMIT, OUTPUT_LIMIT, decode, encode
from pgflow.errors import InvalidInput

__all__ = ["HandTask", "Tasks", "hand_task"]


class JsonArguments:
    """The arguments of a function that takes JSON values by name."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._signature = inspect.signature(function)

    def write(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, reveal: bool = False, limit: int = INPUT_LIMIT
    ) -> str:
        """Return the arguments of a call as JSON text."""
        return encode(
            {**dict(zip(self._signature.parameters, args, strict=False)), **kwargs},
            what="args",
            limit=limit,
            reveal=reveal,
        )

    def read(self, text: str) -> dict[str, Any]:
        """Return stored arguments."""
        found = decode(text)
        if unknown := found.keys() - self._signature.parameters.keys():
            raise InvalidInput(f"unknown arguments: {', '.join(sorted(unknown))}")
        return dict(found)


class JsonOutput:
    """Any JSON value."""

    def write(self, value: Any, *, reveal: bool = False, limit: int = OUTPUT_LIMIT) -> str:
        """Return it as JSON text."""
        return encode(value, what="output", limit=limit, reveal=reveal)

    def read(self, text: str) -> Any:
        """Return a stored output."""
        return json.loads(text)


class HandTask(DefinedTask):
    """A task made of a definition."""

    def __init__(self, definition: TaskDefinition) -> None:
        self.definition = definition

    def bind(self, app: Any) -> None:
        """Do nothing: a task has no calls of its own here."""

    def unbind(self, app: Any) -> None:
        """Do nothing."""


def hand_task(function: Callable[..., Any], **options: Any) -> HandTask:
    """Make a task of a function that takes JSON values by name."""
    context = next((name for name in inspect.signature(function).parameters if name == "ctx"), None)
    given = {
        "name": function.__name__,
        "function": function,
        "arguments": JsonArguments(function),
        "output": JsonOutput(),
        "is_async": inspect.iscoroutinefunction(function),
        "takes_context": context,
    }
    return HandTask(TaskDefinition(**{**given, **options}))


class Tasks:
    """The commands of an app on tasks.

    tasks = Tasks(app)
    (job,) = tasks.enqueue(send_receipt, {"order_id": 7})
    """

    def __init__(self, app: Pgflow) -> None:
        self._app = app

    def adopt(self, task: HandTask) -> None:
        """Add a task to the app."""
        self._app._registry.add(task)
        self._app._postgres.is_registered = False

    def enqueue_all(self, task: HandTask, *args: Mapping[str, Any], conn: Any = None, **options: Any) -> list[Enqueued]:
        """Enqueue a task once for each of `args`."""
        texts = tuple(task.definition.arguments.write((), each, reveal=True) for each in args)
        return self._app._backend.execute(Enqueue(task.definition, texts, **options), conn)

    def enqueue(self, task: HandTask, args: Mapping[str, Any] | None = None, **options: Any) -> int:
        """Enqueue a task; returns its job's id."""
        (one,) = self.enqueue_all(task, args or {}, **options)
        assert one.id is not None
        return one.id

    def get(self, job: int, task: HandTask | None = None) -> TaskInstance:
        """Read one execution."""
        return self._app._backend.execute(GetTask(None if task is None else task.definition, job))

    def page(self, task: HandTask | None = None, **filters: Any) -> list[TaskInstance]:
        """Read a page of executions."""
        chosen = TaskFilters(**{"limit": 50, **filters})
        return self._app._backend.execute(ListTasks(chosen, None if task is None else task.definition))

    def cancel(self, job: int, reason: str | None = None, conn: Any = None, **options: Any) -> None:
        """Cancel one."""
        self._app._backend.execute(CancelTask(None, job, reason, **options), conn)

    def retry(self, job: int, **options: Any) -> None:
        """Retry one."""
        self._app._backend.execute(RetryTask(None, job, **options))

    def update(self, job: int, **options: Any) -> None:
        """Move one."""
        self._app._backend.execute(UpdateTask(None, job, **options))

    def delete(self, job: int) -> None:
        """Delete one."""
        self._app._backend.execute(DeleteTask(None, job))

    def wait(self, job: int, timeout: float = 30.0) -> TaskInstance:
        """Wait until one has ended."""
        return self._app._backend.execute(AwaitTask(None, job, timedelta(seconds=timeout)))
