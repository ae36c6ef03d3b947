"""The queues: what runs and waits in each, and the limits, partition keys and workers of one."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from pgflow.core.models.queue import Queue, QueueLimits
from pgflow.errors import UnknownQueue
from pgflow.store import limit, queue, worker
from pgflow.store.queue import Waiting
from pgflow.web.rendering.words import COUNT_LIMIT
from pgflow.web.routing.page import Model, Nav, Page, Params, View

__all__ = ["PAGE", "LimitSet", "QueueRow", "Queues", "limit_set"]

KEYS = 10


class QueuesParams(Params):
    """`queue` is the queue whose details are shown."""

    queue: str | None = Field(None, max_length=200, description="A queue, for its details")


class LimitSet(BaseModel):
    """Limits over all workers; None: no such limit. Rates are starts per second."""

    concurrency: int | None
    key_concurrency: int | None
    rate: float | None
    burst: int
    key_rate: float | None
    key_burst: int


class NodeRow(BaseModel):
    """What differs for a queue on one host."""

    node: str
    paused_at: datetime | None
    paused_by: str | None
    concurrency: int | None


class QueueRow(BaseModel):
    """A queue: `ready` counts up to 1,001, `scheduled` and `retrying` among the next 10,000 that wait for a time."""

    name: str
    state: Literal["open", "paused"]
    paused_at: datetime | None
    paused_by: str | None
    worker_concurrency: int | None
    limits: LimitSet | None
    workers: int
    running: int
    ready: int
    oldest_ready_at: datetime | None
    scheduled: int
    retrying: int
    nodes: tuple[NodeRow, ...]

    @property
    def limit(self) -> int | None:
        """How many of its jobs may run at once, over all workers."""
        return None if self.limits is None else self.limits.concurrency


class KeyRow(BaseModel):
    """A partition key: how many of its jobs run, and how many are ready, up to 1,001."""

    key: str
    running: int
    ready: int


class WorkerRow(BaseModel):
    """A live worker that serves the queue, with the jobs that it runs in all its queues."""

    id: str
    name: str
    running: int


class Details(BaseModel):
    """The selected queue."""

    row: QueueRow
    keys: tuple[KeyRow, ...]
    workers: tuple[WorkerRow, ...]


class Queues(Model):
    """All queues in use, and one in detail."""

    rows: tuple[QueueRow, ...]
    limits: int
    queue: Details | None = None


async def load(view: View[QueuesParams]) -> Queues:
    """Read the queues. Raises `UnknownQueue`."""
    schema, name = view.schema, view.params.queue
    waiting = await view.read(queue.waiting(schema, limit=COUNT_LIMIT))
    rows = tuple(_row(each, waiting.get(each.name)) for each in await view.read(queue.list(schema)))
    limits = await view.read(limit.list(schema))
    if name is None:
        return Queues(rows=rows, limits=len(limits))
    row = next((each for each in rows if each.name == name), None)
    if row is None:
        names = ", ".join(each.name for each in rows[:20]) or "none"
        raise UnknownQueue(f"no queue is named {name!r}", hint=f"In use: {names}.")
    keys = await view.read(queue.keys(schema, name, limit=KEYS))
    serving = [each for each in await view.read(worker.list(schema)) if name in each.queues]
    details = Details(
        row=row,
        keys=tuple(KeyRow(key=each.key, running=each.running, ready=each.ready) for each in keys),
        workers=tuple(
            WorkerRow(id=str(each.id), name=f"{each.node}:{each.pid}", running=each.running) for each in serving
        ),
    )
    return Queues(rows=rows, limits=len(limits), queue=details)


def limit_set(limits: QueueLimits) -> LimitSet:
    """Return limits as the API has them."""
    return LimitSet(
        concurrency=limits.concurrency,
        key_concurrency=limits.key_concurrency,
        rate=limits.rate,
        burst=limits.burst,
        key_rate=limits.key_rate,
        key_burst=limits.key_burst,
    )


def _row(each: Queue, waiting: Waiting | None) -> QueueRow:
    return QueueRow(
        name=each.name,
        state="open" if each.paused_at is None else "paused",
        paused_at=each.paused_at,
        paused_by=each.paused_by,
        worker_concurrency=each.worker_concurrency,
        limits=None if each.limits is None else limit_set(each.limits),
        workers=each.workers,
        running=each.running,
        ready=each.ready,
        oldest_ready_at=each.oldest_ready_at,
        scheduled=0 if waiting is None else waiting.scheduled,
        retrying=0 if waiting is None else waiting.retrying,
        nodes=tuple(
            NodeRow(node=n.node, paused_at=n.paused_at, paused_by=n.paused_by, concurrency=n.concurrency)
            for n in each.nodes
        ),
    )


PAGE = Page("queues", "/queues", "Queues", Queues, load, QueuesParams, nav=Nav("Queues", "q", 5))
