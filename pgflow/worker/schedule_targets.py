"""What a worker can start for schedules: the workflows and tasks that it knows, and the codec of their inputs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pgflow.core.definition.schedule_runs import InstantStart, ScheduleTarget, instant_starts
from pgflow.core.definition.task import TaskDefinition
from pgflow.core.definition.workflow import DefinedWorkflow
from pgflow.core.models.schedule import ScheduleSpec
from pgflow.core.values.codec import Codec
from pgflow.store.schedule import ScheduleScope

__all__ = ["ScheduleTargets"]


class ScheduleTargets:
    """The targets that a worker knows by name. `app` is the app's name, `specs` are the schedules that it declares."""

    def __init__(self, app: str = "", specs: Sequence[ScheduleSpec] = (), codec: Codec | None = None) -> None:
        self.app = app
        self.specs = tuple(specs)
        self._codec = codec
        self._targets: dict[str, ScheduleTarget] = {}

    def register(self, workflow: type[DefinedWorkflow[Any]]) -> None:
        """Make a workflow known."""
        self._targets[workflow.name] = workflow.definitions

    def register_task(self, task: TaskDefinition) -> None:
        """Make a task known."""
        self._targets[task.name] = task

    @property
    def scope(self) -> ScheduleScope:
        """Which schedules this worker may fire."""
        return ScheduleScope(tuple(self._targets), tuple(spec.name for spec in self.specs))

    def starts(self, spec: ScheduleSpec, instants: Sequence[datetime]) -> list[InstantStart]:
        """Return the runs to start: see `instant_starts`."""
        return instant_starts(self._targets[spec.target], spec, instants, self._codec)
