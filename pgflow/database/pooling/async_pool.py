"""Lend connections to the tasks of one event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import psycopg

from pgflow.database.connect import AsyncConnection, aconnect
from pgflow.database.pooling.idle import ConnectRetry, IdleConnections, exhausted_error
from pgflow.errors import Unreachable

__all__ = ["AsyncConnectionPool"]


class AsyncConnectionPool:
    """Up to `max_size` connections in autocommit mode for the tasks of one event loop, opened on demand.

    They are closed by `close`, or when `asyncio.run` ends the loop.
    """

    def __init__(
        self, dsn: str, max_size: int, role: str = "client", *, keep_retrying: bool = False, pooler: bool = False
    ) -> None:
        self._dsn = dsn
        self._max_size = max_size
        self._role = role
        self._keep_retrying = keep_retrying
        self._pooler = pooler
        self._free = asyncio.Semaphore(max_size)
        self._idle: IdleConnections[AsyncConnection] = IdleConnections()
        self._is_closed = False
        self._loop_hook: AsyncGenerator[None] | None = None

    @asynccontextmanager
    async def connection(self, seconds: float) -> AsyncIterator[AsyncConnection]:
        """Lend a connection. Raises `Unreachable` like `ConnectionPool.acquire`."""
        conn = await self.acquire(seconds)
        try:
            yield conn
        finally:
            self.release(conn)

    def check_before_reuse(self) -> None:
        """Check the connections that are idle now before they are lent again."""
        self._idle.check_before_reuse()

    async def close(self) -> None:
        """Close the idle connections now, the others when they are released."""
        if self._loop_hook is not None:
            await self._loop_hook.aclose()

    async def _close_with_loop(self) -> AsyncGenerator[None]:
        # asyncio.run closes suspended async generators after it has ended all tasks.
        try:
            yield
        finally:
            self._is_closed = True
            self._idle.close()

    async def acquire(self, seconds: float) -> AsyncConnection:
        """Lend a connection until `release`; raises like `connection`."""
        if self._loop_hook is None:
            self._loop_hook = self._close_with_loop()
            await anext(self._loop_hook)
        deadline = time.monotonic() + seconds
        try:
            async with asyncio.timeout(seconds):
                await self._free.acquire()
        except TimeoutError as error:
            raise exhausted_error(self._dsn, self._max_size, seconds) from error
        try:
            conn = await self._take(deadline)
        except BaseException:
            self._free.release()
            raise
        self._idle.count(1)
        return conn

    def release(self, conn: AsyncConnection) -> None:
        """Return a connection that `acquire` lent."""
        if self._is_closed:
            conn.pgconn.finish()
        else:
            self._idle.keep(conn)
        self._idle.count(-1)
        self._free.release()

    async def _take(self, deadline: float) -> AsyncConnection:
        if (idle_conn := await self._take_idle()) is not None:
            return idle_conn
        try:
            return await self._connect()
        except Unreachable as error:
            retry = ConnectRetry(self._idle.registry, deadline, keep_retrying=self._keep_retrying)
            pause = retry.next_pause(error)
        with self._idle.registry.waiting(self._idle):
            while True:
                await asyncio.sleep(pause)
                if (idle_conn := await self._take_idle()) is not None:
                    return idle_conn
                try:
                    return await self._connect()
                except Unreachable as error:
                    pause = retry.next_pause(error)

    async def _take_idle(self) -> AsyncConnection | None:
        while (taken := self._idle.take()) is not None:
            conn, must_check = taken
            if must_check:
                try:
                    await conn.execute("select 1")
                except psycopg.OperationalError:
                    await conn.close()
            if not conn.closed:
                return conn
        return None

    async def _connect(self) -> AsyncConnection:
        return await aconnect(self._dsn, self._role, pooler=self._pooler)
