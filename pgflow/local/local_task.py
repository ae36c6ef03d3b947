"""One execution of a task in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pgflow.core.definition.control import Control, Progress
from pgflow.core.definition.task import TaskDefinition
from pgflow.core.definition.task_context import TaskContext
from pgflow.core.engine.state import ACTIVE, Status
from pgflow.core.models.task import TaskInstance
from pgflow.core.values.payload import decode

__all__ = ["LocalTask"]


@dataclass(slots=True, eq=False)
class LocalTask:
    """A job of a task, live or ended. Only `LocalTasks` changes it, under the lock."""

    id: int
    task: TaskDefinition
    args: str  # JSON
    queue: str
    priority: int
    max_attempts: int
    tags: tuple[str, ...]
    metadata: Mapping[str, Any]
    enqueued_at: datetime
    due: datetime | None
    caller: Mapping[str, Any] = field(default_factory=dict)  # the `telemetry=` of its enqueue
    unique_key: str | None = None
    status: Status = "pending"
    attempt: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)
    error: dict[str, Any] | None = None
    output: str | None = None  # JSON
    began_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    progress: Progress | None = None
    checkpoint: str | None = None
    is_paused: bool = False  # it waits for an operator
    control: Control | None = None  # of the attempt that runs

    @property
    def is_active(self) -> bool:
        """Whether it has not ended."""
        return self.status in ACTIVE

    @property
    def title(self) -> str:
        """Its name in messages."""
        return f"job {self.id} ({self.task.name})"

    def context(self, control: Control) -> TaskContext:
        """Return the context of its current attempt."""
        return TaskContext(
            id=self.id,
            task=self.task.name,
            attempt=self.attempt,
            max_attempts=self.max_attempts,
            queue=self.queue,
            tags=self.tags,
            metadata=dict(self.metadata),
            enqueued_at=self.enqueued_at,
            control=control,
        )

    def saved(self) -> TaskInstance:
        """Return a snapshot for callers."""
        return TaskInstance(
            id=self.id,
            task=self.task.name,
            status=self.status,
            queue=self.queue,
            priority=self.priority,
            attempt=self.attempt,
            max_attempts=self.max_attempts,
            args=decode(self.args),
            enqueued_at=self.enqueued_at,
            run_at=self.due if self.is_active and self.status != "running" else None,
            started_at=self.started_at,
            finished_at=self.finished_at,
            output=None if self.output is None else decode(self.output),
            error=self.error,
            errors=tuple(self.errors),
            tags=self.tags,
            metadata=dict(self.metadata),
            progress=self.progress if self.is_active else None,
            is_paused=self.is_paused,
        )
