"""Turn an application's calls into statements, and run them on its own connection or on ours."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

import psycopg

from pgflow.core.instance import Started
from pgflow.core.payload import INPUT_LIMIT, decode, encode
from pgflow.core.request import check_moment, takers
from pgflow.core.step import Target
from pgflow.core.unique import validate_value
from pgflow.core.workflow import Workflow
from pgflow.errors import Unreachable
from pgflow.store import instance, signal, worker
from pgflow.store.pool import AConn, Conn, Pool
from pgflow.store.statement import Statement, arun, run

__all__ = ["Call", "Client", "cancelling", "resuming", "retrying", "starting"]

T = TypeVar("T")

QUIET_SECONDS = 0.01  # between two notifications of one queue


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A statement that makes work for workers, and the queues to wake once it has committed.

    `statement(notify)` builds it: with True it notifies itself, inside the transaction, which is right only where the
    transaction is the caller's. A NOTIFY takes a lock on the whole database at commit, so ours comes after it.
    """

    statement: Callable[[bool], Statement[T]]
    queues: frozenset[str]


class Client:
    """Runs statements: on `conn`, which it neither commits nor rolls back, or else on a connection of its own."""

    def __init__(self, dsn: str, schema: str) -> None:
        self.dsn = dsn
        self.schema = schema
        self.pool = Pool(dsn)
        self._lock = threading.Lock()
        self._woken: dict[str, float] = {}
        self._late: set[str] = set()
        self._waker: threading.Timer | None = None

    def run(self, statement: Statement[T], conn: Conn | None = None) -> T:
        """Run a statement."""
        if conn is not None:
            return run(conn, statement)
        with self.pool.connection() as ours:
            return run(ours, statement)

    async def arun(self, statement: Statement[T], conn: AConn | None = None) -> T:
        """`run`, async."""
        if conn is not None:
            return await arun(conn, statement)
        async with self.pool.aconnection() as ours:
            return await arun(ours, statement)

    def call(self, call: Call[T], conn: Conn | None = None) -> T:
        """Run a statement that makes work, and wake the workers: after our commit, or with the caller's."""
        if conn is not None:
            return run(conn, call.statement(True))
        with self.pool.connection() as ours:
            result = run(ours, call.statement(False))
            if queues := self._due(call.queues):
                run(ours, worker.wake(self.schema, queues))
        return result

    async def acall(self, call: Call[T], conn: AConn | None = None) -> T:
        """`call`, async."""
        if conn is not None:
            return await arun(conn, call.statement(True))
        async with self.pool.aconnection() as ours:
            result = await arun(ours, call.statement(False))
            if queues := self._due(call.queues):
                await arun(ours, worker.wake(self.schema, queues))
        return result

    def _due(self, queues: Iterable[str]) -> set[str]:
        """Return the queues to wake now. The first call wakes at once.

        Those that soon follow are woken together, later.
        """
        now = time.monotonic()
        due: set[str] = set()
        with self._lock:
            for queue in queues:
                if now - self._woken.get(queue, 0.0) >= QUIET_SECONDS:
                    self._woken[queue] = now
                    due.add(queue)
                    continue
                if not self._late:
                    self._waker = threading.Timer(QUIET_SECONDS, self._wake_late)
                    self._waker.daemon = True
                    self._waker.start()
                self._late.add(queue)
        return due

    def close(self) -> None:
        """Close the connections that threads used, after the last notification is out: it would open them anew."""
        if self._waker is not None:
            self._waker.join()
        self.pool.close()

    async def aclose(self) -> None:
        """Close the connections of this event loop, and those of threads."""
        if self._waker is not None:
            await asyncio.to_thread(self._waker.join)
        await self.pool.aclose()

    def _wake_late(self) -> None:
        with self._lock:
            queues, self._late = self._late, set()
            self._woken.update(dict.fromkeys(queues, time.monotonic()))
        with suppress(psycopg.Error, Unreachable):  # a hint: polling finds the work
            self.run(worker.wake(self.schema, queues))


def starting(
    schema: str,
    workflow: type[Workflow[Any]],
    items: Iterable[tuple[str, Any]],
    *,
    version: int | None = None,
    at: datetime | None = None,
    delay: timedelta | None = None,
    tags: Sequence[str] = (),
    metadata: Mapping[str, Any] | None = None,
    priority: int | None = None,
) -> Call[list[Started]]:
    """Start an instance for each (value, input). Raises before anything is sent when one of them cannot be."""
    number, _ = workflow.resolve_version(version)
    check_moment(at, delay)
    values, inputs = [], []
    for value, given in items:
        values.append(validate_value(value))
        inputs.append(workflow.write_input(given))
    extra = decode(encode(dict(metadata or {}), what="metadata", limit=INPUT_LIMIT))

    def statement(notify: bool) -> Statement[list[Started]]:
        return instance.start(
            schema,
            workflow=workflow.name,
            values=values,
            inputs=inputs,
            version=number,
            at=at,
            delay=delay,
            tags=tags,
            metadata=extra,
            priority=priority,
            notify=notify,
        )

    # What starts later is made ready by a worker; nobody has to be woken for it.
    return Call(statement, frozenset({_first_queue(workflow)} if at is None and delay is None else ()))


def resuming(
    schema: str, workflow: type[Workflow[Any]], value: str, event: Any, payload: Any, step: str | Target | None
) -> Call[str]:
    """Send a signal. Raises `UndeclaredEvent` or `UnknownStep` at once for what no step of the workflow takes."""
    name, key, nodes = takers(workflow.graph, event, step)
    text = None if payload is None else encode(payload, what="payload", limit=INPUT_LIMIT)

    def statement(notify: bool) -> Statement[str]:
        return signal.send(
            schema, workflow=workflow.name, value=value, event=name, payload=text, step=key, notify=notify
        )

    return Call(statement, frozenset(node.queue for node in nodes))


def cancelling(schema: str, workflow: type[Workflow[Any]], value: str, reason: str | None) -> Call[None]:
    """Cancel the newest run of a value."""

    def statement(notify: bool) -> Statement[None]:
        return instance.cancel(schema, workflow=workflow.name, value=value, reason=reason, notify=notify)

    return Call(statement, frozenset({""}))  # woken without a queue's name, workers look whether their steps are wanted


def retrying(schema: str, workflow: type[Workflow[Any]], value: str) -> Call[None]:
    """Take the newest run of a value up again after it failed."""

    def statement(notify: bool) -> Statement[None]:
        return instance.retry(schema, workflow=workflow.name, value=value, notify=notify)

    return Call(statement, frozenset({_first_queue(workflow)}))


def _first_queue(workflow: type[Workflow[Any]]) -> str:
    return workflow.graph.nodes[workflow.graph.initial].queue
