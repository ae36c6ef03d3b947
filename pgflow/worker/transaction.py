"""Run transactional steps: the step's own writes, its result, the state change and the next tokens commit together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

import psycopg
from psycopg_pool import AsyncConnectionPool, ConnectionPool, PoolTimeout

from pgflow.store.connect import conninfo
from pgflow.store.dice import uniform
from pgflow.store.job import Settled
from pgflow.store.statement import Statement, arun, run
from pgflow.worker.decide import Decision
from pgflow.worker.outcome import Erred, Finished, Outcome, Waits
from pgflow.worker.runner import Runner
from pgflow.worker.settler import Settler
from pgflow.worker.token import Token

__all__ = ["Transactions"]

T = TypeVar("T")

TRIES = 20  # to settle while somebody holds the instance; the step's transaction stays open meanwhile
POOL_SIZE = 10  # transactional steps that run at once, sync and async ones together; others wait for a place


class Transaction(Protocol):
    """An open transaction; it is rolled back unless `commit` is called."""

    conn: Any

    async def run(self, statement: Statement[T]) -> T:
        """Run a statement in it."""

    async def commit(self) -> None:
        """Commit it."""


class Transactions:
    """Gives each transactional step a connection in a transaction, and settles the step in that transaction.

    What the fence refuses is rolled back, the step's own writes with it. Only an outcome that ends the step or lets
    it wait is settled here; after an error or a snooze the transaction is rolled back and the worker settles as
    usual.
    """

    def __init__(self, dsn: str, runner: Runner, settler: Settler, threads: ThreadPoolExecutor) -> None:
        self._dsn = dsn
        self._runner = runner
        self._settler = settler
        self._threads = threads
        self._places = asyncio.Semaphore(POOL_SIZE)  # waited for here: in the pool it would take a thread, and time out
        self._pool: ConnectionPool[psycopg.Connection[Any]] | None = None
        self._async_pool: AsyncConnectionPool[psycopg.AsyncConnection[Any]] | None = None

    async def run(self, token: Token) -> tuple[Decision, list[Settled]] | Outcome:
        """Run a step; returns what was settled and committed with it, or else the outcome that is left to settle."""
        try:
            async with self._places, self._open(token) as transaction:
                outcome = await self._runner.run(token, transaction.conn)
                if not isinstance(outcome, Finished | Waits):
                    return outcome
                return await self._settle(token, outcome, transaction)
        except (
            psycopg.Error,
            PoolTimeout,
        ) as error:  # a lost connection, a failed commit, a constraint of the user's own
            return Erred(token, str(error).strip() or type(error).__name__, type(error).__name__)

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
            settled = await transaction.run(self._settler.statement([decision]))
            fate = next(row.status for row in settled if row.what == "token" and row.id == token.id)
            if fate in ("done", "conflict"):
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
                info = conninfo(self._dsn, role="step")
                self._async_pool = AsyncConnectionPool(
                    info, min_size=0, max_size=POOL_SIZE, kwargs={"autocommit": True}, open=False
                )
                await self._async_pool.open()
            async with self._async_pool.connection() as conn, conn.transaction() as _:
                transaction = _Async(conn)
                yield transaction
                if not transaction.is_committed:
                    raise psycopg.Rollback
            return
        if self._pool is None:
            info = conninfo(self._dsn, role="step")
            self._pool = ConnectionPool(info, min_size=0, max_size=POOL_SIZE, kwargs={"autocommit": True}, open=True)
        pool, loop = self._pool, asyncio.get_running_loop()
        # Not the loop's own executor: it has few threads, and whoever holds a connection needs one to get rid of it.
        connecting = loop.run_in_executor(self._threads, pool.getconn)
        try:
            sync_conn = await asyncio.shield(connecting)
        except asyncio.CancelledError:
            connecting.add_done_callback(lambda done: _give_back(pool, done))
            raise
        try:
            scope = sync_conn.transaction()
            await loop.run_in_executor(self._threads, scope.__enter__)
            sync_transaction = _Sync(sync_conn, self._threads)
            try:
                yield sync_transaction
            except asyncio.CancelledError:
                sync_conn.close()  # the step may still run in its thread: it must not write outside the transaction
                raise
            except BaseException as error:
                await loop.run_in_executor(self._threads, scope.__exit__, type(error), error, error.__traceback__)
                raise
            undo = None if sync_transaction.is_committed else psycopg.Rollback()
            await loop.run_in_executor(self._threads, scope.__exit__, type(undo) if undo else None, undo, None)
        finally:
            pool.putconn(sync_conn)


def _give_back(
    pool: ConnectionPool[psycopg.Connection[Any]], connecting: asyncio.Future[psycopg.Connection[Any]]
) -> None:
    """Put a connection back that came after nobody wanted it any more."""
    if not connecting.cancelled() and connecting.exception() is None:
        pool.putconn(connecting.result())


class _Async:
    def __init__(self, conn: psycopg.AsyncConnection[Any]) -> None:
        self.conn = conn
        self.is_committed = False

    async def run(self, statement: Statement[T]) -> T:
        return await arun(self.conn, statement)

    async def commit(self) -> None:
        self.is_committed = True


class _Sync:
    def __init__(self, conn: psycopg.Connection[Any], threads: ThreadPoolExecutor) -> None:
        self.conn = conn
        self._threads = threads
        self.is_committed = False

    async def run(self, statement: Statement[T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, run, self.conn, statement)

    async def commit(self) -> None:
        self.is_committed = True
