"""Keep connections open for an application: one pool for its threads, one for each of its event loops."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, TypeAlias
from weakref import finalize

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from pgflow.errors import DatabaseError
from pgflow.store.connect import connect, outage, place, pooling
from pgflow.store.lending import Lending

__all__ = ["AConn", "Conn", "Pool"]

Conn: TypeAlias = psycopg.Connection[Any]
AConn: TypeAlias = psycopg.AsyncConnection[Any]

WAIT_SECONDS = 5.0  # for a free connection
MOST = 10
OPTIONS: Mapping[str, Any] = {
    "name": "pgflow",
    "min_size": 1,
    "max_size": MOST,
    "timeout": WAIT_SECONDS,
}


class Pool:
    """Connections in autocommit mode, opened at the first use; `pooler` as in `connect`.

    with pool.connection() as conn: ...
    async with pool.aconnection() as conn: ...
    """

    def __init__(self, dsn: str, *, pooler: bool = False) -> None:
        self._dsn = dsn
        self._pooler = pooler
        self._lock = threading.Lock()
        self._threads: ConnectionPool[Conn] | None = None
        self._end: finalize[..., Pool] | None = None
        self._loops: dict[asyncio.AbstractEventLoop, Lending] = {}
        self._is_doubted = False

    @contextmanager
    def connection(self) -> Iterator[Conn]:
        """Lend a connection to this thread. Raises `Unreachable` when there is none within five seconds."""
        pool = self._threads
        if pool is None:
            connect(
                self._dsn, pooler=self._pooler
            ).close()  # says at once and clearly what is wrong; a pool would go on trying
            with self._lock:
                if self._threads is None:
                    recipe = pooling(self._dsn, pooler=self._pooler)
                    self._threads = ConnectionPool(open=True, **recipe, **OPTIONS)
                    # A program need not close us. Later than this, at its end, the pool's threads could not be joined.
                    self._end = finalize(self, self._threads.close)
                pool = self._threads
        if self._is_doubted:
            self._is_doubted = False
            pool.check()
        try:
            conn = pool.getconn()
        except PoolTimeout as error:
            raise self._exhausted() from error
        try:
            yield conn
        finally:
            pool.putconn(conn)

    @asynccontextmanager
    async def aconnection(self) -> AsyncIterator[AConn]:
        """`connection`, for this event loop."""
        loop = asyncio.get_running_loop()
        lending = self._loops.get(loop)
        if lending is None:
            for ended in [each for each in self._loops if each.is_closed()]:
                del self._loops[ended]
            lending = self._loops[loop] = Lending(self._dsn, MOST, pooler=self._pooler)
        async with AsyncExitStack() as stack:
            try:
                conn = await stack.enter_async_context(lending.connection(WAIT_SECONDS))
            except TimeoutError as error:
                raise self._exhausted() from error
            yield conn

    def doubt(self) -> None:
        """Lend no connection again without a look whether it still is one: a restart severs them all at once."""
        self._is_doubted = True
        for lending in list(self._loops.values()):
            lending.doubt()

    def close(self) -> None:
        """Close the connections of threads."""
        with self._lock:
            self._threads, end, self._end = None, self._end, None
        if end is not None:
            end()

    async def aclose(self) -> None:
        """Close the connections of this event loop, and those of threads."""
        lending = self._loops.pop(asyncio.get_running_loop(), None)
        if lending is not None:
            await lending.close()
        self.close()

    def _exhausted(self) -> DatabaseError:
        error = psycopg.OperationalError(f"no connection became free within {WAIT_SECONDS:g} s")
        return outage(error, place(self._dsn))
