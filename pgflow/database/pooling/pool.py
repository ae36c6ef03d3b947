"""Keep an application's connections open: one pool for its threads, one for each of its event loops."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, TypeAlias
from weakref import finalize

import psycopg

from pgflow.database.pooling.async_pool import AsyncConnectionPool
from pgflow.database.pooling.sync_pool import ConnectionPool
from pgflow.process import PerProcess

__all__ = ["AConn", "Conn", "Pool"]

Conn: TypeAlias = psycopg.Connection[Any]
AConn: TypeAlias = psycopg.AsyncConnection[Any]

ACQUIRE_TIMEOUT = 5.0  # seconds
MAX_SIZE = 10


class Pool:
    """Connections in autocommit mode, opened on first use; `role` and `pooler` as in `connect`.

    When the server refuses a connection, a call retries as long as this process may free a connection slot; with
    `keep_retrying` it retries until its timeout.

    A forked child opens its own connections: see `pgflow.process`.

        with pool.connection() as conn: ...
        async with pool.aconnection() as conn: ...
    """

    def __init__(
        self,
        dsn: str,
        role: str = "client",
        *,
        max_size: int = MAX_SIZE,
        keep_retrying: bool = False,
        pooler: bool = False,
    ) -> None:
        options: dict[str, Any] = {"keep_retrying": keep_retrying, "pooler": pooler}
        new_sync_pool = partial(ConnectionPool, dsn, max_size, role, **options)
        new_async_pool = partial(AsyncConnectionPool, dsn, max_size, role, **options)
        self._pools = PerProcess(lambda: _ProcessPools(new_sync_pool, new_async_pool))
        # A program need not call close(), but psycopg warns of a connection that is still open at exit.
        finalize(self, _finish, self._pools)

    @property
    def threads(self) -> ConnectionPool:
        """The pool for threads, for callers that acquire in one thread and release in another."""
        return self._pools.get().threads

    @contextmanager
    def connection(self) -> Iterator[Conn]:
        """Lend a connection to this thread. Raises `Unreachable` when there is none within five seconds."""
        pool = self.threads
        conn = pool.acquire(ACQUIRE_TIMEOUT)
        try:
            yield conn
        finally:
            pool.release(conn)

    @asynccontextmanager
    async def aconnection(self, seconds: float | None = None) -> AsyncIterator[AConn]:
        """`connection`, for this event loop; `seconds` is how long to wait, five by default."""
        pool = self._pools.get().of_loop(asyncio.get_running_loop())
        async with pool.connection(ACQUIRE_TIMEOUT if seconds is None else seconds) as conn:
            yield conn

    def check_before_reuse(self) -> None:
        """Check each idle connection before it is lent again: a server restart breaks all of them at once."""
        self._pools.get().check_before_reuse()

    def close(self) -> None:
        """Close the connections of threads."""
        if (pools := self._pools.peek()) is not None:
            pools.close_threads()

    async def aclose(self) -> None:
        """Close the connections of this event loop, and those of threads."""
        if (pools := self._pools.peek()) is not None:
            pool = pools.loops.pop(asyncio.get_running_loop(), None)
            if pool is not None:
                await pool.close()
        self.close()


class _ProcessPools:
    """The pools of one process."""

    def __init__(
        self, new_sync_pool: Callable[[], ConnectionPool], new_async_pool: Callable[[], AsyncConnectionPool]
    ) -> None:
        self._new_sync_pool = new_sync_pool
        self._new_async_pool = new_async_pool
        self._lock = threading.Lock()
        self.threads = new_sync_pool()
        self.loops: dict[asyncio.AbstractEventLoop, AsyncConnectionPool] = {}

    def of_loop(self, loop: asyncio.AbstractEventLoop) -> AsyncConnectionPool:
        pool = self.loops.get(loop)
        if pool is None:
            with self._lock:
                for ended in [each for each in self.loops if each.is_closed()]:
                    del self.loops[ended]
                pool = self.loops[loop] = self._new_async_pool()
        return pool

    def check_before_reuse(self) -> None:
        self.threads.check_before_reuse()
        for pool in list(self.loops.values()):
            pool.check_before_reuse()

    def close_threads(self) -> None:
        with self._lock:
            closed, self.threads = self.threads, self._new_sync_pool()
        closed.close()


def _finish(pools: PerProcess[_ProcessPools]) -> None:
    if (own := pools.peek()) is not None:  # never the pools that a forked child has inherited
        own.threads.close()
