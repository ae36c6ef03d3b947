"""Connections through a pooler in transaction mode, such as PgBouncer: a session serves another client next.

So statements are not prepared, nothing listens, and the settings that a direct connection has in its startup packet are
applied at the start of each transaction; a single statement gets a transaction for that. Pipelines are not used either:
psycopg ends a pipeline with a Flush, and if the results arrive before it, PgBouncer assigns it a server session that
returns to its pool only after the client's next statement.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import psycopg
from psycopg import pq, sql
from psycopg.rows import TupleRow

from pgflow.database.adapters import AsyncCursor, Cursor
from pgflow.database.settings import ISOLATION, per_transaction
from pgflow.database.transaction_status import is_idle

__all__ = ["AsyncPooledConnection", "PooledConnection"]


class PooledConnection(psycopg.Connection[TupleRow]):
    """A connection that `connect(…, pooler=True)` opened; its role is in the connection string, as `pgflow:<role>`."""

    _limits: sql.Composed | None = None

    @property
    def limits(self) -> sql.Composed:
        """The statements that apply the settings at the start of a transaction."""
        if self._limits is None:  # not a cached_property: Python 3.11's has a lock, which a fork may leave held
            self._limits = _limits(self.pgconn)
        return self._limits

    @contextmanager
    def bounded(self) -> Iterator[None]:
        """Begin a transaction with the settings; commit it, or roll back after an error. Inside one, do nothing."""
        if not is_idle(self):
            yield
            return
        # Not self.execute: a transactional step's connection has the user's adapters.
        Cursor(self).execute(sql.Composed([BEGIN, self.limits]))
        try:
            yield
        except BaseException:
            with suppress(psycopg.Error):  # the connection itself may be broken
                self.rollback()
            raise
        self.commit()


class AsyncPooledConnection(psycopg.AsyncConnection[TupleRow]):
    """`PooledConnection`, async."""

    _limits: sql.Composed | None = None

    @property
    def limits(self) -> sql.Composed:
        """The statements that apply the settings at the start of a transaction."""
        if self._limits is None:  # not a cached_property: Python 3.11's has a lock, which a fork may leave held
            self._limits = _limits(self.pgconn)
        return self._limits

    @asynccontextmanager
    async def bounded(self) -> AsyncIterator[None]:
        """`PooledConnection.bounded`, async."""
        if not is_idle(self):
            yield
            return
        await AsyncCursor(self).execute(sql.Composed([BEGIN, self.limits]))  # as above
        try:
            yield
        except BaseException:
            with suppress(psycopg.Error):  # the connection itself may be broken
                await self.rollback()
            raise
        await self.commit()


BEGIN = sql.SQL("begin; ")


def _limits(pgconn: pq.abc.PGconn) -> sql.Composed:
    # Not conn.info.get_parameters(): it looks up the home directory, which a container's user may lack.
    name = next((each.val for each in pgconn.info if each.keyword == b"fallback_application_name"), None) or b""
    role = name.decode().removeprefix("pgflow:")
    settings = [
        sql.SQL("pg_catalog.set_config({}, {}, true)").format(name, value)
        for name, value in per_transaction(role, pgconn.server_version).items()
    ]
    isolation = sql.SQL("set transaction isolation level ") + sql.SQL(ISOLATION)
    return isolation + sql.SQL("; select ") + sql.SQL(", ").join(settings)
