"""Open a transaction for a step, on a pooled connection that the worker keeps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Protocol, TypeVar

import psycopg

from pgflow.database.pooling.pool import Pool
from pgflow.database.pooling.sync_pool import ConnectionPool
from pgflow.database.statement import Statement, arun, run
from pgflow.worker.runner import Runner
from pgflow.worker.transactional.session import AsyncStepSession, StepSession, cut

__all__ = ["Transaction", "open_async", "open_sync"]

T = TypeVar("T")

WAIT_SECONDS = 30.0  # for a connection, also while the server refuses one


class Transaction(Protocol):
    """An open transaction; it is rolled back unless `commit` is called."""

    conn: Any
    runner: Runner  # of the step that uses it

    def take_back(self) -> str | None:
        """Cut the step off from its session; returns what is wrong with the state in which the step left it."""

    async def settle(self, schema: str, statement: Statement[T]) -> T | None:
        """Run the settle in it, in one round trip; returns None if the step has ended its transaction."""

    async def ask(self, statement: Statement[T]) -> T:
        """Run a statement in it."""

    async def commit(self) -> None:
        """Commit it when the scope ends."""


@asynccontextmanager
async def open_async(pool: Pool, runner: Runner) -> AsyncIterator[Transaction]:
    """Open a transaction for an async step."""
    async with pool.aconnection(WAIT_SECONDS) as line:
        session = AsyncStepSession(line)
        try:
            try:
                await session.begin()
                transaction = _AsyncTransaction(session, runner)
                yield transaction
            except BaseException:
                await session.rollback()
                raise
            await (session.commit() if transaction.is_committed else session.rollback())
        finally:
            try:
                if not session.is_clean:
                    await session.dispose()
            finally:
                if not session.is_clean:
                    line.pgconn.finish()  # also when dispose() was cancelled: it must not be lent again


@asynccontextmanager
async def open_sync(pool: Pool, runner: Runner, threads: ThreadPoolExecutor) -> AsyncIterator[Transaction]:
    """Open a transaction for a sync step, which runs in a thread."""
    connections, loop = pool.threads, asyncio.get_running_loop()
    # Not in the loop's own executor: it has few threads, and returning a connection needs one, too.
    connecting = loop.run_in_executor(threads, connections.acquire, WAIT_SECONDS)
    try:
        line = await asyncio.shield(connecting)
    except asyncio.CancelledError:
        connecting.add_done_callback(lambda done: _release_late(connections, done))
        raise
    executor, session = _OneConnectionExecutor(threads), StepSession(line)

    def end(*, is_committed: bool) -> None:
        try:
            if is_committed:
                session.commit()
            else:
                session.rollback()
        finally:
            if not session.is_clean:
                session.dispose()

    def release() -> None:
        if not (session.is_clean or line.closed):
            session.dispose()
        connections.release(line)

    try:
        try:
            await loop.run_in_executor(executor, session.begin)
            transaction = _SyncTransaction(session, executor, runner.using(executor))
            yield transaction
        except asyncio.CancelledError:
            raise
        except BaseException:
            await loop.run_in_executor(executor, partial(end, is_committed=False))
            raise
        await loop.run_in_executor(executor, partial(end, is_committed=transaction.is_committed))
    except asyncio.CancelledError:
        cut(line)  # the step may still run in its thread: end its session, so that its locks are released
        raise
    finally:
        executor.when_idle(release)


def _release_late(connections: ConnectionPool, connecting: asyncio.Future[psycopg.Connection[Any]]) -> None:
    """Return a connection that was established after its step had been cancelled."""
    if not connecting.cancelled() and connecting.exception() is None:
        connections.release(connecting.result())


class _OneConnectionExecutor(Executor):
    """Threads that use one connection, one after the other; a cancelled step may go on in its thread."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads
        self._latest: Future[Any] | None = None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self._latest = self._threads.submit(fn, *args, **kwargs)
        return self._latest

    def when_idle(self, call: Callable[[], None]) -> None:
        """Call it once no thread uses the connection."""
        if self._latest is None or self._latest.done():
            call()
        else:
            self._latest.add_done_callback(lambda _: call())


class _AsyncTransaction:
    def __init__(self, session: AsyncStepSession, runner: Runner) -> None:
        self.conn = session.conn
        self.runner = runner
        self.is_committed = False
        self._session = session

    def take_back(self) -> str | None:
        return self._session.take_back()

    async def settle(self, schema: str, statement: Statement[T]) -> T | None:
        return await self._session.settle(schema, statement)

    async def ask(self, statement: Statement[T]) -> T:
        return await arun(self._session.line, statement)

    async def commit(self) -> None:
        self.is_committed = True


class _SyncTransaction:
    def __init__(self, session: StepSession, executor: _OneConnectionExecutor, runner: Runner) -> None:
        self.conn = session.conn
        self.runner = runner
        self.is_committed = False
        self._session = session
        self._executor = executor

    def take_back(self) -> str | None:
        return self._session.take_back()

    async def settle(self, schema: str, statement: Statement[T]) -> T | None:
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._session.settle, schema, statement)

    async def ask(self, statement: Statement[T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, run, self._session.line, statement)

    async def commit(self) -> None:
        self.is_committed = True
