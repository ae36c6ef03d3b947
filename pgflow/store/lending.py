"""Lend connections to the tasks of one event loop; with no tasks of its own, so that nothing outlives the loop's work.

A pool that connects in the background has a task under way now and then when `asyncio.run` wants to end, and
psycopg_pool's do not mind being cancelled: the program hangs. Here whoever needs a connection makes it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import psycopg

from pgflow.store.connect import AsyncConnection, aconnect, is_idle

__all__ = ["Lending"]

IDLE_SECONDS = 600.0  # after which a connection that nobody needed is closed, but for the last one


class Lending:
    """Up to `most` connections in autocommit mode, made when they are needed and kept for later; see `Pool`.

    They are closed by `close`, or when `asyncio.run` ends the loop.
    """

    def __init__(self, dsn: str, most: int, *, pooler: bool = False) -> None:
        self._dsn = dsn
        self._pooler = pooler
        self._room = asyncio.Semaphore(most)
        self._idle: list[tuple[float, AsyncConnection]] = []  # since when; the one that was used last is the last
        self._is_closed = False
        self._doubted_at = 0.0
        self._keeper: AsyncGenerator[None] | None = None

    @asynccontextmanager
    async def connection(self, patience: float) -> AsyncIterator[AsyncConnection]:
        """Lend a connection. Raises `TimeoutError` when none becomes free within `patience` seconds, `Unreachable`."""
        if self._keeper is None:
            self._keeper = self._keep()
            await anext(self._keeper)
        async with asyncio.timeout(patience):
            await self._room.acquire()
        try:
            conn = await self._take()
            try:
                yield conn
            finally:
                await self._give_back(conn)
        finally:
            self._room.release()

    def doubt(self) -> None:
        """Look whether those that are idle now are connections still, before they are lent again."""
        self._doubted_at = time.monotonic()

    async def close(self) -> None:
        """Close those that are idle now, and the others when they come back."""
        if self._keeper is not None:
            await self._keeper.aclose()

    async def _keep(self) -> AsyncGenerator[None]:
        # A generator that stands open is ended by asyncio.run, once all tasks have been.
        try:
            yield
        finally:
            self._is_closed = True
            while self._idle:
                await self._idle.pop()[1].close()

    async def _take(self) -> AsyncConnection:
        while self._idle:
            since, conn = self._idle.pop()
            if since < self._doubted_at:
                try:
                    await conn.execute("select 1")
                except psycopg.OperationalError:
                    await conn.close()
            if not conn.closed:
                return conn
        return await aconnect(self._dsn, pooler=self._pooler)

    async def _give_back(self, conn: AsyncConnection) -> None:
        if self._is_closed or not is_idle(conn):
            await conn.close()
            return
        now = time.monotonic()
        self._idle.append((now, conn))
        if len(self._idle) > 1 and now - self._idle[0][0] > IDLE_SECONDS:
            await self._idle.pop(0)[1].close()
