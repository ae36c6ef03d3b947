"""Turn an application's calls into statements, and run them on its own connection or on ours."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

import psycopg

from pgflow.core.instance import Started
from pgflow.core.names import TELEMETRY, event_name
from pgflow.core.payload import INPUT_LIMIT, decode, encode
from pgflow.core.step import Target, as_step
from pgflow.core.unique import SEPARATOR, validate_value
from pgflow.core.workflow import Workflow
from pgflow.errors import ConfigError, InvalidPayload, UndeclaredEvent, Unreachable
from pgflow.store import instance, signal, worker
from pgflow.store.pool import AConn, Conn, Pool
from pgflow.store.statement import Statement, arun, run
from pgflow.telemetry import emit
from pgflow.telemetry.emit import Subject

__all__ = ["Call", "Client", "cancelling", "resuming", "retrying", "starting"]

T = TypeVar("T")

QUIET_SECONDS = 0.01  # between two notifications of one queue


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A statement that makes work for workers, and the queues to wake once it has committed.

    `statement(notify)` builds it: with True it notifies itself, inside the transaction, which is right only where the
    transaction is the caller's. A NOTIFY takes a lock on the whole database at commit, so ours comes after it.
    `tell(result, in_transaction)` tells telemetry afterwards; in the caller's transaction it may yet be rolled back.
    """

    statement: Callable[[bool], Statement[T]]
    queues: frozenset[str]
    tell: Callable[[T, bool], None] = field(default=lambda result, in_transaction: None)


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
            result = run(conn, call.statement(True))
            call.tell(result, True)
            return result
        with self.pool.connection() as ours:
            result = run(ours, call.statement(False))
            if queues := self._due(call.queues):
                run(ours, worker.wake(self.schema, queues))
        call.tell(result, False)
        return result

    async def acall(self, call: Call[T], conn: AConn | None = None) -> T:
        """`call`, async."""
        if conn is not None:
            result = await arun(conn, call.statement(True))
            call.tell(result, True)
            return result
        async with self.pool.aconnection() as ours:
            result = await arun(ours, call.statement(False))
            if queues := self._due(call.queues):
                await arun(ours, worker.wake(self.schema, queues))
        call.tell(result, False)
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
    telemetry: Mapping[str, Any] | None = None,
    priority: int | None = None,
) -> Call[list[Started]]:
    """Start an instance for each (value, input). Raises before anything is sent when one of them cannot be."""
    number, _ = workflow.resolve_version(version)
    if at is not None and delay is not None:
        raise ConfigError("an instance starts at a time or after a delay, not both", hint="Pass either at= or delay=.")
    if at is not None and at.tzinfo is None:
        hint = "Use an aware datetime, such as datetime.now(timezone.utc)."
        raise ConfigError(f"at={at.isoformat()} has no time zone", hint=hint)
    values, inputs = [], []
    for value, given in items:
        values.append(validate_value(value))
        inputs.append(workflow.write_input(given))
    extra = decode(encode(dict(metadata or {}), what="metadata", limit=INPUT_LIMIT))
    if TELEMETRY in extra:
        raise InvalidPayload(f"the key {TELEMETRY!r} of metadata is pgflow's own", hint="Pass telemetry= instead.")
    if telemetry:
        extra[TELEMETRY] = decode(encode(dict(telemetry), what="telemetry", limit=INPUT_LIMIT))

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
    graph, name = workflow.graph, event_name(event)
    key = None if step is None else graph.node(step if isinstance(step, str) else as_step(step).key).key
    takers = [node for node in graph.nodes.values() if name in node.step.signals() and key in (None, node.key)]
    if not takers:
        taken = sorted(f"{each} ({node.key})" for node in graph.nodes.values() for each in node.step.signals())
        where = f"step {key!r} of {workflow.name}" if key else workflow.name
        raise UndeclaredEvent(f"{where} takes no signal {name!r}", hint=f"{workflow.name} takes: {', '.join(taken)}.")
    text = None if payload is None else encode(payload, what="payload", limit=INPUT_LIMIT)

    def statement(notify: bool) -> Statement[str]:
        return signal.send(
            schema, workflow=workflow.name, value=value, event=name, payload=text, step=key, notify=notify
        )

    def tell(outcome: str, in_transaction: bool) -> None:
        subject = _subject(workflow, value)
        emit.workflow_signal(subject, signal=name, step=key, outcome=outcome, in_transaction=in_transaction)

    return Call(statement, frozenset(taker.queue for taker in takers), tell)


def cancelling(schema: str, workflow: type[Workflow[Any]], value: str, reason: str | None) -> Call[None]:
    """Cancel the newest run of a value."""

    def statement(notify: bool) -> Statement[None]:
        return instance.cancel(schema, workflow=workflow.name, value=value, reason=reason, notify=notify)

    def tell(_: None, in_transaction: bool) -> None:
        emit.workflow_cancel(_subject(workflow, value), reason=reason, in_transaction=in_transaction)

    return Call(
        statement, frozenset({""}), tell
    )  # woken without a queue's name, workers look whether their steps are wanted


def retrying(schema: str, workflow: type[Workflow[Any]], value: str) -> Call[None]:
    """Take the newest run of a value up again after it failed."""

    def statement(notify: bool) -> Statement[None]:
        return instance.retry(schema, workflow=workflow.name, value=value, notify=notify)

    def tell(_: None, in_transaction: bool) -> None:
        emit.workflow_retry(_subject(workflow, value), in_transaction=in_transaction)

    return Call(statement, frozenset({_first_queue(workflow)}), tell)


def _first_queue(workflow: type[Workflow[Any]]) -> str:
    return workflow.graph.nodes[workflow.graph.initial].queue


def _subject(workflow: type[Workflow[Any]], value: str) -> Subject:
    return Subject(value if SEPARATOR in value else f"{workflow.unique.key}{SEPARATOR}{value}", workflow.name)
