"""The workflows and tasks of one app by name: the only place where a stored name is resolved to code."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeGuard

from pgflow.core.definition.definition import VersionSet
from pgflow.core.definition.hooks import hook_problems
from pgflow.core.definition.queue_config import QueueConfig, check_queues, check_weight
from pgflow.core.definition.rules.problems import try_collect
from pgflow.core.definition.task import DefinedTask, TaskDefinition
from pgflow.core.definition.workflow import DefinedWorkflow
from pgflow.core.values.payload import INPUT_LIMIT
from pgflow.core.values.secret import CODEC_HINT, secret_error
from pgflow.errors import DefinitionError, UnknownTask, UnknownWorkflow

__all__ = ["Registry"]


class Registry:
    """Workflow classes and tasks by unique name; `has_codec` if their app has a codec, so that they may have secrets.

    `payload_limit` is the largest value that the app accepts, in bytes. `queues` are the queues that it declares.

    Raises `DefinitionError` for a value that is neither, for two with one name, for a weight above the concurrency of
    a declared queue, for a version without the class that
    has it in `versions`, and for a secret that would be stored in plain.

        Registry([OrderFlow, CreateUser], [send_receipt]).named("CreateUser")
    """

    def __init__(
        self,
        workflows: Iterable[type[DefinedWorkflow[Any]]] = (),
        tasks: Iterable[DefinedTask] = (),
        *,
        queues: Iterable[QueueConfig] = (),
        has_codec: bool = False,
        payload_limit: int = INPUT_LIMIT,
    ) -> None:
        self.has_codec = has_codec
        self.payload_limit = payload_limit
        self.queues = check_queues(queues)
        self.by_name: dict[str, type[Any]] = {}
        self.tasks_by_name: dict[str, Any] = {}
        for workflow in workflows:
            self._add(self._check_workflow, workflow)
        for task in tasks:
            self._add(self._check_task, task)
        for given in (*self.workflows, *self.tasks_by_name.values()):
            self._add(self._check_hooks, given)

    def add(self, given: type[DefinedWorkflow[Any]] | DefinedTask) -> None:
        """Add a workflow or a task; adding the same one again has no effect. Raises `DefinitionError`."""
        check = self._check_task if isinstance(given, DefinedTask) else self._check_workflow
        self._add(check, given)
        if any(given is each for each in (*self.workflows, *self.tasks_by_name.values())):
            self._add(self._check_hooks, given)

    def _add(self, check: Callable[[Any], None], given: Any) -> None:
        try:
            check(given)
        except DefinitionError as error:
            if not try_collect(error):
                raise
            return
        if given.is_valid:
            (self.tasks_by_name if isinstance(given, DefinedTask) else self.by_name)[given.name] = given

    def _check_workflow(self, workflow: Any) -> None:
        if isinstance(workflow, DefinedTask):
            raise DefinitionError(f"{workflow.name} is a task", hint=f"List it in tasks=[{workflow.name}].")
        if not _is_workflow(workflow):
            hint = "Pass Workflow subclasses: workflows=[OrderFlow]."
            raise DefinitionError(f"{workflow!r} is not a workflow class", hint=hint)
        if not workflow.is_valid:
            return
        if getattr(workflow, "unique", None) is None:
            hint = 'Add it to the `versions` of the class around it, or add unique=Unique("orderid").'
            raise DefinitionError(f"{workflow.name} has no business key", hint=hint)
        if self.by_name.get(workflow.name, workflow) is not workflow:
            hint = "Give one of them another name, class …(Workflow, name=…), or make them versions of one workflow."
            raise DefinitionError(f"two workflows are named {workflow.name}", hint=hint)
        if (task := self.tasks_by_name.get(workflow.name)) is not None:
            raise _shared_name(workflow, task)
        for graph in workflow.definitions.graphs:
            check_weight(workflow.name, graph.weight, graph.queues(), self.queues)
        if not self.has_codec and (paths := workflow.declared_secrets()):
            raise DefinitionError(f"{workflow.name}: {secret_error(paths[0])}", hint=CODEC_HINT)

    def _check_task(self, task: Any) -> None:
        if _is_workflow(task):
            raise DefinitionError(f"{task.name} is a workflow", hint=f"List it in workflows=[{task.__name__}].")
        if not isinstance(task, DefinedTask):
            hint = "Pass functions that are decorated with @task: tasks=[send_receipt]."
            raise DefinitionError(f"{task!r} is not a task", hint=hint)
        if not task.is_valid:
            return
        other = self.tasks_by_name.get(task.name, task)
        if other is not task:
            raise DefinitionError(
                f"two tasks are named {task.name}: {_origin(other)} and {_origin(task)}",
                hint='Give one of them another name: @task(name="…").',
            )
        if (workflow := self.by_name.get(task.name)) is not None:
            raise _shared_name(workflow, task)
        check_weight(task.name, task.definition.weight, [task.definition.queue], self.queues)
        if not self.has_codec and (paths := task.definition.secrets):
            raise DefinitionError(f"{task.name}: {secret_error(paths[0])}", hint=CODEC_HINT)

    def _check_hooks(self, given: Any) -> None:
        if not given.is_valid:
            return
        is_task = isinstance(given, DefinedTask)
        all_hooks = [given.definition.hooks] if is_task else [each.options.hooks for each in _versions(given)]
        for hooks in all_hooks:
            for problem in hook_problems(given.name, hooks, self.tasks_by_name.values()):
                raise DefinitionError(problem)

    @property
    def workflows(self) -> tuple[type[Any], ...]:
        """The classes, in the order in which they were added."""
        return tuple(self.by_name.values())

    @property
    def names(self) -> list[str]:
        """The names, sorted."""
        return sorted(self.by_name)

    @property
    def versions(self) -> list[type[Any]]:
        """Every class with a graph: each version of each workflow."""
        return [version for workflow in self.workflows for version in workflow.versions.values()]

    def definitions(self, workflow: type[DefinedWorkflow[Any]] | str) -> VersionSet:
        """Return the definitions of a class, or of the workflow of that name. Raises `UnknownWorkflow`."""
        return self.known(workflow).definitions

    def known(self, workflow: type[DefinedWorkflow[Any]] | str) -> type[DefinedWorkflow[Any]]:
        """Return a class unchanged, or the workflow of that name. Raises `UnknownWorkflow`."""
        return self.named(workflow) if isinstance(workflow, str) else workflow

    def named(self, name: str) -> type[Any]:
        """Return the workflow of that name. Raises `UnknownWorkflow`."""
        known = self.by_name.get(name)
        if known is None:
            hint = f"It has: {', '.join(self.names) or 'none'}."
            raise UnknownWorkflow(f"this app has no workflow named {name!r}", hint=hint)
        return known

    @property
    def tasks(self) -> tuple[Any, ...]:
        """The tasks, in the order in which they were added."""
        return tuple(self.tasks_by_name.values())

    def task_definition(self, task: DefinedTask | str) -> TaskDefinition:
        """Return the definition of a task, given as itself or by name. Raises `UnknownTask`."""
        return (self.task_named(task) if isinstance(task, str) else task).definition

    def task_named(self, name: str) -> Any:
        """Return the task of that name. Raises `UnknownTask`."""
        known = self.tasks_by_name.get(name)
        if known is None:
            hint = f"It has: {', '.join(sorted(self.tasks_by_name)) or 'none'}."
            raise UnknownTask(f"this app has no task named {name!r}", hint=hint)
        return known


def _is_workflow(given: Any) -> TypeGuard[type[DefinedWorkflow[Any]]]:
    return isinstance(given, type) and issubclass(given, DefinedWorkflow)


def _origin(task: DefinedTask) -> str:
    function = task.definition.function
    return f"{function.__module__}.{function.__qualname__}"


def _shared_name(workflow: type[DefinedWorkflow[Any]], task: DefinedTask) -> DefinitionError:
    return DefinitionError(
        f"a workflow and a task are named {workflow.name}: {workflow.__module__}.{workflow.__qualname__} "
        f"and {_origin(task)}",
        hint='Give one of them another name: class …(Workflow, name="…") or @task(name="…").',
    )


def _versions(workflow: Any) -> Iterable[Any]:
    definitions: Iterable[Any] = workflow.definitions.versions.values()
    return definitions
