"""A claimed task, in memory: all that its run and its settle need, without an instance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

from pgflow.core.definition.control import Control
from pgflow.core.definition.task import TaskDefinition
from pgflow.core.values.names import TELEMETRY
from pgflow.core.values.payload import decode
from pgflow.errors import InvalidPayload
from pgflow.store.job import ClaimedRow
from pgflow.worker.claimed_job import POISONED_FROM, QUARANTINE_FROM, ClaimedJob

__all__ = ["ClaimedTask", "HeldJob", "claimed_task"]


@dataclass(slots=True, eq=False)
class ClaimedTask:
    """A task that this worker has claimed. Compared by identity, as `ClaimedJob`.

    `args` and `metadata` are JSON text, read when the task runs. `age` is the number of seconds since it was enqueued,
    when it was claimed.
    """

    kind: ClassVar[str] = "task"

    id: int
    work: TaskDefinition
    queue: str
    priority: int
    attempt: int
    max_attempts: int
    args: str
    errors: list[dict[str, Any]] = field(default_factory=list)
    tags: Sequence[str] = ()
    metadata: str | None = None
    age: float | None = None
    crashes: int = 0  # workers that were lost while they held it
    checkpoint: str | None = None  # as it is stored
    expires: float | None = None  # monotonic seconds after which it must not begin
    control: Control | None = None  # of the attempt that runs
    key: str | None = None  # its partition key, as of a `ClaimedJob`
    since: float = 0.0  # monotonic seconds at which it was buffered
    worker: int = 0  # the id of the worker that holds it

    @property
    def is_quarantined(self) -> bool:
        """Whether it may be a poison job, which has to run alone."""
        return QUARANTINE_FROM <= self.crashes < POISONED_FROM

    @property
    def is_poisoned(self) -> bool:
        """Whether it has run alone several times and its worker was lost each time: it must not run again."""
        return self.crashes >= POISONED_FROM

    @property
    def step(self) -> str:
        """The task's name, which its job has in place of a step."""
        return self.work.name

    @property
    def title(self) -> str:
        """What it is, for messages."""
        return f"task {self.work.name} (job {self.id})"

    def read_metadata(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the metadata of this execution, and the telemetry metadata of its enqueue."""
        try:
            found = decode(self.metadata or "{}")
        except InvalidPayload:
            return {}, {}
        if not isinstance(found, dict):
            return {}, {}
        caller = found.pop(TELEMETRY, None)
        return found, caller if isinstance(caller, dict) else {}


HeldJob: TypeAlias = ClaimedJob | ClaimedTask


def claimed_task(row: ClaimedRow, task: TaskDefinition, now: float) -> ClaimedTask:
    """Build a task from its claimed row. Its arguments are read when it runs."""
    return ClaimedTask(
        id=row.id,
        work=task,
        queue=row.queue,
        priority=row.priority,
        attempt=row.attempt,
        max_attempts=row.max_attempts,
        args=row.input or "{}",
        errors=_read_errors(row.errors),
        tags=row.tags or (),
        metadata=row.metadata,
        age=row.age,
        crashes=row.crashes,
        checkpoint=row.checkpoint,
        expires=None if row.expires_in is None or row.attempt > 1 else now + row.expires_in,
        key=row.key,
        since=now,
    )


def _read_errors(text: str | None) -> list[dict[str, Any]]:
    """Return the errors of earlier attempts; none where they were changed by hand: the task can run without them."""
    try:
        found = decode(text, extra_levels=2) if text else []
    except InvalidPayload:
        return []
    return found if isinstance(found, list) and all(isinstance(each, dict) for each in found) else []
