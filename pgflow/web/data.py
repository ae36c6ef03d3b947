"""Reads and writes of requests: one transaction each, with a statement timeout on every query."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from time import perf_counter
from typing import Any, Self, TypeVar

import psycopg
from psycopg import sql

from pgflow.database.connect import place
from pgflow.database.db_errors import is_canceled
from pgflow.database.pooling.pool import AConn, Pool
from pgflow.database.statement import Statement, arun
from pgflow.database.transaction_status import is_idle
from pgflow.errors import StatementTimeout
from pgflow.store import audit

__all__ = ["Database", "Session"]

T = TypeVar("T")


class Session:
    """Runs the reads of one request in one read-only transaction, which the first of them begins.

    `queries` and `seconds` are how many there were, and how long they took together.

        async with Session(database) as session:
            found = await session.read(run.get(session.schema, 7))
    """

    def __init__(self, database: Database) -> None:
        self.schema = database.schema
        self.queries = 0
        self.seconds = 0.0
        self._database = database
        self._conn: AConn | None = None
        self._ends = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._ends.aclose()

    async def read(self, statement: Statement[T]) -> T:
        """Run a statement that reads. Raises `StatementTimeout`, and like `arun`."""
        began = perf_counter()
        if self._conn is None:
            self._conn = await self._ends.enter_async_context(self._database.reading())
        try:
            return await arun(self._conn, statement)
        except psycopg.Error as error:
            if is_canceled(error):
                seconds = self._database.query_timeout.total_seconds()
                raise StatementTimeout(
                    f"a query of this page took longer than {seconds:g} s and was cancelled",
                    hint="Narrow the filter, or raise the limit: pgflow web --query-timeout.",
                ) from error
            raise
        finally:
            self.queries += 1
            self.seconds += perf_counter() - began


class Database:
    """The connections of a dashboard to one schema.

    `query_timeout` bounds each statement of a page, `action_timeout` each of an action.
    """

    def __init__(
        self, dsn: str, schema: str, *, pooler: bool, query_timeout: timedelta, action_timeout: timedelta
    ) -> None:
        self.dsn = dsn
        self.schema = schema
        self.pooler = pooler
        self.query_timeout = query_timeout
        self.action_timeout = action_timeout
        self._pool = Pool(dsn, pooler=pooler)

    @property
    def place(self) -> str:
        """Where the database is, without a password."""
        return place(self.dsn)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AConn]:
        """Lend a connection in a read-only transaction."""
        async with self._pool.aconnection() as conn:
            # One simple query, so one round trip; the timeout ends with the transaction, as poolers require.
            await conn.execute(_begin("begin isolation level repeatable read, read only;", self.query_timeout))
            try:
                yield conn
            finally:
                if not conn.closed and not is_idle(conn):
                    await conn.rollback()

    @asynccontextmanager
    async def acting(self, user: str) -> AsyncIterator[AConn]:
        """Lend a connection in the transaction of an action, whose audit rows name `user`."""
        async with self._pool.aconnection() as conn, conn.transaction():
            await conn.execute(_begin("", self.action_timeout))
            await arun(conn, audit.identify(self.schema, user or None))
            yield conn

    async def write(self, user: str, *statements: Statement[T]) -> list[T]:
        """Run the statements of an action in one transaction, whose audit rows name `user`. Raises like `arun`."""
        async with self.acting(user) as conn:
            return [await arun(conn, statement) for statement in statements]

    async def close(self) -> None:
        """Close the connections of this event loop."""
        await self._pool.aclose()


def _begin(first: str, timeout: timedelta) -> sql.Composed:
    milliseconds = sql.Literal(int(timeout.total_seconds() * 1000))
    return sql.SQL("{} set local statement_timeout = {}").format(sql.SQL(first), milliseconds)
