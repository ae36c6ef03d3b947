"""Hooks: tasks that are enqueued when an instance or a task ends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pgflow.core.definition.task import DefinedTask, TaskDefinition
from pgflow.errors import DefinitionError

__all__ = ["ARGUMENT", "HOOKS", "Ended", "hook_problems", "hook_spec", "is_end", "read_hooks", "takes_end"]

ARGUMENT = "end"  # the argument of a hook's task
HOOKS: Mapping[str, str] = {
    "completed": "success",
    "failed": "failure",
    "cancelled": "cancel",
}  # by the status at the end


@dataclass(frozen=True, slots=True)
class Ended:
    """The argument `end` of a hook's task: which instance or task ended, and how.

    - `kind`: "workflow" or "task". An instance has `run`, `id` (the business id), `workflow` and `version`; a task has
      `job` and `task`. The others are None.
    - `status`: "completed", "failed" or "cancelled". `at`: when.
    - `error`: that of the instance or the task, without traces and earlier attempts; None without one.

    The output is not part of it: read it by the id.

        @task
        def order_failed(end: Ended) -> None:
            alert(end.id, end.error)
    """

    kind: str
    status: str
    at: datetime
    error: dict[str, Any] | None = None
    run: int | None = None
    id: str | None = None
    workflow: str | None = None
    version: int | None = None
    job: int | None = None
    task: str | None = None


def read_hooks(who: str, given: Mapping[str, Any]) -> Mapping[str, TaskDefinition]:
    """Return the tasks of the hooks "success", "failure" and "cancel" that are given.

    Raises `DefinitionError` for what is not a task, and for a task that cannot be called with `end` alone or whose
    uniqueness would raise in the transaction of the end.
    """
    found: dict[str, TaskDefinition] = {}
    for name, hook in given.items():
        if hook is None:
            continue
        if not isinstance(hook, DefinedTask):
            raise DefinitionError(
                f"{who}: on_{name} is {hook!r}, which is not a task: decorate the function with @task"
            )
        if not hook.is_valid:
            continue
        arguments = hook.definition.arguments
        others = [each for each in arguments.names if each != ARGUMENT and each not in arguments.defaults]
        if ARGUMENT not in arguments.names or others:
            takes = ", ".join(arguments.names) or "nothing"
            raise DefinitionError(
                f"{who}: on_{name} is {hook.name}, which takes {takes}: a hook gets one argument, {ARGUMENT}: "
                f"def {hook.name}({ARGUMENT}: Ended)"
            )
        unique = hook.definition.unique
        if unique is not None and unique.on_conflict == "raise":
            raise DefinitionError(
                f'{who}: on_{name} is {hook.name}, which is unique with on_conflict="raise": an end cannot be refused, '
                'so use "existing", "skip" or "replace"'
            )
        found[name] = hook.definition
    return found


def takes_end(task: TaskDefinition) -> bool:
    """Whether a task declares the argument of a hook, `end: Ended`.

    SQL writes that argument when something ends, and cannot encrypt it: a strict codec accepts it in plain for these.
    """
    parameter = task.arguments.signature.parameters.get(ARGUMENT)
    return parameter is not None and parameter.annotation is Ended


def is_end(args: Any) -> bool:
    """Whether the arguments of a job are those of a hook."""
    return isinstance(args, Mapping) and args.keys() == {ARGUMENT} and isinstance(args[ARGUMENT], Mapping)


def hook_spec(hooks: Mapping[str, TaskDefinition]) -> dict[str, str]:
    """Return the names of the hooks' tasks, as they are stored."""
    return {name: task.name for name, task in sorted(hooks.items())}


def hook_problems(who: str, hooks: Mapping[str, TaskDefinition], known: Iterable[Any]) -> Iterator[str]:
    """Yield the hooks whose task is not among those of the app."""
    tasks = {each.definition for each in known}
    for name, task in hooks.items():
        if task not in tasks:
            yield f"{who}: on_{name} is {task.name}, which is not a task of this app: list it, tasks=[{task.name}]"
