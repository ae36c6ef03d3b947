"""Run a claimed task's function, and return the outcome as a value."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor, Future
from datetime import timedelta
from functools import partial
from typing import Any, cast

from pgflow.core.definition.middleware import Middleware
from pgflow.core.definition.results import Snooze
from pgflow.core.definition.task import TaskDefinition
from pgflow.core.definition.task_context import TaskContext, running
from pgflow.core.engine import middleware, task_attempt
from pgflow.core.engine.attempt import AttemptError, attempt_error
from pgflow.core.models.task_codec import args_location, decrypt_args, output_location
from pgflow.core.values.payload import REFERENCE_MARKER, decode
from pgflow.core.values.reference import read_reference
from pgflow.core.values.sanitize import MAX_TEXT_LENGTH, error_message, sanitize_line
from pgflow.errors import DecryptionUnavailable
from pgflow.logs import Logger
from pgflow.payloads.policy import PayloadPolicy
from pgflow.process import acall_in_parent
from pgflow.telemetry.bus import handlers_by_event
from pgflow.worker import points, report
from pgflow.worker.claimed_task import ClaimedTask
from pgflow.worker.cpu.attempts import execute_task, failed_in_process
from pgflow.worker.cpu.pool import CpuPool
from pgflow.worker.outcome import AttemptFailed, Completed, Snoozed, TaskOutcome
from pgflow.worker.reports import JobControl, Reports

__all__ = ["EXPIRED_PAUSE", "PASS_ON", "TaskRunner"]

log = Logger("pgflow.worker")

EXPIRED_PAUSE = timedelta(seconds=5)  # long enough for a worker to end the job
PASS_ON = timedelta(seconds=10)  # until a task is offered again whose arguments cannot be decrypted here


class TaskRunner:
    """Runs tasks: async ones on the event loop, sync ones in `threads`, cpu ones in processes; `calls` use threads."""

    def __init__(
        self,
        threads: Executor,
        calls: set[Future[Any]],
        payloads: PayloadPolicy,
        around: Sequence[Middleware],
        reports: Reports,
        cpu: CpuPool | None = None,
    ) -> None:
        self._threads = threads
        self._calls = calls
        self._payloads = payloads
        self._codec = payloads.codec
        self._middleware = around
        self._reports = reports
        self._cpu = cpu

    async def run(self, job: ClaimedTask, conn: Any = None) -> TaskOutcome:
        """Run a task to its outcome: any exception of its function becomes an `AttemptFailed`.

        Raises only `CancelledError`, and only while the task of the event loop is being cancelled.
        """
        if job.is_poisoned:
            reason = f"the worker was lost while the task ran, {job.crashes} times"
            return AttemptFailed(job, reason, "WorkerLost", retry=False)
        if job.expires is not None and time.monotonic() > job.expires:
            return Snoozed(job, EXPIRED_PAUSE, began=False)  # `pgflow.end_expired` ends it
        if handlers_by_event:
            report.task_began(job)
        began = time.perf_counter()
        control = job.control = JobControl(self._reports, job)
        make_ctx = partial(_context, job, conn, control)
        # Most functions never ask for their context.
        ctx = make_ctx() if job.work.takes_context is not None or self._middleware or job.work.cpu else None
        try:
            is_plain = REFERENCE_MARKER not in job.args
            text = decrypt_args(self._codec, job.work, job.args) if is_plain else await self._opened(job)
        except DecryptionUnavailable as error:  # usual during a rolling deployment
            log.warning("%s: job %d is left to another worker", sanitize_line(error_message(error)), job.id)
            return Snoozed(job, PASS_ON, began=False)
        except BaseException as error:  # from the codec's or the payload store's code
            if issubclass(type(error), asyncio.CancelledError) and _is_cancelled():
                raise
            return self._failed(job, error, 0.0)
        try:
            given = task_attempt.arguments(job.work, text, ctx)
            with running(ctx or make_ctx):
                points.reached("task.begins", job)
                if ctx is None and job.work.is_async:
                    result = await acall_in_parent(cast("Awaitable[Any]", job.work.function(**given)))
                else:
                    result = await self._call(job, ctx or make_ctx(), given, text)
                points.reached("task.ended", job)
            return await self._read(job, result, time.perf_counter() - began)
        except BaseException as error:  # a task must not end the worker, not even by sys.exit()
            if issubclass(type(error), asyncio.CancelledError) and _is_cancelled():
                raise
            return self._failed(job, error, time.perf_counter() - began)

    def overdue(self, job: ClaimedTask) -> AttemptFailed[ClaimedTask]:
        """Return the outcome of a task that still ran when its `max_runtime` had passed."""
        seconds = (job.work.max_runtime or timedelta(0)).total_seconds()
        return self._attempt_failed(job, task_attempt.overdue(job.work, job.attempt), seconds)

    async def _opened(self, job: ClaimedTask) -> str:
        """Return the arguments that may be in the payload store. Raises `InvalidPayload`, `PayloadUnavailable`."""
        reference = read_reference(decode(job.args))
        if reference is None:  # the marker is in an argument
            return decrypt_args(self._codec, job.work, job.args)
        location = args_location(job.work.name)
        self._payloads.require_store(location)
        return await asyncio.to_thread(self._payloads.fetch, reference, location)

    async def _call(self, job: ClaimedTask, ctx: TaskContext, given: dict[str, Any], text: str) -> Any:
        if job.work.cpu and self._cpu is not None:
            execute: Callable[[], Awaitable[Any]] = partial(self._execute_cpu, self._cpu, job, ctx, text)
        else:
            run = middleware.call_task if self._middleware else task_attempt.call
            execute = partial(self._execute, run, job.work, given, job.attempt)
        if not self._middleware:
            return await execute()
        call = middleware.task_call(job.work, ctx, given, job.worker)
        return await middleware.around(self._middleware, call, execute)

    async def _execute(self, call: Callable[..., Any], task: TaskDefinition, given: dict[str, Any], number: int) -> Any:
        """Execute a task; a sync one in a thread, by `call`, with the context variables of this task."""
        if task.is_async:
            return await acall_in_parent(cast("Awaitable[Any]", task.function(**given)))
        in_context: Callable[..., Any] = contextvars.copy_context().run
        started = self._threads.submit(in_context, call, task, given, number)
        self._calls.add(started)
        started.add_done_callback(self._calls.discard)
        result = await asyncio.wrap_future(started)
        return await acall_in_parent(result) if inspect.isawaitable(result) else result

    async def _execute_cpu(self, cpu: CpuPool, job: ClaimedTask, ctx: TaskContext, text: str) -> Any:
        """Execute a task in a process of the pool, with its arguments as JSON text."""
        result = await execute_task(cpu, job.work, ctx, text)
        return failed_in_process(result) if self._middleware and isinstance(result, AttemptError) else result

    async def _read(self, job: ClaimedTask, result: Any, seconds: float) -> TaskOutcome:
        policy = self._payloads
        match task_attempt.read(job.work, result, job.attempt, reveal=policy.reveal, limit=policy.limit):
            case str(text):
                if policy.codec is not None or policy.store is not None:
                    text, stored = policy.close(text, output_location(job.work.name, job.id))
                    if stored is not None:
                        await asyncio.to_thread(policy.put, [stored])
                return Completed(job, text, seconds)
            case Snooze(delay):
                return Snoozed(job, delay)
            case failed:
                return self._attempt_failed(job, failed, seconds)

    def _failed(self, job: ClaimedTask, error: BaseException, seconds: float) -> AttemptFailed[ClaimedTask]:
        return self._attempt_failed(job, attempt_error(error, job.work.retry, job.attempt), seconds)

    def _attempt_failed(self, job: ClaimedTask, failed: AttemptError, seconds: float) -> AttemptFailed[ClaimedTask]:
        if log.isEnabledFor(logging.DEBUG):
            text = failed.details.get("trace", failed.reason)
            log.debug("%s failed: %s", job.title, sanitize_line(text, MAX_TEXT_LENGTH))
        return AttemptFailed(job, failed.reason, failed.type, failed.retry, seconds, failed.details, pause=failed.pause)


def _context(job: ClaimedTask, conn: Any, control: JobControl) -> TaskContext:
    return TaskContext(
        id=job.id,
        task=job.work.name,
        attempt=job.attempt,
        max_attempts=job.max_attempts,
        queue=job.queue,
        tags=tuple(job.tags),
        metadata=job.read_metadata()[0] if job.metadata else {},
        conn=conn,
        control=control,
    )


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
