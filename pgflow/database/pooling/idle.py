"""Keep idle connections, and free connection slots when the server has none left."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary, WeakSet

import psycopg

from pgflow import process
from pgflow.database.connect import AsyncConnection, Connection, place
from pgflow.database.transaction_status import is_idle
from pgflow.errors import Unreachable

__all__ = ["IDLE_SECONDS", "ConnectRetry", "IdleConnections", "closed_error", "exhausted_error"]

IDLE_SECONDS = 600.0  # an idle connection is closed after this time, except the most recently used one
LIFETIME_SECONDS = 3600.0  # a connection is replaced after this time: its backend has grown, or the server moved
GRACE_SECONDS = 3.0  # the server frees the slot of a closed session only when its backend has exited
MIN_PAUSE, MAX_PAUSE = 0.01, 0.2  # seconds between two attempts after a refusal

C = TypeVar("C", Connection, AsyncConnection)


class IdleConnections(Generic[C]):
    """The idle connections of one pool, least recently used first. Thread-safe.

    `in_use` counts the connections that the pool has lent.
    """

    def __init__(self) -> None:
        self.in_use: int = 0
        # Reentrant, because the garbage collector may close a pool in a thread that holds the lock.
        self._lock: threading.RLock = threading.RLock()
        self._conns: list[tuple[float, C]] = []  # (idle since, connection)
        self._created_at: WeakKeyDictionary[C, float] = WeakKeyDictionary()
        self._check_before: float = 0.0
        self.registry = _registry.get()
        self.registry.add(self)

    def __len__(self) -> int:
        return len(self._conns)

    def take(self) -> tuple[C, bool] | None:
        """Take the most recently used connection, and whether it must be checked first; None if there is none."""
        with self._lock:
            if not self._conns:
                return None
            since, conn = self._conns.pop()
            return conn, since < self._check_before

    def count(self, change: int) -> None:
        """Count a connection that was lent, 1, or returned, -1."""
        with self._lock:
            self.in_use += change

    def keep(self, conn: C) -> None:
        """Keep a returned connection, or close it if it is broken, in a transaction, too old or its slot is needed."""
        now = time.monotonic()
        if not is_idle(conn) or self.registry.is_slot_needed(self):
            conn.pgconn.finish()
            return
        with self._lock:
            if now - self._created_at.setdefault(conn, now) > LIFETIME_SECONDS:
                conn.pgconn.finish()
            else:
                self._conns.append((now, conn))
        self.close_surplus(now)

    def close_surplus(self, now: float) -> None:
        """Close connections that were idle for `IDLE_SECONDS`, except the most recently used one."""
        with self._lock:
            while len(self._conns) > 1 and now - self._conns[0][0] > IDLE_SECONDS:
                self._conns.pop(0)[1].pgconn.finish()

    def check_before_reuse(self) -> None:
        """Mark the connections that are idle now: they are checked before they are lent again."""
        self._check_before = time.monotonic()

    def close(self) -> int:
        """Close all of them and return how many there were.

        An idle async connection is not registered with its event loop, so any thread may close it.
        """
        with self._lock:
            conns, self._conns = self._conns, []
        for _, conn in conns:
            conn.pgconn.finish()
        return len(conns)


class _Registry:
    """All pools of one process, and those with callers that wait for a connection slot of the server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pools: WeakSet[IdleConnections[Any]] = WeakSet()
        self._waiting: list[IdleConnections[Any]] = []

    def add(self, pool: IdleConnections[Any]) -> None:
        with self._lock:
            self._pools.add(pool)

    def is_slot_needed(self, pool: IdleConnections[Any]) -> bool:
        """Return whether another pool waits for a slot."""
        return bool(self._waiting) and any(each is not pool for each in self._waiting)

    def free_slots(self) -> bool:
        """Close all idle connections; returns whether a slot was freed, or may be once a connection is returned."""
        with self._lock:  # another thread may add to the set, which then cannot be iterated over
            pools = list(self._pools)
        return sum(each.close() + each.in_use for each in pools) > 0

    @contextmanager
    def waiting(self, pool: IdleConnections[Any]) -> Iterator[None]:
        """Make other pools close the connections that are returned to them."""
        with self._lock:
            self._waiting.append(pool)
        try:
            yield
        finally:
            with self._lock:
                self._waiting.remove(pool)


_registry = process.PerProcess(_Registry)


class ConnectRetry:
    """When to retry a refused connection, for one caller: until its deadline, while this process may free a slot.

    With `keep_retrying` until the deadline in any case: another process may free a slot, or the server come back.
    """

    def __init__(self, registry: _Registry, deadline: float, *, keep_retrying: bool) -> None:
        self._registry = registry
        self._deadline = deadline
        self._keep_retrying = keep_retrying
        self._slot_expected_until = 0.0
        self._pause = MIN_PAUSE

    def next_pause(self, error: Unreachable) -> float:
        """Return the seconds to wait before the next attempt; raises `error` if another attempt is pointless."""
        now = time.monotonic()
        if _may_be_refusal(error) and self._registry.free_slots():
            self._slot_expected_until = now + GRACE_SECONDS
        if now >= (self._deadline if self._keep_retrying else min(self._deadline, self._slot_expected_until)):
            raise error
        self._pause, pause = min(2 * self._pause, MAX_PAUSE), self._pause
        return pause


def exhausted_error(dsn: str, max_size: int, seconds: float) -> Unreachable:
    """Return the error of a caller that waited for a connection while all were in use."""
    return Unreachable(
        f"no connection became free within {seconds:g} s: all {max_size} to PostgreSQL at {place(dsn)} are in use",
        hint="Make fewer concurrent calls, or shorter ones.",
    )


def closed_error(dsn: str) -> Unreachable:
    """Return the error of a thread that waited for a connection when the pool was closed."""
    return Unreachable(f"the connections to PostgreSQL at {place(dsn)} were closed while a thread waited for one")


def _may_be_refusal(error: Unreachable) -> bool:
    """Return whether the server may have refused the connection for lack of slots; its message may be translated."""
    cause = error.__cause__
    return not isinstance(cause, psycopg.errors.ConnectionTimeout) and "Is the server running" not in str(cause)
