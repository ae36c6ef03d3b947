"""The outcome of an attempt at a task, from what its function returned or raised; the same for every backend."""

from __future__ import annotations

from typing import Any

from pgflow.core.definition.results import Error, Ok, Result, Snooze
from pgflow.core.definition.task import TaskDefinition
from pgflow.core.definition.task_context import TaskContext
from pgflow.core.engine.attempt import AttemptError, attempt_error, error_of
from pgflow.core.values.duration import plain
from pgflow.core.values.payload import OUTPUT_LIMIT
from pgflow.core.values.sanitize import type_name
from pgflow.process import call_in_parent

__all__ = ["arguments", "call", "overdue", "read"]


def arguments(task: TaskDefinition, text: str, ctx: TaskContext | None) -> dict[str, Any]:
    """Return what to call the function with: the stored arguments in their types, and its context if it takes one.

    `ctx` may be None if it does not. Raises `InvalidInput`.
    """
    found = task.arguments.read(text)
    return found if task.takes_context is None else {**found, task.takes_context: ctx}


def call(task: TaskDefinition, given: dict[str, Any], number: int = 1) -> Any:
    """Run a sync task in its thread, in attempt `number`; returns its result, or an `AttemptError` for an exception."""
    try:
        return call_in_parent(task.function, **given)
    except BaseException as error:
        return attempt_error(error, task.retry, number)


def read(
    task: TaskDefinition, result: object, number: int = 1, *, reveal: bool = False, limit: int = OUTPUT_LIMIT
) -> str | AttemptError | Snooze:
    """Return the outcome of attempt `number`, which returned `result`: its output as JSON text, if it completed.

    `limit` is its size in bytes. A task may return an `Error` or a `Snooze`, as a step may. Raises `InvalidInput` and
    `InvalidPayload` for a value that is not of its declared type or cannot be stored, `UnencryptedSecret`.
    """
    if type(result) is AttemptError:  # by `call`
        return result
    if not isinstance(result, Result):
        return task.output.write(result, reveal=reveal, limit=limit)
    match result:
        case Error():
            return error_of(result, task.retry, number)
        case Snooze(delay):
            return Snooze(plain(delay))
    fix = "a task returns its output" if isinstance(result, Ok) else "only a step can wait for a signal"
    return AttemptError(f"task {task.name} returned {type_name(result)}: {fix}", "TypeError", retry=False)


def overdue(task: TaskDefinition, number: int = 1) -> AttemptError:
    """Return the error of attempt `number`, which exceeded its task's `max_runtime`."""
    return attempt_error(TimeoutError(f"it still ran after {task.max_runtime}, its max_runtime"), task.retry, number)
