"""Calls of tasks to enqueue, and the command that enqueues them: the arguments become JSON before anything is sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

from pgflow.client.commands import Enqueue, EnqueueOptions
from pgflow.core.definition.task import TaskDefinition
from pgflow.core.values.names import check_options
from pgflow.core.values.sanitize import type_name
from pgflow.errors import InvalidInput

__all__ = ["Item", "TaskCall", "enqueue_command"]

R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True, slots=True)
class TaskCall(Generic[R_co]):
    """A call of a task with its arguments, to be enqueued: what `send_receipt.call(7, copy=True)` returns."""

    task: TaskDefinition = field(repr=False)
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


Item: TypeAlias = TaskCall[Any] | tuple[Any, ...] | Mapping[str, Any]
"""One call to enqueue: a `TaskCall`, a tuple of arguments by position, or a dict of arguments by name."""


def enqueue_command(
    task: TaskDefinition, items: Iterable[Item], options: EnqueueOptions, *, reveal: bool, limit: int
) -> Enqueue:
    """Return the command that enqueues some calls of a task. With `reveal` the arguments may hold secrets.

    `limit` is the largest size of the arguments in bytes.

    Raises `UnknownOption`, `InvalidInput`, `InvalidPayload`, `UnencryptedSecret`.
    """
    check_options("option", options, EnqueueOptions)
    if isinstance(items, str | Mapping) or not isinstance(items, Iterable):
        raise InvalidInput(f"{task.name}: calls must be a list, got {type_name(items)}", hint=_example(task))
    texts = tuple(_arguments(task, item, reveal, limit) for item in items)
    return Enqueue(task, texts, unique=task.unique_keys(texts, options.get("queue")), **options)


def _arguments(task: TaskDefinition, item: Any, reveal: bool, limit: int) -> str:
    match item:
        case TaskCall():
            if item.task is not task:
                raise InvalidInput(f"{task.name}: got a call of the task {item.task.name}", hint=_example(task))
            return task.arguments.write(item.args, item.kwargs, reveal=reveal, limit=limit)
        case tuple():
            return task.arguments.write(item, {}, reveal=reveal, limit=limit)
        case Mapping():
            return task.arguments.write_named(item, reveal=reveal, limit=limit)
    raise InvalidInput(
        f"{task.name}: a call must be a tuple of arguments or a dict by name, got {type_name(item)}",
        hint=_example(task),
    )


def _example(task: TaskDefinition) -> str:
    return f"Pass {task.name}.call(…) values: {task.name}.enqueue_many([{task.name}.call(…), …])."
