"""Run transactional steps: the step's own writes, its result and the instance's change commit together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import timedelta

import psycopg

from pgflow.core.values.sanitize import sanitize_text
from pgflow.database.connect import aconnect
from pgflow.database.db_errors import is_outcome_unknown, is_row_error
from pgflow.database.pooling.pool import Pool
from pgflow.database.statement import arun
from pgflow.errors import DatabaseError, InvalidPayload, PgflowError
from pgflow.jitter import uniform
from pgflow.store import instance, task
from pgflow.store import job as jobs
from pgflow.store.step import DeferredError
from pgflow.worker import points
from pgflow.worker.claimed_task import ClaimedTask, HeldJob
from pgflow.worker.committed import Committed, JobOutcome
from pgflow.worker.decide import Decision
from pgflow.worker.outcome import AnyOutcome, AttemptFailed, Completed, Finished, Parked, Snoozed
from pgflow.worker.runner import Runner
from pgflow.worker.settler import Settler
from pgflow.worker.transactional.faults import ABORTED, ENDED, LOST
from pgflow.worker.transactional.transaction import Transaction, open_async, open_sync

__all__ = ["TransactionalRunner"]

TRIES = 20  # to settle while another session locks the instance; the step's transaction stays open so long
ACTIVE = ("pending", "running", "waiting")
REPLACED = (
    "the step changed its own job in its transaction, by put or by a write to pgflow's tables, and its instance is "
    "still active; a step may cancel or delete its own instance, and change others"
)
# The settle runs with the worker's own role and settings, so none of these is the step's fault.
UNAVAILABLE = (psycopg.errors.DiskFull, psycopg.errors.OutOfMemory, psycopg.errors.InsufficientPrivilege)
REFUSED_RETRY = timedelta(seconds=5)  # until a step runs again whose result the database refuses


class TransactionalRunner:
    """Gives each transactional step a session in a transaction, and settles the step in that transaction.

    A settle that the fence refuses is rolled back together with the step's own writes. Only an outcome that ends the
    step or parks it is settled here; after an error or a snooze the transaction is rolled back, and the worker settles
    as usual. `capacity` is how many such steps run at once: as many as the worker's queues allow. `report` takes faults
    of the database.
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
        self._report = report
        # Jobs whose commit is under way: a cancellation would leave its outcome unknown.
        self.committing: set[HeldJob] = set()
        # Steps wait here: to wait for a connection would take a thread, and time out. A step that was dropped may
        # still have its place.
        self._places = asyncio.Semaphore(capacity)
        self._pool = Pool(dsn, "step", max_size=capacity, keep_retrying=True, pooler=pooler)

    async def run(self, job: HeldJob) -> JobOutcome:
        """Run a step; returns `Committed` if it was settled in its transaction, else the outcome to settle."""
        try:
            async with self._places, self._open(job) as transaction:
                outcome = await transaction.runner.run(job, transaction.conn)
                fault = transaction.take_back()
                if isinstance(outcome, AttemptFailed):
                    return replace(outcome, connection_lost=fault is LOST)
                if fault is not None and not (isinstance(outcome, Snoozed) and fault in (ABORTED, LOST)):
                    return _misused(job, fault)
                if not isinstance(outcome, Finished | Completed | Parked):
                    return outcome
                settled = await self._settle(job, outcome, transaction)
                points.reached("transaction.settled", job)
            points.reached("transaction.committed", job)
            return settled
        except DeferredError as error:  # a deferred constraint of the user's
            return _failed(job, error.error)
        except (psycopg.Error, DatabaseError) as error:  # no connection, a lost one, or a failed commit
            return _failed(job, error)
        except InvalidPayload as error:
            text = f"the result of the step cannot be stored: {error}"
            return AttemptFailed(job, text, type(error).__name__, retry=False)
        finally:
            self.committing.discard(job)

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.aclose()

    def _open(self, job: HeldJob) -> AbstractAsyncContextManager[Transaction]:
        if job.work is not None and job.work.is_async:
            return open_async(self._pool, self._runner)
        return open_sync(self._pool, self._runner, self._threads)

    async def _settle(self, job: HeldJob, outcome: AnyOutcome, transaction: Transaction) -> JobOutcome:
        schema = self._settler.schema
        for _ in range(TRIES):
            decision = self._settler.decide([outcome])
            if isinstance(decision, Decision):
                # Not kept: if this process died after the commit, a kept branch would wait for a rescue.
                decision.branches = [branch._replace(keep=False) for branch in decision.branches]
            try:
                settled = await transaction.settle(schema, self._settler.statement([decision]))
            except (psycopg.Error, PgflowError) as error:
                if not (is_row_error(error) or isinstance(error, UNAVAILABLE)):
                    raise
                # Not the step's fault. Its writes are rolled back, so it runs again.
                await self._report(error, "the result of a transactional step, which runs again")
                return Snoozed(job, REFUSED_RETRY)
            if settled is None:
                return _misused(job, ENDED)
            status = next(row.status for row in settled if not row.is_branch and row.id == job.id)
            if status == "fenced" and await self._is_still_held(job):
                # Other sessions see the job as this worker's, so the step itself has taken it away.
                if await self._is_live(job, transaction):
                    return _misused(job, REPLACED)
                status = "done"  # it cancelled or deleted its own instance: that commits, and there is no result
            if status in ("done", "conflict"):
                self.committing.add(job)
                await transaction.commit()
                return Committed(job, decision, settled)
            if status == "fenced":
                return Committed(job, decision, settled)
            await asyncio.sleep(uniform(0.005, 0.05))
        return AttemptFailed(job, "the instance stayed locked by another transaction", "Busy")

    async def _is_live(self, job: HeldJob, transaction: Transaction) -> bool:
        """Whether the job's task, or its instance, has not ended, as seen from inside its transaction."""
        schema = self._settler.schema
        if isinstance(job, ClaimedTask):
            return any(each.status in ACTIVE for each in await transaction.ask(task.get(schema, [job.id])))
        return await transaction.ask(instance.status(schema, job.instance.run)) in ACTIVE

    async def _is_still_held(self, job: HeldJob) -> bool:
        """Whether the job is this worker's as seen from outside the step's transaction."""
        settler = self._settler
        async with await aconnect(self._dsn, role="step", pooler=self._pooler) as conn:
            return not await arun(conn, jobs.revoked(settler.schema, settler.worker, {job.id: job.attempt}))


def _failed(job: HeldJob, error: psycopg.Error | DatabaseError) -> AttemptFailed[HeldJob]:
    connection_lost = is_outcome_unknown(error) or isinstance(error, DatabaseError)
    text = sanitize_text(str(error).strip()) or type(error).__name__
    return AttemptFailed(job, text, type(error).__name__, connection_lost=connection_lost)


def _misused(job: HeldJob, fault: str) -> AttemptFailed[HeldJob]:
    is_lost = fault is LOST
    kind = "OperationalError" if is_lost else "TransactionMisused"
    return AttemptFailed(job, fault, kind, connection_lost=is_lost)
