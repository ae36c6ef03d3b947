"""Turn each command on queues and limits into its statement."""

from __future__ import annotations

from typing import Any

from pgflow.client.queue_commands import (
    ClearLimit,
    CountRunning,
    DrainQueue,
    ListLimits,
    ListQueues,
    PauseQueue,
    QueueCommand,
    ResumeQueue,
    ScaleQueue,
    SetLimit,
)
from pgflow.database.statement import Statement
from pgflow.store import limit, queue

__all__ = ["queue_statement"]


def queue_statement(schema: str, command: QueueCommand[Any]) -> Statement[Any]:
    """Return the statement of a command; each may run twice, so that one whose answer was lost is sent again."""
    match command:
        case PauseQueue(name, node, by):
            return queue.pause(schema, name, node=node, by=by)
        case ResumeQueue(name, node):
            return queue.resume(schema, name, node=node)
        case ScaleQueue(name, worker_concurrency, node):
            return queue.scale(schema, name, worker_concurrency, node=node)
        case DrainQueue(name, node, by):
            return queue.drain(schema, name, node=node, by=by)
        case CountRunning(name, node):
            return queue.running(schema, name, node=node)
        case ListQueues(name):
            return queue.list(schema, name)
        case SetLimit():
            return limit.set(
                schema,
                command.queue,
                concurrency=command.concurrency,
                key_concurrency=command.key_concurrency,
                rate=command.rate,
                burst=command.burst,
                key_rate=command.key_rate,
                key_burst=command.key_burst,
                key=command.key,
                weight=command.weight,
                is_new=command.is_new,
            )
        case ClearLimit(name, key):
            return limit.clear(schema, name, key)
        case ListLimits(name):
            return limit.list(schema, name)
    raise TypeError(f"{type(command).__name__} is not a command of pgflow.client.queue_commands")
