"""Statements as values, and the functions that run them: a query, its parameters and how to decode its rows.

Sync and async clients share `Statement`; only `run`, `arun` and their variants differ. (psycopg shares its protocol
code between both in the same way, as generators.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar, cast

import psycopg
from psycopg import pq

from pgflow.database.adapters import AsyncCursor, Cursor, Row
from pgflow.database.direct import Query, exchange
from pgflow.database.pgbouncer import AsyncPooledConnection, PooledConnection
from pgflow.database.sqlstate import quotes_values, translate
from pgflow.database.transaction_status import is_idle
from pgflow.errors import PgflowError

__all__ = [
    "APending",
    "Pending",
    "Row",
    "Statement",
    "arun",
    "arun_all",
    "arun_then",
    "astart",
    "run",
    "run_all",
    "run_then",
    "start",
]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Statement(Generic[T_co]):
    """One SQL statement, ready to run on any connection.

    `name` is the path of its file without the extension, such as "job/claim"; `query` is the text of
    `files.load("queries/job/claim.sql", schema)`, with `%(name)s` or `%(name)b` placeholders; `read` builds the result
    from the rows, which are tuples for any row factory of the connection, and empty for a statement without rows.
    Values are converted by `adapters`, independent of process and session. `prepare` is psycopg's: None prepares after
    psycopg's threshold (never in `run_all`), True on first use. `translate` returns the exception to raise instead of a
    database error, None to raise that error unchanged.

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
        """Return the same statement with `make` applied to its result."""
        return Statement(
            self.name, self.query, self.params, lambda rows: make(self.read(rows)), self.prepare, self.translate
        )


@dataclass(frozen=True, slots=True)
class Pending(Generic[T_co]):
    """A statement that was sent and whose rows were not read yet."""

    statement: Statement[T_co]
    cursor: psycopg.Cursor[Row]

    def send(self) -> None:
        """Send it; in a pipeline, this may raise the error of an earlier statement."""
        each = self.statement
        self.cursor.execute(each.query, each.params, prepare=each.prepare, binary=True)

    def result(self) -> T_co:
        """Read the rows; in a pipeline, wait for them first. Raises like `run`."""
        try:
            try:
                rows = self.cursor.fetchall()
            except psycopg.ProgrammingError:
                if not _returned_no_rows(self.cursor):
                    raise
                rows = []
        except psycopg.Error as error:
            _raise_translated(error, self.statement)
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
        """Read the rows; in a pipeline, wait for them first. Raises like `arun`."""
        try:
            try:
                rows = await self.cursor.fetchall()
            except psycopg.ProgrammingError:
                if not _returned_no_rows(self.cursor):
                    raise
                rows = []
        except psycopg.Error as error:
            _raise_translated(error, self.statement)
            raise
        return self.statement.read(rows)


def run(conn: psycopg.Connection[Any], statement: Statement[T]) -> T:
    """Run a statement and return its result.

    Raises the exception of `pgflow.errors` for an error of the SQL functions (see `sqlstate.translate`), and any other
    `psycopg.Error` (a lost connection, a deadlock, a timeout) unchanged, for the caller to retry.
    """
    if isinstance(conn, PooledConnection) and is_idle(conn):
        return cast("T", run_all(conn, [statement])[0])
    return start(conn, statement).result()


async def arun(conn: psycopg.AsyncConnection[Any], statement: Statement[T]) -> T:
    """`run` on an async connection."""
    if isinstance(conn, AsyncPooledConnection) and is_idle(conn):
        return cast("T", (await arun_all(conn, [statement]))[0])
    return await (await astart(conn, statement)).result()


def run_all(conn: psycopg.Connection[Any], statements: Iterable[Statement[Any]]) -> list[Any]:
    """Run statements in one round trip and one transaction (that of `conn` if there is one); returns their results.

    If one fails, none takes effect. Through a pooler each statement takes a round trip (see `pgbouncer`), and so do
    BEGIN and COMMIT. Raises like `run`.
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
                    pending.append(Pending(_with_prepare_set(statement), Cursor(conn)))
                    pending[-1].send()
            except (psycopg.Error, PgflowError) as error:
                early = error  # raised before all was sent; psycopg would log the errors that follow from it
    except psycopg.Error as error:
        if early is None:
            _raise_translated(error, _failed_statement(pending))
            raise
    if isinstance(early, psycopg.Error):
        _raise_translated(early, _failed_statement(pending))
    if early is not None:
        raise early
    # Read after the pipeline: reading a result inside takes one more round trip, with the transaction open.
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
                    pending.append(APending(_with_prepare_set(statement), AsyncCursor(conn)))
                    await pending[-1].send()
            except (psycopg.Error, PgflowError) as error:
                early = error  # as above
    except psycopg.Error as error:
        if early is None:
            _raise_translated(error, _failed_statement(pending))
            raise
    if isinstance(early, psycopg.Error):
        _raise_translated(early, _failed_statement(pending))
    if early is not None:
        raise early
    return [await sent.result() for sent in pending]


def run_then(conn: psycopg.Connection[Any], statement: Statement[T], after: Statement[Any] | None = None) -> T:
    """Run a statement, and `after` as soon as it has committed, in one round trip; nothing is known of its outcome.

    For an idle connection of our own, and for statements that are run again and again, with values of the simple types
    that `direct` supports. Raises like `run`, but no error of `after`.

        run_then(conn, task.enqueue(…), worker.notify(…))
    """
    if isinstance(conn, PooledConnection):
        result = run(conn, statement)
        if after is not None:
            with suppress(psycopg.Error):
                run(conn, after)
        return result
    try:
        rows = conn.wait(exchange(conn, _query(statement), None if after is None else _query(after)))
    except psycopg.Error as error:
        _raise_translated(error, statement)
        raise
    return statement.read(rows)


async def arun_then(
    conn: psycopg.AsyncConnection[Any], statement: Statement[T], after: Statement[Any] | None = None
) -> T:
    """`run_then` on an async connection."""
    if isinstance(conn, AsyncPooledConnection):
        result = await arun(conn, statement)
        if after is not None:
            with suppress(psycopg.Error):
                await arun(conn, after)
        return result
    try:
        rows = await conn.wait(exchange(conn, _query(statement), None if after is None else _query(after)))
    except psycopg.Error as error:
        _raise_translated(error, statement)
        raise
    return statement.read(rows)


def start(conn: psycopg.Connection[Any], statement: Statement[T]) -> Pending[T]:
    """Send a statement; `.result()` of the returned object reads its rows.

    Outside a pipeline this waits for the database. Inside one it does not, and `.result()` raises the errors.
    """
    pending = Pending(statement, Cursor(conn))
    try:
        pending.send()
    except psycopg.Error as error:
        _raise_translated(error, statement)
        raise
    return pending


async def astart(conn: psycopg.AsyncConnection[Any], statement: Statement[T]) -> APending[T]:
    """`start` on an async connection."""
    pending = APending(statement, AsyncCursor(conn))
    try:
        await pending.send()
    except psycopg.Error as error:
        _raise_translated(error, statement)
        raise
    return pending


def _with_prepare_set(statement: Statement[T]) -> Statement[T]:
    """Return the statement with `prepare` set, so that psycopg's threshold does not apply.

    If psycopg prepares a statement in a pipeline behind one that fails, it wrongly records it as prepared.
    """
    return statement if statement.prepare is not None else replace(statement, prepare=False)


def _query(statement: Statement[Any]) -> Query:
    return Query(statement.query, statement.params)


def _returned_no_rows(cursor: psycopg.Cursor[Row] | psycopg.AsyncCursor[Row]) -> bool:
    """Return whether the statement succeeded and is one without rows, such as an update without `returning`."""
    return cursor.pgresult is not None and cursor.pgresult.status == pq.ExecStatus.COMMAND_OK


def _failed_statement(pending: Sequence[Pending[Any] | APending[Any]]) -> Statement[Any]:
    """Return the statement that failed in a pipeline: the first without a result."""
    return next((sent.statement for sent in pending if sent.cursor.pgresult is None), pending[-1].statement)


def _raise_translated(error: psycopg.Error, statement: Statement[Any]) -> None:
    translated = statement.translate(error)
    if translated is not None:
        raise translated from (None if quotes_values(error) else error)
