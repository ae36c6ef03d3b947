"""Lend a session to a transactional step for one transaction, and make sure that nothing of the step stays in it.

The worker keeps its connection object, the line. A step gets an object of its own on the same session. What it changes
on that object (adapters, factories, handlers) ends with it, and so does its access: when the step returns, the object
is cut off from the session, so a thread or task that the step has left running reaches neither the settle nor the next
step.

What a step changes in the session itself is reset in the message that commits or rolls back: no further round trip, and
behind a pooler in transaction mode the same server session, before another client gets it. `DISCARD ALL` would do it
as well, but not in one message with the commit, and it would drop the plan of the settle.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import select
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

__all__ = ["ABORTED", "ENDED", "LOST", "AStepConnection", "AsyncStepSession", "StepConnection", "StepSession", "cut"]

Line = TypeVar("Line", bound="psycopg.Connection[Any] | psycopg.AsyncConnection[Any]")
T = TypeVar("T")
Guest = TypeVar("Guest", bound="StepConnection | AStepConnection")

MOST_READS = 100  # a step may have left a stream open that never ends
DISPOSAL_SECONDS = 1.0  # for a thread or task of the step's to notice that its session has ended
GONE = pq.PGconn.connect_start(b"=")  # stands in for a session that is lent no longer: each call on it raises
GONE.finish()

# Not DISCARD ALL: that cannot be sent in one message with a commit. It would also drop the prepared settle.
RESET: LiteralString = (
    "reset session authorization; reset role; reset all; unlisten *; close all; "
    "select pg_catalog.pg_advisory_unlock_all(); discard temp; discard sequences"
)
# Those of SQL PREPARE only: psycopg knows its own, and a pooler its clients'.
DEALLOCATE: LiteralString = """; do language plpgsql $$
declare
    prepared record;
begin
    for prepared in select p.name from pg_catalog.pg_prepared_statements p where p.from_sql loop
        execute pg_catalog.format('deallocate %I', prepared.name);
    end loop;
end
$$"""

ENDED = (
    "the step ended the transaction that it runs in, by a commit, a rollback or the like (or used RESET ALL): what it "
    "wrote before may be committed or lost. pgflow commits when the step returns a result; raise an error to roll back"
)
ABORTED = (
    "the step's transaction is aborted: the step caught a database error and went on. Let the error through, or run "
    "what may fail in a savepoint: with ctx.conn.transaction(): …"
)
IN_USE = (
    "the step returned while its connection was in use, by a thread or task, or by a COPY or stream that it left open: "
    "end these before the step returns"
)
PIPELINE = "the step left a pipeline open on its connection; end it before the step returns, best by `with`"
DEALLOCATED = (
    "the step used DEALLOCATE ALL, which drops what pgflow has prepared, too: deallocate your own statements by name"
)
LOST = "the step lost its connection"
CLOSED = "the step closed its connection, which pgflow needs to record the result; leave it open"


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


class _Base(Generic[Line, Guest]):
    """What sync and async loans have in common."""

    def __init__(self, line: Line, conn: Guest) -> None:
        self.conn = conn  # the step's
        self.is_clean = False  # whether the session is as it was, and may be lent again
        self.line = line
        self._threshold, self._prepared_max = line.prepare_threshold, line.prepared_max
        self._encoding = line.info.encoding
        self._mark = secrets.token_hex(8)
        self._has_prepared = False
        self._is_ready = False  # whether the settle may be sent: the step's role and settings are gone
        self._is_usable = True  # whether the transaction can be ended by a message
        conn._pool = None  # psycopg does not warn when it collects a connection of a pool that is open
        # The names of prepared statements are the session's, so both objects have to count them together.
        conn._prepared = line._prepared

    @property
    def _beginning(self) -> sql.Composed:
        """Begin, and mark the transaction. No query yet: the step may still choose its isolation level.

        Row-level security filters the step's own queries as usual; for the settle it is off, as `settings` says.
        """
        mark = sql.SQL("set local pgflow_step.mark = {}; set local row_security = on").format(self._mark)
        if isinstance(self.line, PooledConnection | AsyncPooledConnection):
            return sql.SQL("begin; ") + self.line.limits + sql.SQL("; ") + mark
        return sql.SQL("begin; ") + mark

    def _ending(self, verb: LiteralString, *, has_prepared: bool) -> LiteralString:
        return f"{verb}; {RESET}{DEALLOCATE if has_prepared else ''}"

    def _take_back(self, *, is_free: bool) -> str | None:
        conn, line = self.conn, self.line
        if conn.pgconn is GONE:
            return None
        fault = _fault(conn) if is_free or conn.closed else IN_USE
        self._is_usable = fault in (None, ABORTED)
        if is_free:
            conn.pgconn = GONE
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
        """A session in which the settle fails is not lent again."""
        try:
            yield
        except psycopg.errors.InvalidSqlStatementName as error:
            self._is_usable = False
            raise psycopg.ProgrammingError(DEALLOCATED) from error
        except (psycopg.Error, PgflowError, step.DeferredError):
            self._is_usable = False
            raise

    def _check(self, ending: step.SessionState) -> bool:
        """Whether the transaction is the one that was begun for the step."""
        self._has_prepared = ending.has_prepared
        self._is_ready = self._is_usable = ending.mark == self._mark
        return self._is_ready

    @property
    def _has_encoding(self) -> bool:
        return self.line.info.encoding == self._encoding


class StepSession(_Base[psycopg.Connection[Any], StepConnection]):
    """A session that is lent to a sync step.

    loan = StepSession(line)
    loan.begin()
    …                                   # the step, with loan.conn
    fault = loan.take_back()
    if fault is None and loan.settle(schema, statement) is not None:
        loan.commit()
    else:
        loan.rollback()
    if not loan.is_clean:
        loan.dispose()                  # and not to be lent again
    """

    def __init__(self, line: psycopg.Connection[Any]) -> None:
        kind = PooledStepConnection if isinstance(line, PooledConnection) else StepConnection
        super().__init__(line, kind(line.pgconn))

    def take_back(self) -> str | None:
        """Cut the step off from its session; returns what is wrong with the state in which it left it, None if nothing.

        After something wrong the session cannot be used for a settle.
        """
        is_free = self.conn.lock.acquire(blocking=False)  # otherwise a thread of the step is inside a call
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

        None where the transaction is another one than that which was begun for the step; what was written is then to
        be rolled back. Raises as `run` does, and `step.DeferredError` where what stands before the settle fails.
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
        """Commit, and reset the session. Raises as the commit does; then the session has been rolled back."""
        try:
            self.line.execute(self._ending("commit", has_prepared=self._has_prepared), prepare=False)
        except psycopg.Error:
            self.rollback()
            raise
        self.is_clean = True

    def rollback(self) -> None:
        """Roll back, and reset the session, if its state allows it."""
        self.take_back()
        if self._is_usable:
            with suppress(psycopg.Error):  # whatever is wrong with it: then it is not clean, and is ended
                self.line.execute(self._ending("rollback", has_prepared=True), prepare=False)
                self.is_clean = True

    def dispose(self) -> None:
        """End the session."""
        cut(self.line)
        if self.conn.lock.acquire(timeout=DISPOSAL_SECONDS):  # a thread of the step's may be inside a call
            self.conn.lock.release()
        self.line.close()
        self.conn.pgconn = GONE


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
            async with asyncio.timeout(DISPOSAL_SECONDS), self.conn.lock:  # a task of the step's may be inside a call
                pass
        await self.line.close()
        self.conn.pgconn = GONE


def cut(conn: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """End a connection's line, so that the server rolls back; a thread that uses it sees it lost.

    To close it would free what that thread has in its hands.
    """
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(conn.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)


def _fault(conn: StepConnection | AStepConnection) -> str | None:
    if conn.closed:
        return LOST if conn.broken else CLOSED
    if conn._pipeline is not None or conn.pgconn.pipeline_status != pq.PipelineStatus.OFF:
        return PIPELINE
    match conn.pgconn.transaction_status:
        case pq.TransactionStatus.INTRANS:
            return None
        case pq.TransactionStatus.INERROR:
            return ABORTED
        case pq.TransactionStatus.ACTIVE:
            return LOST if _is_cut(conn.pgconn) else IN_USE
        case _:
            return ENDED


def _is_cut(pgconn: pq.abc.PGconn) -> bool:
    """Whether the server has gone in the middle of a query.

    psycopg raises an error as soon as the socket is closed; libpq notices, and `broken` is true, at its next read.
    """
    readable = select.poll()
    readable.register(pgconn.socket, select.POLLIN)
    try:
        for _ in range(MOST_READS):  # the end of the stream comes after the server's last messages
            if not readable.poll(0):
                break
            pgconn.consume_input()
    except psycopg.OperationalError:
        return True
    return pgconn.status == pq.ConnStatus.BAD


def _refusal(verb: str) -> psycopg.ProgrammingError:
    return psycopg.ProgrammingError(
        f"{verb}() is not for a transactional step: pgflow commits when it returns a result, and rolls back when it "
        "raises an error; with ctx.conn.transaction() gives a savepoint"
    )


def _joined(schema: str) -> bytes:
    """All that prepares a settle, as one message: through a pooler each message is a round trip."""
    return ";\n".join(each.query for each in step.preparing(schema)).encode()
