"""What a worker deletes by itself: how long instances and tasks are kept, and the archive that sees them before."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import TypeAlias

from pgflow.core.definition.retain import DEFAULT_RETAIN, Retain
from pgflow.core.definition.rules.callables import is_async
from pgflow.core.models.instance import Instance
from pgflow.core.models.instance_codec import decrypt_instance
from pgflow.core.models.task import TaskInstance
from pgflow.core.models.task_codec import decrypt_task
from pgflow.errors import InvalidValue, PayloadUnavailable
from pgflow.logs import Logger
from pgflow.payloads.instance import fetched, has_references
from pgflow.payloads.policy import PayloadPolicy
from pgflow.payloads.task import fetched_task, has_task_references
from pgflow.store.retention import Ages, Expired

__all__ = ["Batch", "OnPrune", "Retention", "check_retention"]

log = Logger("pgflow.worker")

OnPrune: TypeAlias = Callable[[Sequence[Instance | TaskInstance]], Awaitable[None]]
Batch: TypeAlias = Sequence[Expired] | Sequence[TaskInstance]


def check_retention(retention: Retain | None, on_prune: OnPrune | None) -> None:
    """Raise `InvalidValue` for a retention that is not a `Retain` or None, and an archive that cannot be awaited."""
    if retention is not None and not isinstance(retention, Retain):
        raise InvalidValue(
            f"retention must be a Retain or None, got {retention!r}", hint="Write Retain(completed=timedelta(days=7))."
        )
    if on_prune is not None and not is_async(on_prune):
        raise InvalidValue(
            f"on_prune must be an async function, got {on_prune!r}", hint="Write async def archive(rows)."
        )


class Retention:
    """The retention of one worker. `archive` is called with each batch before it is deleted.

    It runs beside the worker's turns: `begin` starts it, and `take` returns the batch once it has succeeded.
    """

    def __init__(self, retain: Retain, on_prune: OnPrune | None, payloads: PayloadPolicy) -> None:
        chosen = retain.over(DEFAULT_RETAIN)
        completed, failed = _age(chosen.completed), _age(chosen.failed)
        self.ages = Ages(completed, failed, failed, chosen.max_count, overrides=True)
        self.has_archive = on_prune is not None
        self._on_prune = on_prune
        self._payloads = payloads
        self._batch: Batch = ()
        self._task: asyncio.Task[bool] | None = None

    def __str__(self) -> str:
        ages = self.ages
        return f"completed after {_days(ages.completed)}, failed and cancelled after {_days(ages.failed)}"

    @property
    def is_archiving(self) -> bool:
        """Whether the archive works on a batch."""
        return self._task is not None and not self._task.done()

    def begin(self, batch: Batch) -> None:
        """Pass a batch to the archive."""
        self._batch = batch
        self._task = asyncio.create_task(self._archive(batch))

    def take(self) -> Batch:
        """Return the batch that the archive has taken, once; empty if there is none, or the archive has failed."""
        task, batch, self._task, self._batch = self._task, self._batch, None, ()
        return batch if task is not None and task.done() and not task.cancelled() and task.result() else ()

    def stop(self) -> None:
        """Cancel the archive. What it was given is not deleted, so a worker gives it again."""
        if self._task is not None:
            self._task.cancel()

    async def _archive(self, batch: Batch) -> bool:
        assert self._on_prune is not None  # noqa: S101 -- for the type checker: `has_archive` is asked before
        try:
            await self._on_prune([await self._opened(each) for each in batch])
        except Exception:
            log.exception("on_prune failed: its batch of %d is kept, and given again", len(batch))
            return False
        return True

    async def _opened(self, each: Expired | TaskInstance) -> Instance | TaskInstance:
        """Return an instance or a task decrypted, with the values that are in the payload store."""
        if isinstance(each, TaskInstance):
            task = decrypt_task(self._payloads.codec, each)
            return await asyncio.to_thread(_fetched_task, self._payloads, task) if has_task_references(task) else task
        found = decrypt_instance(self._payloads.codec, each.instance)
        return await asyncio.to_thread(_fetched, self._payloads, found) if has_references(found) else found


def _fetched(payloads: PayloadPolicy, each: Instance) -> Instance:
    """Return an instance with the values that are in the payload store. Raises `PayloadUnavailable`."""
    found = fetched(payloads, each)
    if has_references(found):
        raise PayloadUnavailable(f"{each.id}, run {each.run}, cannot be archived: {found.unreadable}")
    return found


def _fetched_task(payloads: PayloadPolicy, each: TaskInstance) -> TaskInstance:
    """`_fetched` for a task."""
    found = fetched_task(payloads, each)
    if has_task_references(found):
        raise PayloadUnavailable(f"job {each.id} ({each.task}) cannot be archived: {found.unreadable}")
    return found


def _age(span: timedelta | None) -> timedelta | None:
    return None if span == timedelta.max else span


def _days(span: timedelta | None) -> str:
    return "never" if span is None else f"{span / timedelta(days=1):g} days"
