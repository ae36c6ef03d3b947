"""Run statements for an application, on its own connection or on ours, and wake workers afterwards."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import TypeVar

import psycopg

from pgflow.calls import Call
from pgflow.errors import Unreachable
from pgflow.store import worker
from pgflow.store.pool import AConn, Conn, Pool
from pgflow.store.statement import Statement, arun, run

__all__ = ["Client"]

T = TypeVar("T")

QUIET_SECONDS = 0.01  # between two notifications of one queue


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
