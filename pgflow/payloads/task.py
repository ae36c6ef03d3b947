"""The references in executions of tasks: fetch their values for a reader."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from pgflow.core.models.task import TaskInstance
from pgflow.core.models.task_codec import args_location, output_location
from pgflow.core.values.codec import Location
from pgflow.core.values.payload import decode
from pgflow.core.values.reference import is_reference, read_reference
from pgflow.errors import Invalid
from pgflow.payloads.policy import PayloadPolicy

__all__ = ["fetched_task", "has_task_references"]


def has_task_references(task: TaskInstance) -> bool:
    """Whether the arguments or the output of a task are in a payload store."""
    return any(is_reference(value) for _, value, _ in _values(task))


def fetched_task(policy: PayloadPolicy, task: TaskInstance) -> TaskInstance:
    """Return a task with the values in place of their references.

    A value that cannot be fetched stays a reference, and `unreadable` gives the reason.
    """
    faults = [] if task.unreadable is None else [task.unreadable]
    found: dict[str, Any] = {}
    for name, value, location in _values(task):
        try:
            reference = read_reference(value)
            if reference is not None:
                policy.require_store(location)
                found[name] = decode(policy.fetch(reference, location))
        except Invalid as error:
            faults.append(str(error))
    return replace(task, **found, unreadable="; ".join(faults) or None)


def _values(task: TaskInstance) -> Iterator[tuple[str, Any, Location]]:
    yield "args", task.args, args_location(task.task)
    yield "output", task.output, output_location(task.task, task.id)
