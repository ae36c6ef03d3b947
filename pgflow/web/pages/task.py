"""One execution of a task: its attempts and errors, arguments and result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from pgflow.core.models.task import TaskInstance
from pgflow.errors import JobNotFound
from pgflow.store import task
from pgflow.web.rendering.values import SHOWN_BYTES, Value, value_of
from pgflow.web.routing.page import Model, Page, Params, View
from pgflow.web.run.journey import failure_of
from pgflow.web.run.models import Failure

__all__ = ["PAGE", "OfTask", "TaskPage", "found_task"]


class OfTask(Params):
    """A task by the id of its job."""

    id: int = Field(ge=0, le=2**63 - 1, description="The id of the job")


class Progress(BaseModel):
    """What the task has reported last: `share` of 1."""

    share: float
    note: str


class TaskPage(Model):
    """One execution. `state` is as in the list; `failures` are its failed attempts, the newest last."""

    id: str
    task: str
    state: str
    status: str
    queue: str
    priority: int
    attempt: int
    max_attempts: int
    tags: tuple[str, ...]
    enqueued_at: datetime
    run_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    worker: str | None
    args: Value
    output: Value
    metadata: Value
    progress: Progress | None
    error: Failure | None
    failures: tuple[Failure, ...]
    unreadable: str | None

    @property
    def is_live(self) -> bool:
        """Whether it has not ended."""
        return self.finished_at is None


async def found_task(view: View[OfTask]) -> TaskInstance:
    """Read the task that a request is about. Raises `JobNotFound`."""
    number = view.params.id
    found = await view.read(task.get(view.schema, [number]))
    if not found:
        raise JobNotFound(
            f"there is no task with the id {number}", hint="It may have been deleted: workers prune ended ones."
        )
    return found[0]


def state_of(each: TaskInstance, now: datetime) -> str:
    """Return what a task does, in the words of the list."""
    if each.status == "waiting":
        return "held" if getattr(each, "is_paused", False) else "retrying"
    if each.status == "pending":
        return "scheduled" if each.run_at is not None and each.run_at > now else "ready"
    return each.status


async def load(view: View[OfTask]) -> TaskPage:
    """Read a task. Raises `JobNotFound`."""
    settings = view.context.settings

    def shown(text: str | None, size: int | None) -> Value:
        return value_of(text, size, settings.hidden_keys, shows_data=settings.shows_data)

    def value(given: Any) -> Value:
        text = json.dumps(given, ensure_ascii=False)
        octets = len(text.encode())
        return shown(text if octets <= SHOWN_BYTES else "", octets)

    each = await found_task(view)
    now = datetime.now(each.enqueued_at.tzinfo)
    failures = tuple(failure_of(error, shown) for error in each.errors if isinstance(error, Mapping))
    return TaskPage(
        id=str(each.id),
        task=each.task,
        state=state_of(each, now),
        status=each.status,
        queue=each.queue,
        priority=each.priority,
        attempt=each.attempt,
        max_attempts=each.max_attempts,
        tags=each.tags,
        enqueued_at=each.enqueued_at,
        run_at=each.run_at,
        started_at=each.started_at,
        finished_at=each.finished_at,
        worker=None if each.worker is None else str(each.worker),
        args=value(dict(each.args)),
        output=value(each.output) if each.status == "completed" else Value(state="absent"),
        metadata=value(dict(each.metadata)) if each.metadata else Value(state="absent"),
        progress=None if each.progress is None else Progress(share=each.progress.at, note=each.progress.note),
        error=None if each.error is None else failure_of(each.error, shown),
        failures=failures,
        unreadable=each.unreadable,
    )


PAGE = Page("task", "/tasks/{id:int}", "A task", TaskPage, load, OfTask)
