"""Keep connections open for an application: one set for its threads, one for each of its event loops."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, TypeAlias
from weakref import finalize

import psycopg

from pgflow.database.pooling.sync_pool import AsyncConnectionPool, ConnectionPool
from pgflow.process import PerProcess

__all__ = ["AConn", "Conn", "Pool"]

Conn: TypeAlias = psycopg.Connection[Any]
AConn: TypeAlias = psycopg.AsyncConnection[Any]

WAIT_SECONDS = 5.0  # for a free connection
MAX_SIZE = 10


class Pool:
    """Connections in autocommit mode, opened at the first use; `role` and `pooler` as in `connect`.

    Where the server refuses a connection, a call fails as soon as no place of this process's own may become free; with
    `keep_retrying` it goes on trying for as long as it may wait.

    A forked child opens its own: see `pgflow.process`.

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
        for_threads = partial(ConnectionPool, dsn, max_size, role, keep_retrying=keep_retrying, pooler=pooler)
        for_a_loop = partial(AsyncConnectionPool, dsn, max_size, role, keep_retrying=keep_retrying, pooler=pooler)
        self._lenders = PerProcess(lambda: _Lenders(for_threads, for_a_loop))
        # A program need not call close(): but a connection that is still open when it ends is reported as leaked.
        finalize(self, _finish, self._lenders)

    @property
    def threads(self) -> ConnectionPool:
        """What lends to threads, for those who acquire in one and give back in another."""
        return self._lenders.get().threads

    @contextmanager
    def connection(self) -> Iterator[Conn]:
        """Lend a connection to this thread. Raises `Unreachable` when there is none within five seconds."""
        lending = self.threads
        conn = lending.acquire(WAIT_SECONDS)
        try:
            yield conn
        finally:
            lending.release(conn)

    @asynccontextmanager
    async def aconnection(self, patience: float | None = None) -> AsyncIterator[AConn]:
        """`connection`, for this event loop; `patience` is how many seconds to wait, if not five."""
        lending = self._lenders.get().of_loop(asyncio.get_running_loop())
        async with lending.connection(WAIT_SECONDS if patience is None else patience) as conn:
            yield conn

    def check_before_reuse(self) -> None:
        """Check each idle connection before it is lent again: a restart of the server severs them all at once."""
        self._lenders.get().check_before_reuse()

    def close(self) -> None:
        """Close the connections of threads."""
        if (lenders := self._lenders.peek()) is not None:
            lenders.close_threads()

    async def aclose(self) -> None:
        """Close the connections of this event loop, and those of threads."""
        if (lenders := self._lenders.peek()) is not None:
            lending = lenders.loops.pop(asyncio.get_running_loop(), None)
            if lending is not None:
                await lending.close()
        self.close()


class _Lenders:
    """What one process lends from."""

    def __init__(
        self, for_threads: Callable[[], ConnectionPool], for_a_loop: Callable[[], AsyncConnectionPool]
    ) -> None:
        self._for_threads = for_threads
        self._for_a_loop = for_a_loop
        self._lock = threading.Lock()
        self.threads = for_threads()
        self.loops: dict[asyncio.AbstractEventLoop, AsyncConnectionPool] = {}

    def of_loop(self, loop: asyncio.AbstractEventLoop) -> AsyncConnectionPool:
        lending = self.loops.get(loop)
        if lending is None:
            with self._lock:
                for ended in [each for each in self.loops if each.is_closed()]:
                    del self.loops[ended]
                lending = self.loops[loop] = self._for_a_loop()
        return lending

    def check_before_reuse(self) -> None:
        self.threads.check_before_reuse()
        for lending in list(self.loops.values()):
            lending.check_before_reuse()

    def close_threads(self) -> None:
        with self._lock:
            closed, self.threads = self.threads, self._for_threads()
        closed.close()


def _finish(lenders: PerProcess[_Lenders]) -> None:
    if (mine := lenders.peek()) is not None:  # never those that a forked child has inherited
        mine.threads.close()
