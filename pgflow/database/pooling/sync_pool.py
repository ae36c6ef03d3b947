"""Lend connections to the threads of a process."""

from __future__ import annotations

import threading
import time

import psycopg

from pgflow.database.connect import Connection, connect
from pgflow.database.pooling import idle
from pgflow.database.pooling.idle import ConnectRetry, IdleConnections, closed_error, exhausted_error
from pgflow.errors import Unreachable

__all__ = ["ConnectionPool"]


class ConnectionPool:
    """Up to `max_size` connections in autocommit mode for threads, opened on demand and kept for reuse."""

    def __init__(
        self, dsn: str, max_size: int, role: str = "client", *, keep_retrying: bool = False, pooler: bool = False
    ) -> None:
        self._dsn = dsn
        self._max_size = max_size
        self._role = role
        self._keep_retrying = keep_retrying
        self._pooler = pooler
        self._idle: IdleConnections[Connection] = IdleConnections()
        self._changed = threading.Condition()
        self._in_use = 0
        self._is_closed = False
        self._sweeper: threading.Timer | None = None

    def acquire(self, seconds: float) -> Connection:
        """Lend a connection until `release`.

        Raises `Unreachable` when all are in use for `seconds`, or when the server refuses a new one and none of
        those in use is returned in that time; with `keep_retrying`, when none can be opened in that time.
        """
        deadline = time.monotonic() + seconds
        with self._changed:
            if self._in_use >= self._max_size:
                self._changed.wait_for(lambda: self._in_use < self._max_size or self._is_closed, seconds)
                if self._is_closed:
                    raise closed_error(self._dsn)
                if self._in_use >= self._max_size:
                    raise exhausted_error(self._dsn, self._max_size, seconds)
            self._in_use += 1
        try:
            conn = self._take(deadline)
        except BaseException:
            with self._changed:
                self._in_use -= 1
                self._changed.notify()
            raise
        self._idle.count(1)
        return conn

    def release(self, conn: Connection) -> None:
        """Return a connection that `acquire` lent."""
        if self._is_closed:
            conn.close()
        else:
            self._idle.keep(conn)
        self._idle.count(-1)
        with self._changed:
            self._in_use -= 1
            self._changed.notify()
            if len(self._idle) > 1 and self._sweeper is None and not self._is_closed:
                self._sweeper = threading.Timer(idle.IDLE_SECONDS, self._sweep)
                self._sweeper.daemon = True
                self._sweeper.start()

    def check_before_reuse(self) -> None:
        """Check the connections that are idle now before they are lent again."""
        self._idle.check_before_reuse()

    def close(self) -> None:
        """Close the idle connections now, the others when they are released. Waiting threads get an error."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if (sweeper := self._sweeper) is not None:
            sweeper.cancel()
            if sweeper is not threading.current_thread():
                sweeper.join()
        self._idle.close()

    def _take(self, deadline: float) -> Connection:
        if (idle_conn := self._take_idle()) is not None:
            return idle_conn
        try:
            return self._connect()
        except Unreachable as error:
            retry = ConnectRetry(self._idle.registry, deadline, keep_retrying=self._keep_retrying)
            pause = retry.next_pause(error)
        with self._idle.registry.waiting(self._idle):
            while True:
                with self._changed:
                    self._changed.wait(pause)
                if self._is_closed:
                    raise closed_error(self._dsn)
                if (idle_conn := self._take_idle()) is not None:
                    return idle_conn
                try:
                    return self._connect()
                except Unreachable as error:
                    pause = retry.next_pause(error)

    def _take_idle(self) -> Connection | None:
        while (taken := self._idle.take()) is not None:
            conn, must_check = taken
            if must_check:
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
