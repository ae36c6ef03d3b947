"""Pause, resume and scale queues, and read their settings."""

from __future__ import annotations

import json
from builtins import list as Builtin
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pgflow.core.definition.queue_config import QueueConfig
from pgflow.core.models.queue import NodeQueue, Queue, QueueLimits
from pgflow.core.values.payload import decode
from pgflow.database import files
from pgflow.database.arrays import Texts
from pgflow.database.statement import Row, Statement

__all__ = [
    "KeyLoad",
    "QueueSettings",
    "Waiting",
    "declare",
    "drain",
    "keys",
    "list",
    "pause",
    "read",
    "resume",
    "running",
    "scale",
    "waiting",
]


class QueueSettings(NamedTuple):
    """How a worker serves a queue: `concurrency` None is that of its start, `is_limited` claims through the gate."""

    name: str
    concurrency: int | None
    is_paused: bool
    is_limited: bool


class Waiting(NamedTuple):
    """What waits in a queue: `scheduled` for its time, `retrying` for the next attempt; both counts are bounded."""

    scheduled: int
    retrying: int


class KeyLoad(NamedTuple):
    """How many jobs of a partition key run, and how many are ready (at most 1001)."""

    key: str
    running: int
    ready: int


def read(schema: str, queues: Iterable[str], node: str) -> Statement[Sequence[QueueSettings]]:
    """Read how a worker on `node` serves its queues now."""
    return Statement(
        "queue/read",
        files.load("queries/queue/read.sql", schema),
        {"queues": Texts(queues), "node": node},
        lambda rows: [*map(QueueSettings._make, rows)],
        prepare=True,
    )


def pause(schema: str, queue: str, *, node: str | None = None, by: str | None = None) -> Statement[None]:
    """Pause a queue, on one node or on all."""
    params = {"queue": queue, "node": node, "by": by}
    return Statement("queue/pause", files.load("queries/queue/pause.sql", schema), params, lambda rows: None)


def drain(schema: str, queue: str, *, node: str | None = None, by: str | None = None) -> Statement[int]:
    """Pause a queue unless it is paused, and return how many of its jobs run."""
    params = {"queue": queue, "node": node, "by": by}
    query = files.load("queries/queue/drain.sql", schema)
    return Statement("queue/drain", query, params, lambda rows: int(rows[0][0]))


def resume(schema: str, queue: str, *, node: str | None = None) -> Statement[bool]:
    """End a pause; returns whether there was one."""
    query = files.load("queries/queue/resume.sql", schema)
    return Statement("queue/resume", query, {"queue": queue, "node": node}, lambda rows: bool(rows[0][0]))


def scale(schema: str, queue: str, worker_concurrency: int | None, *, node: str | None = None) -> Statement[None]:
    """Set how many jobs each worker runs at once; None: as many as it was started with."""
    params = {"queue": queue, "worker_concurrency": worker_concurrency, "node": node}
    return Statement("queue/scale", files.load("queries/queue/scale.sql", schema), params, lambda rows: None)


def declare(schema: str, queues: Iterable[QueueConfig]) -> Statement[None]:
    """Store the settings of queues that an app declares; those set at run time stay in force."""
    params = {"declared": json.dumps([{"name": each.name, **each.spec()} for each in queues])}
    return Statement("queue/declare", files.load("queries/queue/declare.sql", schema), params, lambda rows: None)


def running(schema: str, queue: str, *, node: str | None = None) -> Statement[int]:
    """Count the jobs of a queue that run, on one node or on all."""
    query = files.load("queries/queue/running.sql", schema)
    return Statement("queue/running", query, {"queue": queue, "node": node}, lambda rows: int(rows[0][0]))


def list(schema: str, queue: str | None = None) -> Statement[Builtin[Queue]]:  # noqa: A001 -- path is name: queue/list.sql
    """Read the queues in use, or one of them."""
    query = files.load("queries/queue/list.sql", schema)
    return Statement("queue/list", query, {"queue": queue}, lambda rows: [*map(_queue, rows)])


def waiting(schema: str, *, limit: int) -> Statement[dict[str, Waiting]]:
    """Read what waits in each queue; of jobs that are due later, the next `limit` are counted."""
    query = files.load("queries/queue/waiting.sql", schema)
    return Statement("queue/waiting", query, {"limit": limit}, lambda rows: {row[0]: Waiting(*row[1:]) for row in rows})


def keys(schema: str, queue: str, *, limit: int) -> Statement[Builtin[KeyLoad]]:
    """Read the busiest partition keys of a queue."""
    query = files.load("queries/queue/keys.sql", schema)
    params = {"queue": queue, "limit": limit}
    return Statement("queue/keys", query, params, lambda rows: [*map(KeyLoad._make, rows)])


def _queue(row: Row) -> Queue:
    name, paused_at, paused_by, worker_concurrency, is_limited, *limits = row[:-6]
    workers, ready, running, nodes, oldest_ready_at, declared = row[-6:]
    return Queue(
        name=name,
        paused_at=paused_at,
        paused_by=paused_by,
        worker_concurrency=worker_concurrency,
        limits=_limits(*limits) if is_limited else None,
        workers=workers,
        ready=ready,
        running=running,
        nodes=tuple(_node(**each) for each in decode(nodes)) if nodes else (),
        oldest_ready_at=oldest_ready_at,
        declared=tuple(declared),
    )


def _limits(*columns: Any) -> QueueLimits:
    concurrency, key_concurrency, rate, burst, key_rate, key_burst = columns
    return QueueLimits(concurrency, key_concurrency, rate, burst or 1, key_rate, key_burst or 1)


def _node(node: str, paused_at: str | None, paused_by: str | None, concurrency: int | None) -> NodeQueue:
    at = None if paused_at is None else datetime.fromisoformat(paused_at).astimezone(UTC)
    return NodeQueue(node, at, paused_by, concurrency)
