"""Connections through a pooler in transaction mode, such as PgBouncer: the next client gets the session, as it is left.

So no statement is prepared, nothing is listened to, and what a connection of ours has from its first packet on is set
here at the head of each transaction, which is a transaction of its own for a single statement, too. Nor is a pipeline
used: psycopg ends one with a Flush, and where the answers are faster than that, a PgBouncer lends a session for it that
it does not get back before the client's next statement.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import psycopg
from psycopg import pq, sql
from psycopg.rows import TupleRow

from pgflow.database.adapters import AsyncCursor, Cursor
from pgflow.database.settings import ISOLATION, passing

__all__ = ["AsyncPooledConnection", "PooledConnection"]


class PooledConnection(psycopg.Connection[TupleRow]):
    """A connection that `connect(…, pooler=True)` or a pool has made; the `pgflow:<role>` in it is what it is for."""

    _limits: sql.Composed | None = None

    @property
    def is_idle(self) -> bool:
        """Whether it is outside a transaction."""
        return self.pgconn.transaction_status == pq.TransactionStatus.IDLE

    @property
    def limits(self) -> sql.Composed:
        """What a transaction is to say first."""
        if self._limits is None:  # no cached_property: Python 3.11's has a lock, which a forked child may find held
            self._limits = _limits(self.pgconn)
        return self._limits

    @contextmanager
    def bounded(self) -> Iterator[None]:
        """Begin a transaction with its limits, and commit it, or roll it back after an error; in one do nothing."""
        if not self.is_idle:
            yield
            return
        # Not self.execute: a transactional step's connection has the user's adapters.
        Cursor(self).execute(sql.Composed([BEGIN, self.limits]))
        try:
            yield
        except BaseException:
            with suppress(psycopg.Error):  # the connection may be what is wrong
                self.rollback()
            raise
        self.commit()


class AsyncPooledConnection(psycopg.AsyncConnection[TupleRow]):
    """`PooledConnection`, async."""

    _limits: sql.Composed | None = None

    @property
    def is_idle(self) -> bool:
        """Whether it is outside a transaction."""
        return self.pgconn.transaction_status == pq.TransactionStatus.IDLE

    @property
    def limits(self) -> sql.Composed:
        """What a transaction is to say first."""
        if self._limits is None:  # no cached_property: Python 3.11's has a lock, which a forked child may find held
            self._limits = _limits(self.pgconn)
        return self._limits

    @asynccontextmanager
    async def bounded(self) -> AsyncIterator[None]:
        """`PooledConnection.bounded`, async."""
        if not self.is_idle:
            yield
            return
        await AsyncCursor(self).execute(sql.Composed([BEGIN, self.limits]))  # as above
        try:
            yield
        except BaseException:
            with suppress(psycopg.Error):  # the connection may be what is wrong
                await self.rollback()
            raise
        await self.commit()


BEGIN = sql.SQL("begin; ")


def _limits(pgconn: pq.abc.PGconn) -> sql.Composed:
    # Not conn.info.get_parameters(): it asks for the home directory, which a container's user may not have.
    name = next((each.val for each in pgconn.info if each.keyword == b"fallback_application_name"), None) or b""
    role = name.decode().removeprefix("pgflow:")
    settings = [
        sql.SQL("pg_catalog.set_config({}, {}, true)").format(name, value)
        for name, value in passing(role, pgconn.server_version).items()
    ]
    isolation = sql.SQL("set transaction isolation level ") + sql.SQL(ISOLATION)
    return isolation + sql.SQL("; select ") + sql.SQL(", ").join(settings)
