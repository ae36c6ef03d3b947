"""Lend a session to a transactional step for one transaction, and reset it afterwards.

The worker keeps its own connection object, the line. The step gets another connection object on the same session. Its
changes to that object (adapters, factories, handlers) end with it, and so does its access: when the step returns, the
object is detached from the session, so a thread or task that the step has left running reaches neither the settle nor
the next step.

The step's changes to the session itself are reset in the message that commits or rolls back: that takes no further
round trip, and behind a pooler in transaction mode it reaches the same server session before another client gets it.
`DISCARD ALL` cannot be sent in one message with the commit, and would drop the plan of the settle.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Generic, LiteralString, NoReturn, TypeVar

import psycopg
from psycopg import pq, sql

from pgflow.database.pgbouncer import AsyncPooledConnection, PooledConnection
from pgflow.database.statement import Statement, arun, arun_all, run, run_all
from pgflow.errors import PgflowError
from pgflow.store import step
from pgflow.worker.transactional.faults import ABORTED, DEALLOCATED, IN_USE, session_fault

__all__ = ["AStepConnection", "AsyncStepSession", "StepConnection", "StepSession", "cut"]

Line = TypeVar("Line", bound="psycopg.Connection[Any] | psycopg.AsyncConnection[Any]")
T = TypeVar("T")
StepConn = TypeVar("StepConn", bound="StepConnection | AStepConnection")

DISPOSAL_SECONDS = 1.0  # for a thread or task of the step to notice that its session has ended
DETACHED = pq.PGconn.connect_start(b"=")  # replaces the session of a step that has returned: each call on it raises
DETACHED.finish()

RESET: LiteralString = (
    "reset session authorization; reset role; reset all; unlisten *; close all; "
    "select pg_catalog.pg_advisory_unlock_all(); discard temp; discard sequences"
)
# Only statements of SQL PREPARE: psycopg keeps count of its own, and a pooler of its clients'.
DEALLOCATE: LiteralString = """; do language plpgsql $$
declare
    prepared record;
begin
    for prepared in select p.name from pg_catalog.pg_prepared_statements p where p.from_sql loop
        execute pg_catalog.format('deallocate %I', prepared.name);
    end loop;
end
$$"""


class StepConnection(psycopg.Connection[Any]):
    """The connection of a sync transactional step: it can neither commit nor roll back the step's transaction."""

    def commit(self) -> NoReturn:
        """Raise `psycopg.ProgrammingError`."""
        raise _refusal("commit")

    def rollback(self) -> NoReturn:
        """Raise `psycopg.ProgrammingError`."""
        raise _refusal("rollback")


class AStepConnection(psycopg.AsyncConnection[Any]):
    """`StepConnection`, async."""

    async def commit(self) -> NoReturn:
        """Raise `psycopg.ProgrammingError`."""
        raise _refusal("commit")

    async def rollback(self) -> NoReturn:
        """Raise `psycopg.ProgrammingError`."""
        raise _refusal("rollback")


class PooledStepConnection(StepConnection, PooledConnection):
    """`StepConnection` through a pooler."""


class APooledStepConnection(AStepConnection, AsyncPooledConnection):
    """`AStepConnection` through a pooler."""


class _Base(Generic[Line, StepConn]):
    """The common part of sync and async sessions."""

    def __init__(self, line: Line, conn: StepConn) -> None:
        self.conn = conn  # of the step
        self.is_clean = False  # whether the session is reset, and may be lent again
        self.line = line
        self._threshold, self._prepared_max = line.prepare_threshold, line.prepared_max
        self._encoding = line.info.encoding
        self._mark = secrets.token_hex(8)
        self._has_prepared = False
        self._is_ready = False  # whether the settle may be sent: the role and settings of the step are reset
        self._is_usable = True  # whether a message can end the transaction
        conn._pool = None  # psycopg does not warn when it collects a connection of a pool that is open
        # Prepared statements belong to the session, so both objects must share the count.
        conn._prepared = line._prepared

    @property
    def _beginning(self) -> sql.Composed:
        """Begin and mark the transaction, without a query: the step may still choose its isolation level.

        Row-level security filters the queries of the step as usual; for the settle it is off, as in `settings`.
        """
        mark = sql.SQL("set local pgflow_step.mark = {}; set local row_security = on").format(self._mark)
        if isinstance(self.line, PooledConnection | AsyncPooledConnection):
            return sql.SQL("begin; ") + self.line.limits + sql.SQL("; ") + mark
        return sql.SQL("begin; ") + mark

    def _ending(self, verb: LiteralString, *, has_prepared: bool) -> LiteralString:
        return f"{verb}; {RESET}{DEALLOCATE if has_prepared else ''}"

    def _take_back(self, *, is_free: bool) -> str | None:
        conn, line = self.conn, self.line
        if conn.pgconn is DETACHED:
            return None
        fault = session_fault(conn) if is_free or conn.closed else IN_USE
        self._is_usable = fault in (None, ABORTED)
        if is_free:
            conn.pgconn = DETACHED
        line.pgconn.notice_handler = line.pgconn.notify_handler = None
        line.prepare_threshold, line.prepared_max = self._threshold, self._prepared_max
        return fault

    @contextmanager
    def _preparing(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise step.DeferredError(error) from error

    @contextmanager
    def _settling(self) -> Iterator[None]:
        """Do not lend a session again in which the settle fails."""
        try:
            yield
        except psycopg.errors.InvalidSqlStatementName as error:
            self._is_usable = False
            raise psycopg.ProgrammingError(DEALLOCATED) from error
        except (psycopg.Error, PgflowError, step.DeferredError):
            self._is_usable = False
            raise

    def _check(self, ending: step.SessionState) -> bool:
        """Whether the transaction is still the one that was begun for the step."""
        self._has_prepared = ending.has_prepared
        self._is_ready = self._is_usable = ending.mark == self._mark
        return self._is_ready

    @property
    def _has_encoding(self) -> bool:
        return self.line.info.encoding == self._encoding


class StepSession(_Base[psycopg.Connection[Any], StepConnection]):
    """A session that is lent to a sync step.

    session = StepSession(line)
    session.begin()
    …                                   # the step, with session.conn
    fault = session.take_back()
    if fault is None and session.settle(schema, statement) is not None:
        session.commit()
    else:
        session.rollback()
    if not session.is_clean:
        session.dispose()               # and do not lend it again
    """

    def __init__(self, line: psycopg.Connection[Any]) -> None:
        kind = PooledStepConnection if isinstance(line, PooledConnection) else StepConnection
        super().__init__(line, kind(line.pgconn))

    def take_back(self) -> str | None:
        """Detach the step from its session; returns what is wrong with the session, None if it can be settled."""
        is_free = self.conn.lock.acquire(blocking=False)  # a thread of the step may be inside a call
        try:
            return self._take_back(is_free=is_free)
        finally:
            if is_free:
                self.conn.lock.release()

    def begin(self) -> None:
        """Begin the transaction."""
        self.line.execute(self._beginning, prepare=False)

    def settle(self, schema: str, statement: Statement[T]) -> T | None:
        """Run the settle with the worker's own role and settings, in one round trip; returns what it reads.

        None if the transaction is not the one that was begun for the step; it must be rolled back then. Raises as `run`
        does, and `step.DeferredError` where a statement before the settle fails.
        """
        with self._settling():
            return self._settle(schema, statement)

    def _settle(self, schema: str, statement: Statement[T]) -> T | None:
        if self._is_ready:
            return run(self.line, statement)
        if not self._has_encoding:
            self.line.execute("reset client_encoding", prepare=False)
        if isinstance(self.line, PooledConnection):
            with self._preparing():
                cursor = self.line.execute(_joined(schema), prepare=False)
            ending = step.read_session_state(schema).read(cursor.fetchall())
            return run(self.line, statement) if self._check(ending) else None
        ending, *_, settled = run_all(self.line, [*step.preparing(schema), statement])
        return settled if self._check(ending) else None

    def commit(self) -> None:
        """Commit and reset the session. Raises if the commit fails; the session is rolled back then."""
        try:
            self.line.execute(self._ending("commit", has_prepared=self._has_prepared), prepare=False)
        except psycopg.Error:
            self.rollback()
            raise
        self.is_clean = True

    def rollback(self) -> None:
        """Roll back and reset the session, if its state allows it."""
        self.take_back()
        if self._is_usable:
            with suppress(psycopg.Error):  # then it is not clean, and will be ended
                self.line.execute(self._ending("rollback", has_prepared=True), prepare=False)
                self.is_clean = True

    def dispose(self) -> None:
        """End the session."""
        cut(self.line)
        if self.conn.lock.acquire(timeout=DISPOSAL_SECONDS):  # a thread of the step may be inside a call
            self.conn.lock.release()
        self.line.close()
        self.conn.pgconn = DETACHED


class AsyncStepSession(_Base[psycopg.AsyncConnection[Any], AStepConnection]):
    """`StepSession`, for an async step."""

    def __init__(self, line: psycopg.AsyncConnection[Any]) -> None:
        kind = APooledStepConnection if isinstance(line, AsyncPooledConnection) else AStepConnection
        super().__init__(line, kind(line.pgconn))

    def take_back(self) -> str | None:
        """`StepSession.take_back`; it does not wait."""
        return self._take_back(is_free=not self.conn.lock.locked())

    async def begin(self) -> None:
        """Begin the transaction."""
        await self.line.execute(self._beginning, prepare=False)

    async def settle(self, schema: str, statement: Statement[T]) -> T | None:
        """`StepSession.settle`, async."""
        with self._settling():
            return await self._settle(schema, statement)

    async def _settle(self, schema: str, statement: Statement[T]) -> T | None:
        if self._is_ready:
            return await arun(self.line, statement)
        if not self._has_encoding:
            await self.line.execute("reset client_encoding", prepare=False)
        if isinstance(self.line, AsyncPooledConnection):
            with self._preparing():
                cursor = await self.line.execute(_joined(schema), prepare=False)
            ending = step.read_session_state(schema).read(await cursor.fetchall())
            return await arun(self.line, statement) if self._check(ending) else None
        ending, *_, settled = await arun_all(self.line, [*step.preparing(schema), statement])
        return settled if self._check(ending) else None

    async def commit(self) -> None:
        """`StepSession.commit`, async."""
        try:
            await self.line.execute(self._ending("commit", has_prepared=self._has_prepared), prepare=False)
        except psycopg.Error:
            await self.rollback()
            raise
        self.is_clean = True

    async def rollback(self) -> None:
        """`StepSession.rollback`, async."""
        self.take_back()
        if self._is_usable:
            with suppress(psycopg.Error):  # as above
                await self.line.execute(self._ending("rollback", has_prepared=True), prepare=False)
                self.is_clean = True

    async def dispose(self) -> None:
        """End the session."""
        cut(self.line)
        with suppress(TimeoutError):
            async with asyncio.timeout(DISPOSAL_SECONDS), self.conn.lock:  # a task of the step may be inside a call
                pass
        await self.line.close()
        self.conn.pgconn = DETACHED


def cut(conn: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """Shut down a connection's socket, so that the server rolls back; a thread that uses it gets an error.

    Closing the connection would free memory that such a thread still uses.
    """
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(conn.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)


def _refusal(verb: str) -> psycopg.ProgrammingError:
    return psycopg.ProgrammingError(
        f"{verb}() is not for a transactional step: pgflow commits when it returns a result, and rolls back when it "
        "raises an error; use `with ctx.conn.transaction()` for a savepoint"
    )


def _joined(schema: str) -> bytes:
    """Return the statements that precede a settle as one message: through a pooler each message is a round trip."""
    return ";\n".join(each.query for each in step.preparing(schema)).encode()
