"""The workflows of one app by name: the only place where a stored name is resolved to a class."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pgflow.core.definition.definition import VersionSet
from pgflow.core.definition.rules.problems import try_collect
from pgflow.core.definition.workflow import DefinedWorkflow
from pgflow.core.values.secret import CODEC_HINT, secret_error
from pgflow.errors import DefinitionError, UnknownWorkflow

__all__ = ["Registry"]


class Registry:
    """Workflow classes by unique name; `has_codec` if their app has a codec, so that they may declare secrets.

    Raises `DefinitionError` for a value that is not a workflow class, for two classes with one name, for a version
    without the class that has it in `versions`, and for a secret that would be stored in plain.

        Registry([OrderFlow, CreateUser]).named("CreateUser")
    """

    def __init__(self, workflows: Iterable[type[DefinedWorkflow[Any]]] = (), *, has_codec: bool = False) -> None:
        self._has_codec = has_codec
        self.by_name: dict[str, type[Any]] = {}
        for workflow in workflows:
            self.add(workflow)

    def add(self, workflow: type[DefinedWorkflow[Any]]) -> None:
        """Add a workflow; adding the same class again has no effect. Raises `DefinitionError`."""
        try:
            self._check(workflow)
        except DefinitionError as error:
            if not try_collect(error):
                raise
            return
        if workflow.is_valid:
            self.by_name[workflow.name] = workflow

    def _check(self, workflow: type[DefinedWorkflow[Any]]) -> None:
        if not (isinstance(workflow, type) and issubclass(workflow, DefinedWorkflow)):
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
        if not self._has_codec and (paths := workflow.declared_secrets()):
            raise DefinitionError(f"{workflow.name}: {secret_error(paths[0])}", hint=CODEC_HINT)

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
