"""Run transactional steps: the step's own writes, its result, the state change and the next tokens commit together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, Protocol, TypeVar

import psycopg

from pgflow.core.values.sanitize import sanitize_text
from pgflow.database.connect import aconnect
from pgflow.database.db_errors import is_outcome_unknown, is_row_error
from pgflow.database.pooling.pool import Pool
from pgflow.database.pooling.sync_pool import ConnectionPool
from pgflow.database.statement import Statement, arun, run
from pgflow.errors import DatabaseError, InvalidPayload, PgflowError
from pgflow.jitter import uniform
from pgflow.store import instance, job
from pgflow.store.job import SettleResult
from pgflow.store.step import DeferredError
from pgflow.worker import points
from pgflow.worker.claimed_job import ClaimedJob
from pgflow.worker.decide import Decision
from pgflow.worker.outcome import AttemptFailed, Finished, Outcome, Parked, Snoozed
from pgflow.worker.runner import Runner
from pgflow.worker.settler import Settler
from pgflow.worker.step_session import ABORTED, ENDED, LOST, AsyncStepSession, StepSession, cut

__all__ = ["TransactionalRunner"]

T = TypeVar("T")

WAIT_SECONDS = 30.0  # for a connection, also while the server refuses one
TRIES = 20  # to settle while somebody holds the instance; the step's transaction stays open meanwhile
ACTIVE = ("pending", "running", "waiting")
REPLACED = (
    "the step changed its own job in its transaction, by put or by a write to pgflow's tables, and its instance is "
    "still active; a step may cancel or delete its own instance, and change others"
)
# The settle runs with the worker's own role and settings, so none of these is the step's fault.
Unavailable = (psycopg.errors.DiskFull, psycopg.errors.OutOfMemory, psycopg.errors.InsufficientPrivilege)
RETRY_REFUSED = timedelta(seconds=5)  # until a step runs again whose result the database refuses


class Transaction(Protocol):
    """An open transaction; it is rolled back unless `commit` is called."""

    conn: Any
    runner: Runner  # of steps that use it

    def take_back(self) -> str | None:
        """Cut the step off from the session; returns what is wrong with the state in which it left it."""

    async def settle(self, schema: str, statement: Statement[T]) -> T | None:
        """Run the settle in it, in one round trip; returns None where it is not the step's transaction any more."""

    async def ask(self, statement: Statement[T]) -> T:
        """Run a statement in it."""

    async def commit(self) -> None:
        """Commit it when the scope ends."""


class TransactionalRunner:
    """Gives each transactional step a session in a transaction, and settles the step in that transaction.

    What the fence refuses is rolled back, the step's own writes with it. Only an outcome that ends the step or lets
    it wait is settled here; after an error or a snooze the transaction is rolled back and the worker settles as
    usual. `capacity` is how many such steps may run at once: as many as the worker's queues allow.
    """

    def __init__(
        self,
        dsn: str,
        runner: Runner,
        settler: Settler,
        threads: ThreadPoolExecutor,
        report: Callable[[Exception, str], Awaitable[None]],
        *,
        capacity: int,
        pooler: bool = False,
    ) -> None:
        self._dsn = dsn
        self._pooler = pooler
        self._runner = runner
        self._settler = settler
        self._threads = threads
        self._report = report  # of a fault of the database
        self.committing: set[ClaimedJob] = (
            set()
        )  # whose commit is under way: not to be cancelled, or nobody knew its end
        # Waited for here: a wait for a connection takes a thread, and times out. A dropped step may still have its
        # place.
        self._places = asyncio.Semaphore(capacity)
        self._pool = Pool(dsn, "step", max_size=capacity, keep_retrying=True, pooler=pooler)

    async def run(self, token: ClaimedJob) -> tuple[Decision, list[SettleResult]] | Outcome:
        """Run a step; returns what was settled and committed with it, or else the outcome that is left to settle."""
        try:
            async with self._places, self._open(token) as transaction:
                outcome = await transaction.runner.run(token, transaction.conn)
                fault = transaction.take_back()
                if isinstance(outcome, AttemptFailed):
                    return replace(outcome, connection_lost=fault is LOST)
                if fault is not None and not (isinstance(outcome, Snoozed) and fault in (ABORTED, LOST)):
                    return _misused(token, fault)
                if not isinstance(outcome, Finished | Parked):
                    return outcome
                settled = await self._settle(token, outcome, transaction)
                points.reached("transaction.settled")
            points.reached("transaction.committed")
            return settled
        except DeferredError as error:  # a constraint of the user's own
            return _erred(token, error.error)
        except (psycopg.Error, DatabaseError) as error:  # no or a lost connection, a failed commit
            return _erred(token, error)
        except InvalidPayload as error:
            text = f"what the step came to cannot be stored: {error}"
            return AttemptFailed(token, text, type(error).__name__, retry=False)
        finally:
            self.committing.discard(token)

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.aclose()

    async def _settle(
        self, token: ClaimedJob, outcome: Outcome, transaction: Transaction
    ) -> tuple[Decision, list[SettleResult]] | Outcome:
        for _ in range(TRIES):
            decision = self._settler.decide([outcome])
            # Not kept: if this process died after the commit, no other one would know of them.
            decision.branches = [branch._replace(keep=False) for branch in decision.branches]
            try:
                settled = await transaction.settle(self._settler.schema, self._settler.statement([decision]))
            except (psycopg.Error, PgflowError) as error:
                if not (is_row_error(error) or isinstance(error, Unavailable)):
                    raise
                # Not the step's fault. What it has written is rolled back, so it runs again.
                await self._report(error, "the result of a transactional step, which runs again")
                return Snoozed(token, RETRY_REFUSED)
            if settled is None:
                return _misused(token, ENDED)
            fate = next(row.status for row in settled if not row.is_branch and row.id == token.id)
            if fate == "fenced" and await self._is_still_ours(token):
                # The job is the worker's to everybody else, so that it is the step which has taken it away.
                if await transaction.ask(instance.status(self._settler.schema, token.run.run)) in ACTIVE:
                    return _misused(token, REPLACED)
                fate = "done"  # it has cancelled or deleted its own instance: that commits, and there is no result
            if fate in ("done", "conflict"):
                self.committing.add(token)
                await transaction.commit()
                return decision, settled
            if fate == "fenced":
                return decision, settled
            await asyncio.sleep(uniform(0.005, 0.05))
        return AttemptFailed(token, "the instance stayed locked by another transaction", "Busy")

    async def _is_still_ours(self, token: ClaimedJob) -> bool:
        """Whether the job is this worker's outside of the step's transaction, which is what its fence is to ask."""
        settler = self._settler
        async with await aconnect(self._dsn, role="step", pooler=self._pooler) as conn:
            return not await arun(conn, job.revoked(settler.schema, settler.worker, {token.id: token.attempt}))

    @asynccontextmanager
    async def _open(self, token: ClaimedJob) -> AsyncIterator[Transaction]:
        step = token.run.graph.nodes[token.step].step
        if step.is_async:
            async with self._pool.aconnection(WAIT_SECONDS) as line:
                loan = AsyncStepSession(line)
                try:
                    try:
                        await loan.begin()
                        transaction = _Async(loan, self._runner)
                        yield transaction
                    except BaseException:
                        await loan.rollback()
                        raise
                    await (loan.commit() if transaction.is_committed else loan.rollback())
                finally:
                    try:
                        if not loan.is_clean:
                            await loan.dispose()
                    finally:
                        if not loan.is_clean:
                            line.pgconn.finish()  # also when dispose() was cancelled: it must not be lent again
            return
        lending, loop = self._pool.threads, asyncio.get_running_loop()
        # Not the loop's own executor: it has few threads, and whoever holds a connection needs one to get rid of it.
        connecting = loop.run_in_executor(self._threads, lending.acquire, WAIT_SECONDS)
        try:
            sync_line = await asyncio.shield(connecting)
        except asyncio.CancelledError:
            connecting.add_done_callback(lambda done: _give_back(lending, done))
            raise
        seat, sync_loan = _Seat(self._threads), StepSession(sync_line)

        def end(*, is_committed: bool) -> None:
            try:
                if is_committed:
                    sync_loan.commit()
                else:
                    sync_loan.rollback()
            finally:
                if not sync_loan.is_clean:
                    sync_loan.dispose()

        def give_back() -> None:
            if not (sync_loan.is_clean or sync_line.closed):
                sync_loan.dispose()
            lending.release(sync_line)

        try:
            try:
                await loop.run_in_executor(seat, sync_loan.begin)
                sync_transaction = _Sync(sync_loan, seat, self._runner.using(seat))
                yield sync_transaction
            except asyncio.CancelledError:
                raise
            except BaseException:
                await loop.run_in_executor(seat, partial(end, is_committed=False))
                raise
            await loop.run_in_executor(seat, partial(end, is_committed=sync_transaction.is_committed))
        except asyncio.CancelledError:
            cut(sync_line)  # the step may still run in its thread: it must not keep its locks
            raise
        finally:
            seat.afterwards(give_back)


def _erred(token: ClaimedJob, error: psycopg.Error | DatabaseError) -> AttemptFailed:
    connection_lost = is_outcome_unknown(error) or isinstance(error, DatabaseError)
    text = sanitize_text(str(error).strip()) or type(error).__name__
    return AttemptFailed(token, text, type(error).__name__, connection_lost=connection_lost)


def _misused(token: ClaimedJob, fault: str) -> AttemptFailed:
    is_lost = fault is LOST
    return AttemptFailed(token, fault, "OperationalError" if is_lost else "TransactionMisused", connection_lost=is_lost)


def _give_back(lending: ConnectionPool, connecting: asyncio.Future[psycopg.Connection[Any]]) -> None:
    """Put a connection back that came after nobody wanted it any more."""
    if not connecting.cancelled() and connecting.exception() is None:
        lending.release(connecting.result())


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
    def __init__(self, loan: AsyncStepSession, runner: Runner) -> None:
        self.conn = loan.conn
        self.runner = runner
        self.is_committed = False
        self._loan = loan

    def take_back(self) -> str | None:
        return self._loan.take_back()

    async def settle(self, schema: str, statement: Statement[T]) -> T | None:
        return await self._loan.settle(schema, statement)

    async def ask(self, statement: Statement[T]) -> T:
        return await arun(self._loan.line, statement)

    async def commit(self) -> None:
        self.is_committed = True


class _Sync:
    def __init__(self, loan: StepSession, seat: _Seat, runner: Runner) -> None:
        self.conn = loan.conn
        self.runner = runner
        self.is_committed = False
        self._loan = loan
        self._seat = seat

    def take_back(self) -> str | None:
        return self._loan.take_back()

    async def settle(self, schema: str, statement: Statement[T]) -> T | None:
        return await asyncio.get_running_loop().run_in_executor(self._seat, self._loan.settle, schema, statement)

    async def ask(self, statement: Statement[T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._seat, run, self._loan.line, statement)

    async def commit(self) -> None:
        self.is_committed = True
