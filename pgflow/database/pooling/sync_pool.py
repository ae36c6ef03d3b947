"""Lend connections to threads, or to the tasks of one event loop, and keep them open in between.

Neither has threads or tasks of its own that connect in the background: callers make the connections they need. So the
error of a connection that cannot be made reaches the caller at once, nothing outlives the work of an event loop, and
nothing is missing in a forked child. (A pool that connects in the background has a task under way now and then when
`asyncio.run` wants to end, and psycopg_pool's survive their cancellation: the program hangs.)

A server may allow few connections. So when it refuses one, this process closes its idle connections, of threads and
event loops alike, and tries again; and while others are in use, the caller waits for one of these. As long as it waits,
other lenders close what is returned to them instead of keeping it: an event loop cannot use a connection of threads.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary, WeakSet

import psycopg

from pgflow import process
from pgflow.database.connect import AsyncConnection, Connection, aconnect, connect, is_idle, place
from pgflow.errors import Unreachable

__all__ = ["AsyncConnectionPool", "ConnectionPool"]

IDLE_SECONDS = 600.0  # after which an idle connection is closed, except the one used last
LIFETIME_SECONDS = 3600.0  # after which a connection is replaced: its server process has grown, or the server moved
GRACE_SECONDS = 3.0  # after one of our sessions was closed: the server frees its place when its process has ended
FIRST_PAUSE, MAX_PAUSE = 0.01, 0.2  # seconds between two attempts after a refusal

C = TypeVar("C", Connection, AsyncConnection)


class Idle(Generic[C]):
    """The idle connections of one lender, in the order of their last use. Any thread may use it.

    `lent` counts those in use.
    """

    def __init__(self) -> None:
        self.lent: int = 0
        # Reentrant, because the garbage collector may close a pool in a thread that holds it.
        self._lock: threading.RLock = threading.RLock()
        self._conns: list[tuple[float, C]] = []  # idle since
        self._first_kept: WeakKeyDictionary[C, float] = WeakKeyDictionary()
        self._doubted_at: float = 0.0
        self.lenders = _lenders.get()
        self.lenders.add(self)

    def __len__(self) -> int:
        return len(self._conns)

    def take(self) -> tuple[C, bool] | None:
        """Take the connection used last, and whether it must be checked first; None when there is none."""
        with self._lock:
            if not self._conns:
                return None
            since, conn = self._conns.pop()
            return conn, since < self._doubted_at

    def count(self, lent: int) -> None:
        """Count a connection that was lent, 1, or returned, -1."""
        with self._lock:
            self.lent += lent

    def keep(self, conn: C) -> None:
        """Keep a connection for later, unless it is broken, in a transaction or too old."""
        now = time.monotonic()
        if not is_idle(conn) or self.lenders.is_awaited(self):
            conn.pgconn.finish()
            return
        with self._lock:
            if now - self._first_kept.setdefault(conn, now) > LIFETIME_SECONDS:
                conn.pgconn.finish()
            else:
                self._conns.append((now, conn))
        self.close_surplus(now)

    def close_surplus(self, now: float) -> None:
        """Close connections that were not needed for `IDLE_SECONDS`, except the one used last."""
        with self._lock:
            while len(self._conns) > 1 and now - self._conns[0][0] > IDLE_SECONDS:
                self._conns.pop(0)[1].pgconn.finish()

    def check_before_reuse(self) -> None:
        """Have those that are idle now checked before they are lent again."""
        self._doubted_at = time.monotonic()

    def close(self) -> int:
        """Close all of them and return how many there were.

        An idle async connection is not registered with its event loop, so any thread may close it.
        """
        with self._lock:
            conns, self._conns = self._conns, []
        for _, conn in conns:
            conn.pgconn.finish()
        return len(conns)


class _Lenders:
    """The lenders of one process, and which of them have callers that a server refused a connection."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lenders: WeakSet[Idle[Any]] = WeakSet()
        self._awaiting: list[Idle[Any]] = []

    def add(self, lender: Idle[Any]) -> None:
        with self._lock:
            self._lenders.add(lender)

    def is_awaited(self, lender: Idle[Any]) -> bool:
        """Whether another lender could use the place of a connection."""
        return bool(self._awaiting) and any(each is not lender for each in self._awaiting)

    def make_room(self) -> bool:
        """Close all idle connections; returns whether there were any, or are others in use that may be returned."""
        with self._lock:  # or a set that another thread adds to could not be read
            lenders = list(self._lenders)
        return sum(each.close() + each.lent for each in lenders) > 0

    @contextmanager
    def waiting(self, lender: Idle[Any]) -> Iterator[None]:
        """Let other lenders close what is returned to them meanwhile."""
        with self._lock:
            self._awaiting.append(lender)
        try:
            yield
        finally:
            with self._lock:
                self._awaiting.remove(lender)


_lenders = process.PerProcess(_Lenders)


class _Patience:
    """When to try again after a refusal, for one caller: until its deadline, and as long as a place may become free.

    With `keep_retrying` until its deadline, also when only other processes could free a place, or the server is down.
    """

    def __init__(self, lenders: _Lenders, deadline: float, *, keep_retrying: bool) -> None:
        self._lenders = lenders
        self._deadline = deadline
        self._persists = keep_retrying
        self._hopeless_at = 0.0
        self._pause = FIRST_PAUSE

    def pause(self, error: Unreachable) -> float:
        """Return after how many seconds to try again; raises the error when that would be in vain."""
        now = time.monotonic()
        if _is_refusal(error) and self._lenders.make_room():
            self._hopeless_at = now + GRACE_SECONDS
        if now >= (self._deadline if self._persists else min(self._deadline, self._hopeless_at)):
            raise error
        self._pause, pause = min(2 * self._pause, MAX_PAUSE), self._pause
        return pause


class ConnectionPool:
    """Up to `max_size` connections in autocommit mode for threads, made when they are needed and kept for later."""

    def __init__(
        self, dsn: str, max_size: int, role: str = "client", *, keep_retrying: bool = False, pooler: bool = False
    ) -> None:
        self._dsn = dsn
        self._most = max_size
        self._role = role
        self._persists = keep_retrying
        self._pooler = pooler
        self._idle: Idle[Connection] = Idle()
        self._changed = threading.Condition()
        self._lent = 0
        self._is_closed = False
        self._sweeper: threading.Timer | None = None

    def acquire(self, patience: float) -> Connection:
        """Lend a connection until `release`.

        Raises `Unreachable` when all are in use for `patience` seconds, or when none can be made and none of those in
        use is returned by then; with `keep_retrying`, when none can be made in that time.
        """
        deadline = time.monotonic() + patience
        with self._changed:
            if self._lent >= self._most:
                self._changed.wait_for(lambda: self._lent < self._most or self._is_closed, patience)
                if self._is_closed:
                    raise _closed(self._dsn)
                if self._lent >= self._most:
                    raise _exhausted(self._dsn, self._most, patience)
            self._lent += 1
        try:
            conn = self._take(deadline)
        except BaseException:
            with self._changed:
                self._lent -= 1
                self._changed.notify()
            raise
        self._idle.count(1)
        return conn

    def release(self, conn: Connection) -> None:
        """Take back a connection that `acquire` lent."""
        if self._is_closed:
            conn.close()
        else:
            self._idle.keep(conn)
        self._idle.count(-1)
        with self._changed:
            self._lent -= 1
            self._changed.notify()
            if len(self._idle) > 1 and self._sweeper is None and not self._is_closed:
                self._sweeper = threading.Timer(IDLE_SECONDS, self._sweep)
                self._sweeper.daemon = True
                self._sweeper.start()

    def check_before_reuse(self) -> None:
        """Check the connections that are idle now before they are lent again."""
        self._idle.check_before_reuse()

    def close(self) -> None:
        """Close those that are idle now, and the others when they are given back. Threads that wait get an error."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if (sweeper := self._sweeper) is not None:
            sweeper.cancel()
            if sweeper is not threading.current_thread():
                sweeper.join()
        self._idle.close()

    def _take(self, deadline: float) -> Connection:
        if (kept := self._take_idle()) is not None:
            return kept
        try:
            return self._connect()
        except Unreachable as error:
            patience = _Patience(self._idle.lenders, deadline, keep_retrying=self._persists)
            pause = patience.pause(error)
        with self._idle.lenders.waiting(self._idle):
            while True:
                with self._changed:
                    self._changed.wait(pause)
                if self._is_closed:
                    raise _closed(self._dsn)
                if (kept := self._take_idle()) is not None:
                    return kept
                try:
                    return self._connect()
                except Unreachable as error:
                    pause = patience.pause(error)

    def _take_idle(self) -> Connection | None:
        while (taken := self._idle.take()) is not None:
            conn, is_doubted = taken
            if is_doubted:
                try:
                    conn.execute("select 1")
                except psycopg.OperationalError:
                    conn.close()
            if not conn.closed:
                return conn
        return None

    def _connect(self) -> Connection:
        return connect(self._dsn, self._role, pooler=self._pooler)

    def _sweep(self) -> None:
        self._idle.close_surplus(time.monotonic())
        with self._changed:
            self._sweeper = None


class AsyncConnectionPool:
    """Up to `max_size` connections in autocommit mode for the tasks of one event loop, made when they are needed.

    They are closed by `close`, or when `asyncio.run` ends the loop.
    """

    def __init__(
        self, dsn: str, max_size: int, role: str = "client", *, keep_retrying: bool = False, pooler: bool = False
    ) -> None:
        self._dsn = dsn
        self._most = max_size
        self._role = role
        self._persists = keep_retrying
        self._pooler = pooler
        self._room = asyncio.Semaphore(max_size)
        self._idle: Idle[AsyncConnection] = Idle()
        self._is_closed = False
        self._keeper: AsyncGenerator[None] | None = None

    @asynccontextmanager
    async def connection(self, patience: float) -> AsyncIterator[AsyncConnection]:
        """Lend a connection. Raises `Unreachable` as `ConnectionPool.acquire` does."""
        conn = await self.acquire(patience)
        try:
            yield conn
        finally:
            self.release(conn)

    def check_before_reuse(self) -> None:
        """Check the connections that are idle now before they are lent again."""
        self._idle.check_before_reuse()

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
            self._idle.close()

    async def acquire(self, patience: float) -> AsyncConnection:
        """Lend a connection until `release`; raises as `connection` does."""
        if self._keeper is None:
            self._keeper = self._keep()
            await anext(self._keeper)
        deadline = time.monotonic() + patience
        try:
            async with asyncio.timeout(patience):
                await self._room.acquire()
        except TimeoutError as error:
            raise _exhausted(self._dsn, self._most, patience) from error
        try:
            conn = await self._take(deadline)
        except BaseException:
            self._room.release()
            raise
        self._idle.count(1)
        return conn

    def release(self, conn: AsyncConnection) -> None:
        """Take back a connection that `acquire` lent."""
        if self._is_closed:
            conn.pgconn.finish()
        else:
            self._idle.keep(conn)
        self._idle.count(-1)
        self._room.release()

    async def _take(self, deadline: float) -> AsyncConnection:
        if (kept := await self._take_idle()) is not None:
            return kept
        try:
            return await self._connect()
        except Unreachable as error:
            patience = _Patience(self._idle.lenders, deadline, keep_retrying=self._persists)
            pause = patience.pause(error)
        with self._idle.lenders.waiting(self._idle):
            while True:
                await asyncio.sleep(pause)
                if (kept := await self._take_idle()) is not None:
                    return kept
                try:
                    return await self._connect()
                except Unreachable as error:
                    pause = patience.pause(error)

    async def _take_idle(self) -> AsyncConnection | None:
        while (taken := self._idle.take()) is not None:
            conn, is_doubted = taken
            if is_doubted:
                try:
                    await conn.execute("select 1")
                except psycopg.OperationalError:
                    await conn.close()
            if not conn.closed:
                return conn
        return None

    async def _connect(self) -> AsyncConnection:
        return await aconnect(self._dsn, self._role, pooler=self._pooler)


def _exhausted(dsn: str, max_size: int, seconds: float) -> Unreachable:
    return Unreachable(
        f"no connection became free within {seconds:g} s: all {max_size} to PostgreSQL at {place(dsn)} are in use",
        hint="Make fewer calls at the same time, or shorter ones.",
    )


def _closed(dsn: str) -> Unreachable:
    return Unreachable(f"the connections to PostgreSQL at {place(dsn)} were closed while a thread waited for one")


def _is_refusal(error: Unreachable) -> bool:
    """Whether a server may have refused a connection for want of places. Its message may be in any language."""
    cause = error.__cause__
    return not isinstance(cause, psycopg.errors.ConnectionTimeout) and "Is the server running" not in str(cause)
