"""Say what to send to PostgreSQL as a value: a query, its parameters and how to read the rows.

A `Statement` is all that a sync and an async client have in common, and all that they need to have in common: `run` and
`arun` are the only code that differs between them. (psycopg shares its own protocol code so, as generators.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar, cast

import psycopg
from psycopg import pq

from pgflow.database.adapters import AsyncCursor, Cursor, Row
from pgflow.database.pgbouncer import AsyncPooledConnection, PooledConnection
from pgflow.database.sqlstate import quotes_values, translate
from pgflow.errors import PgflowError

__all__ = ["APending", "Pending", "Row", "Statement", "arun", "arun_all", "astart", "run", "run_all", "start"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Statement(Generic[T_co]):
    """One SQL statement, ready to run on any connection.

    `name` is the path of its file without the ending, such as "job/claim"; `query` the text that
    `files.load("queries/job/claim.sql", schema)` returns, with `%(name)s` or `%(name)b` placeholders; `read` makes the
    result out of the rows, which are tuples whatever row factory the connection has, and none for a statement that
    returns nothing. Values are converted as `adapters` says, whatever the process and the session have set. `prepare`
    is psycopg's: None leaves it to count (with others in one round trip it is not prepared then), True prepares at the
    first use. `translate` returns the error to raise in place of one that the database raises, None to raise that one.

        count = Statement("job/count", "select count(*) from pgflow.jobs", {}, lambda rows: int(rows[0][0]))
        run(conn, count)                                        # sync
        await arun(conn, count)                                 # async
        run_all(conn, [count, other])                           # several in one round trip and one transaction
    """

    name: str
    query: str
    params: Mapping[str, Any]
    read: Callable[[Sequence[Row]], T_co]
    prepare: bool | None = None
    translate: Callable[[psycopg.Error], Exception | None] = translate

    def then(self, make: Callable[[T_co], T]) -> Statement[T]:
        """Return the same statement, with something else made of what it reads."""
        return Statement(
            self.name, self.query, self.params, lambda rows: make(self.read(rows)), self.prepare, self.translate
        )


@dataclass(frozen=True, slots=True)
class Pending(Generic[T_co]):
    """A statement that was sent, its rows still to be read."""

    statement: Statement[T_co]
    cursor: psycopg.Cursor[Row]

    def send(self) -> None:
        """Send it; in a pipeline, an error may be the answer to an earlier statement."""
        each = self.statement
        self.cursor.execute(each.query, each.params, prepare=each.prepare, binary=True)

    def result(self) -> T_co:
        """Read the rows; in a pipeline, wait for them first. Raises as `run` does."""
        try:
            try:
                rows = self.cursor.fetchall()
            except psycopg.ProgrammingError:
                if not _was_silent(self.cursor):
                    raise
                rows = []
        except psycopg.Error as error:
            _refuse(error, self.statement)
            raise
        return self.statement.read(rows)


@dataclass(frozen=True, slots=True)
class APending(Generic[T_co]):
    """`Pending` on an async connection."""

    statement: Statement[T_co]
    cursor: psycopg.AsyncCursor[Row]

    async def send(self) -> None:
        """`Pending.send`, async."""
        each = self.statement
        await self.cursor.execute(each.query, each.params, prepare=each.prepare, binary=True)

    async def result(self) -> T_co:
        """Read the rows; in a pipeline, wait for them first. Raises as `arun` does."""
        try:
            try:
                rows = await self.cursor.fetchall()
            except psycopg.ProgrammingError:
                if not _was_silent(self.cursor):
                    raise
                rows = []
        except psycopg.Error as error:
            _refuse(error, self.statement)
            raise
        return self.statement.read(rows)


def run(conn: psycopg.Connection[Any], statement: Statement[T]) -> T:
    """Run a statement and return what it reads.

    What the database refuses is raised as the error of `pgflow.errors` that says so (see `sqlstate.translate`); any
    other `psycopg.Error` (a lost connection, a deadlock, a timeout) comes through as it is, for the caller to retry.
    """
    if isinstance(conn, PooledConnection) and conn.is_idle:
        return cast("T", run_all(conn, [statement])[0])
    return start(conn, statement).result()


async def arun(conn: psycopg.AsyncConnection[Any], statement: Statement[T]) -> T:
    """`run` on an async connection."""
    if isinstance(conn, AsyncPooledConnection) and conn.is_idle:
        return cast("T", (await arun_all(conn, [statement]))[0])
    return await (await astart(conn, statement)).result()


def run_all(conn: psycopg.Connection[Any], statements: Iterable[Statement[Any]]) -> list[Any]:
    """Run statements in one round trip and, outside a transaction, in one of their own; returns what each reads.

    All of it happens or, where one is refused, nothing. Through a pooler each has a round trip of its own (`pooled`
    says why), and so have the transaction's two ends. Raises as `run` does.
    """
    if isinstance(conn, PooledConnection):
        with conn.bounded():
            return [start(conn, statement).result() for statement in statements]
    pending: list[Pending[Any]] = []
    early: psycopg.Error | PgflowError | None = None
    try:
        with conn.pipeline():
            try:
                for statement in statements:
                    pending.append(Pending(_decided(statement), Cursor(conn)))
                    pending[-1].send()
            except (psycopg.Error, PgflowError) as error:
                early = error  # an answer that came before all was sent; psycopg would log what follows from it
    except psycopg.Error as error:
        if early is None:
            _refuse(error, _refused(pending))
            raise
    if isinstance(early, psycopg.Error):
        _refuse(early, _refused(pending))
    if early is not None:
        raise early
    # Read when all is over: to ask for a result inside would be a round trip more, with the transaction left open.
    return [sent.result() for sent in pending]


async def arun_all(conn: psycopg.AsyncConnection[Any], statements: Iterable[Statement[Any]]) -> list[Any]:
    """`run_all` on an async connection."""
    if isinstance(conn, AsyncPooledConnection):
        async with conn.bounded():
            return [await (await astart(conn, statement)).result() for statement in statements]
    pending: list[APending[Any]] = []
    early: psycopg.Error | PgflowError | None = None
    try:
        async with conn.pipeline():
            try:
                for statement in statements:
                    pending.append(APending(_decided(statement), AsyncCursor(conn)))
                    await pending[-1].send()
            except (psycopg.Error, PgflowError) as error:
                early = error  # as above
    except psycopg.Error as error:
        if early is None:
            _refuse(error, _refused(pending))
            raise
    if isinstance(early, psycopg.Error):
        _refuse(early, _refused(pending))
    if early is not None:
        raise early
    return [await sent.result() for sent in pending]


def start(conn: psycopg.Connection[Any], statement: Statement[T]) -> Pending[T]:
    """Send a statement; `.result()` of what comes back reads its rows.

    Outside a pipeline this waits for the database; inside one it does not, and errors appear in `.result()`.
    """
    pending = Pending(statement, Cursor(conn))
    try:
        pending.send()
    except psycopg.Error as error:
        _refuse(error, statement)
        raise
    return pending


async def astart(conn: psycopg.AsyncConnection[Any], statement: Statement[T]) -> APending[T]:
    """`start` on an async connection."""
    pending = APending(statement, AsyncCursor(conn))
    try:
        await pending.send()
    except psycopg.Error as error:
        _refuse(error, statement)
        raise
    return pending


def _decided(statement: Statement[T]) -> Statement[T]:
    """Leave it not to psycopg's count whether a statement is prepared.

    Where the one that is to be prepared by that stands behind one that fails, psycopg goes on as if it had been.
    """
    return statement if statement.prepare is not None else replace(statement, prepare=False)


def _was_silent(cursor: psycopg.Cursor[Row] | psycopg.AsyncCursor[Row]) -> bool:
    """Whether the statement succeeded and returned no rows by its nature, as an update without `returning`."""
    return cursor.pgresult is not None and cursor.pgresult.status == pq.ExecStatus.COMMAND_OK


def _refused(pending: Sequence[Pending[Any] | APending[Any]]) -> Statement[Any]:
    """Return the statement that failed in a pipeline: the first one without a result."""
    return next((sent.statement for sent in pending if sent.cursor.pgresult is None), pending[-1].statement)


def _refuse(error: psycopg.Error, statement: Statement[Any]) -> None:
    refusal = statement.translate(error)
    if refusal is not None:
        raise refusal from (None if quotes_values(error) else error)
