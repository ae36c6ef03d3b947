"""Run statements for an application: on its own connection and transaction, or on pooled ones of ours."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

import psycopg
from psycopg_pool import AsyncConnectionPool, ConnectionPool, PoolTimeout

from pgflow.errors import Unreachable
from pgflow.store import worker
from pgflow.store.connect import aconnect, connect, conninfo, outage, place
from pgflow.store.statement import Statement, arun, run

__all__ = ["Call", "Client"]

T = TypeVar("T")
Conn: TypeAlias = psycopg.Connection[Any]
AConn: TypeAlias = psycopg.AsyncConnection[Any]

POOL_SECONDS = 5.0  # to wait for a free connection
POOL: Mapping[str, Any] = {
    "name": "pgflow", "min_size": 1, "max_size": 10, "timeout": POOL_SECONDS, "kwargs": {"autocommit": True},
}  # fmt: skip
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
    """Connections for one DSN and schema: a pool for threads, one for each event loop, both opened at the first use."""

    def __init__(self, dsn: str, schema: str) -> None:
        self.dsn = dsn
        self.schema = schema
        self._pool: ConnectionPool[Conn] | None = None
        self._async_pools: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncConnectionPool[AConn]] = (
            WeakKeyDictionary()
        )
        self._lock = threading.Lock()
        self._woken: dict[str, float] = {}
        self._late: set[str] = set()

    def run(self, statement: Statement[T], conn: Conn | None = None) -> T:
        """Run a statement on `conn`, which neither commits nor rolls back, or else on a connection of ours."""
        if conn is not None:
            return run(conn, statement)
        with self._connection() as ours:
            return run(ours, statement)

    async def arun(self, statement: Statement[T], conn: AConn | None = None) -> T:
        """`run`, async."""
        if conn is not None:
            return await arun(conn, statement)
        async with self._aconnection() as ours:
            return await arun(ours, statement)

    def call(self, call: Call[T], conn: Conn | None = None) -> T:
        """Run a statement that makes work, and wake the workers: after our commit, or with the caller's."""
        if conn is not None:
            return run(conn, call.statement(True))
        with self._connection() as ours:
            result = run(ours, call.statement(False))
            if queues := self._quiet(call.queues):
                run(ours, worker.wake(self.schema, queues))
        return result

    async def acall(self, call: Call[T], conn: AConn | None = None) -> T:
        """`call`, async."""
        if conn is not None:
            return await arun(conn, call.statement(True))
        async with self._aconnection() as ours:
            result = await arun(ours, call.statement(False))
            if queues := self._quiet(call.queues):
                await arun(ours, worker.wake(self.schema, queues))
        return result

    def close(self) -> None:
        """Close the connections that threads used."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    async def aclose(self) -> None:
        """Close the connections that this event loop used, and those of threads."""
        pool = self._async_pools.pop(asyncio.get_running_loop(), None)
        if pool is not None:
            await pool.close()
        self.close()

    # -- waking, coalesced: the first at once, those that follow within QUIET_SECONDS together

    def _quiet(self, queues: Iterable[str]) -> set[str]:
        """Return the queues to wake now; the others will be woken together in a moment."""
        now = time.monotonic()
        due: set[str] = set()
        with self._lock:
            for queue in queues:
                if now - self._woken.get(queue, 0.0) >= QUIET_SECONDS:
                    self._woken[queue] = now
                    due.add(queue)
                elif queue not in self._late:
                    if not self._late:
                        timer = threading.Timer(QUIET_SECONDS, self._wake_late)
                        timer.daemon = True
                        timer.start()
                    self._late.add(queue)
        return due

    def _wake_late(self) -> None:
        with self._lock:
            queues, self._late = self._late, set()
            self._woken.update(dict.fromkeys(queues, time.monotonic()))
        try:
            self.run(worker.wake(self.schema, queues))
        except (psycopg.Error, Unreachable):
            pass  # a hint: polling finds the work

    # -- connections

    @contextmanager
    def _connection(self) -> Iterator[Conn]:
        pool = self._pool
        if pool is None:
            connect(self.dsn).close()  # says at once and clearly what is wrong; a pool would go on trying
            with self._lock:
                if self._pool is None:
                    self._pool = ConnectionPool(conninfo(self.dsn), open=True, **POOL)
                pool = self._pool
        try:
            conn = pool.getconn()
        except PoolTimeout as error:
            raise self._exhausted() from error
        try:
            yield conn
        finally:
            pool.putconn(conn)

    @asynccontextmanager
    async def _aconnection(self) -> AsyncIterator[AConn]:
        loop = asyncio.get_running_loop()
        pool = self._async_pools.get(loop)
        if pool is None:
            await (await aconnect(self.dsn)).close()
            pool = self._async_pools.setdefault(loop, AsyncConnectionPool(conninfo(self.dsn), open=False, **POOL))
            await pool.open()
        try:
            conn = await pool.getconn()
        except PoolTimeout as error:
            raise self._exhausted() from error
        try:
            yield conn
        finally:
            await pool.putconn(conn)

    def _exhausted(self) -> Unreachable:
        return outage(psycopg.OperationalError(f"no connection became free within {POOL_SECONDS:g} s"), place(self.dsn))
