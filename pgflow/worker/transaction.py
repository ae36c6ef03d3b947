"""Run transactional steps: the step's own writes, its result, the state change and the next tokens commit together."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, Protocol

import psycopg
from psycopg_pool import AsyncConnectionPool, ConnectionPool, PoolTimeout

from pgflow.core.legible import storable
from pgflow.errors import InvalidPayload
from pgflow.store import failpoint, job
from pgflow.store.adapters import AsyncCursor, Cursor
from pgflow.store.connect import apooling, pooling
from pgflow.store.dice import uniform
from pgflow.store.fate import is_unknown
from pgflow.store.job import Settled
from pgflow.store.pooled import AsyncPooledConnection, PooledConnection
from pgflow.store.statement import Statement, arun_all, run_all
from pgflow.worker.decide import Decision
from pgflow.worker.outcome import Erred, Finished, Outcome, Waits
from pgflow.worker.runner import Runner
from pgflow.worker.settler import Settler
from pgflow.worker.token import Token

__all__ = ["Transactions"]

TRIES = 20  # to settle while somebody holds the instance; the step's transaction stays open meanwhile
POOL_SIZE = 10  # transactional steps that run at once, sync and async ones together; others wait for a place


class Transaction(Protocol):
    """An open transaction; it is rolled back unless `commit` is called."""

    conn: Any
    runner: Runner  # of steps that use it

    async def settle(self, statements: Sequence[Statement[Any]]) -> list[Any]:
        """Run statements in it, in one round trip; returns what each reads."""

    async def commit(self) -> None:
        """Commit it."""


class Transactions:
    """Gives each transactional step a connection in a transaction, and settles the step in that transaction.

    What the fence refuses is rolled back, the step's own writes with it. Only an outcome that ends the step or lets
    it wait is settled here; after an error or a snooze the transaction is rolled back and the worker settles as
    usual.
    """

    def __init__(
        self, dsn: str, runner: Runner, settler: Settler, threads: ThreadPoolExecutor, *, pooler: bool = False
    ) -> None:
        self._dsn = dsn
        self._pooler = pooler
        self._runner = runner
        self._settler = settler
        self._threads = threads
        self.committing: set[Token] = set()  # whose commit is under way: not to be cancelled, or nobody knew its end
        self._places = asyncio.Semaphore(POOL_SIZE)  # waited for here: in the pool it would take a thread, and time out
        self._pool: ConnectionPool[psycopg.Connection[Any]] | None = None
        self._async_pool: AsyncConnectionPool[psycopg.AsyncConnection[Any]] | None = None

    async def run(self, token: Token) -> tuple[Decision, list[Settled]] | Outcome:
        """Run a step; returns what was settled and committed with it, or else the outcome that is left to settle."""
        try:
            async with self._places, self._open(token) as transaction:
                outcome = await transaction.runner.run(token, transaction.conn)
                if isinstance(outcome, Erred):
                    return replace(outcome, severed=transaction.conn.broken)
                if not isinstance(outcome, Finished | Waits):
                    return outcome
                settled = await self._settle(token, outcome, transaction)
                failpoint.hit("transaction.settled")
            failpoint.hit("transaction.committed")
            return settled
        except (
            psycopg.Error,
            PoolTimeout,
        ) as error:  # a lost connection, a failed commit, a constraint of the user's own
            severed = is_unknown(error) or isinstance(error, PoolTimeout)
            text = storable(str(error).strip()) or type(error).__name__
            return Erred(token, text, type(error).__name__, severed=severed)
        except InvalidPayload as error:
            text = f"what the step came to cannot be stored: {error}"
            return Erred(token, text, type(error).__name__, retry=False)
        finally:
            self.committing.discard(token)

    async def close(self) -> None:
        """Close the connections."""
        if self._async_pool is not None:
            await self._async_pool.close()
        if self._pool is not None:
            await asyncio.to_thread(self._pool.close)

    async def _settle(
        self, token: Token, outcome: Outcome, transaction: Transaction
    ) -> tuple[Decision, list[Settled]] | Outcome:
        for _ in range(TRIES):
            decision = self._settler.decide([outcome])
            for branch in decision.branches:
                branch.keep = False  # nobody else would know of them if this process died after the commit
            statements = job.by_index(self._settler.schema), self._settler.statement([decision])
            _, settled = await transaction.settle(statements)
            fate = next(row.status for row in settled if row.what == "token" and row.id == token.id)
            if fate in ("done", "conflict"):
                self.committing.add(token)
                await transaction.commit()
                return decision, settled
            if fate == "fenced":
                return decision, settled
            await asyncio.sleep(uniform(0.005, 0.05))
        return Erred(token, "the instance stayed locked by another transaction", "Busy")

    @asynccontextmanager
    async def _open(self, token: Token) -> AsyncIterator[Transaction]:
        step = token.run.graph.nodes[token.step].step
        if step.is_async:
            if self._async_pool is None:
                recipe = apooling(self._dsn, "step", pooler=self._pooler)
                self._async_pool = AsyncConnectionPool(min_size=0, max_size=POOL_SIZE, open=False, **recipe)
                await self._async_pool.open()
            with suppress(psycopg.Rollback):  # which comes through where the connection is lost
                async with self._async_pool.connection() as conn, conn.transaction() as _:
                    transaction = _Async(conn, self._runner)
                    if isinstance(conn, AsyncPooledConnection):
                        await AsyncCursor(conn).execute(conn.limits)
                    yield transaction
                    if not transaction.is_committed:
                        raise psycopg.Rollback
            return
        if self._pool is None:
            recipe = pooling(self._dsn, "step", pooler=self._pooler)
            self._pool = ConnectionPool(min_size=0, max_size=POOL_SIZE, open=True, **recipe)
        pool, loop = self._pool, asyncio.get_running_loop()
        # Not the loop's own executor: it has few threads, and whoever holds a connection needs one to get rid of it.
        connecting = loop.run_in_executor(self._threads, pool.getconn)
        try:
            sync_conn = await asyncio.shield(connecting)
        except asyncio.CancelledError:
            connecting.add_done_callback(lambda done: _give_back(pool, done))
            raise
        seat, scope = _Seat(self._threads), sync_conn.transaction()

        def give_back() -> None:
            if is_cut:
                sync_conn.close()
                with suppress(Exception):  # it cannot be rolled back any more; but it must know that it is over
                    undo = psycopg.Rollback()
                    scope.__exit__(type(undo), undo, None)
            pool.putconn(sync_conn)

        is_cut = False
        try:
            await loop.run_in_executor(seat, scope.__enter__)
            sync_transaction = _Sync(sync_conn, seat, self._runner.using(seat))
            try:
                if isinstance(sync_conn, PooledConnection):
                    await loop.run_in_executor(seat, Cursor(sync_conn).execute, sync_conn.limits)
                yield sync_transaction
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                await loop.run_in_executor(seat, scope.__exit__, type(error), error, error.__traceback__)
                raise
            undo = None if sync_transaction.is_committed else psycopg.Rollback()
            await loop.run_in_executor(seat, scope.__exit__, type(undo) if undo else None, undo, None)
        except asyncio.CancelledError:
            is_cut = True
            _cut(sync_conn)  # the step may still run in its thread: it must not go on holding what it has locked
            raise
        finally:
            seat.afterwards(give_back)


def _give_back(
    pool: ConnectionPool[psycopg.Connection[Any]], connecting: asyncio.Future[psycopg.Connection[Any]]
) -> None:
    """Put a connection back that came after nobody wanted it any more."""
    if not connecting.cancelled() and connecting.exception() is None:
        pool.putconn(connecting.result())


def _cut(conn: psycopg.Connection[Any]) -> None:
    """End a connection's line, whereupon the server rolls back; the thread that uses it, if one does, sees it lost.

    To close it would free what that thread has in its hands.
    """
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(conn.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)


class _Seat(Executor):
    """Threads that use one connection, one after the other; a step that was cancelled may go on in its thread."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads
        self._latest: Future[Any] | None = None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self._latest = self._threads.submit(fn, *args, **kwargs)
        return self._latest

    def afterwards(self, do: Callable[[], None]) -> None:
        """Call it when no thread uses the connection any more."""
        if self._latest is None or self._latest.done():
            do()
        else:
            self._latest.add_done_callback(lambda _: do())


class _Async:
    def __init__(self, conn: psycopg.AsyncConnection[Any], runner: Runner) -> None:
        self.conn = conn
        self.runner = runner
        self.is_committed = False

    async def settle(self, statements: Sequence[Statement[Any]]) -> list[Any]:
        return await arun_all(self.conn, statements)

    async def commit(self) -> None:
        self.is_committed = True


class _Sync:
    def __init__(self, conn: psycopg.Connection[Any], seat: _Seat, runner: Runner) -> None:
        self.conn = conn
        self.runner = runner
        self._seat = seat
        self.is_committed = False

    async def settle(self, statements: Sequence[Statement[Any]]) -> list[Any]:
        return await asyncio.get_running_loop().run_in_executor(self._seat, run_all, self.conn, statements)

    async def commit(self) -> None:
        self.is_committed = True
