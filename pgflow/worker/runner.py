"""Run a job: its step, or its task, and return the outcome as a value."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, assert_never, cast

from pgflow.core.definition.context import EMPTY, Context
from pgflow.core.definition.control import Control
from pgflow.core.definition.middleware import Middleware, StepCall
from pgflow.core.definition.results import Async, Snooze
from pgflow.core.definition.retry import Retry
from pgflow.core.definition.step import Parking, Step
from pgflow.core.definition.task_context import TaskContext, running
from pgflow.core.engine import attempt, middleware
from pgflow.core.engine.attempt import EXHAUSTED, AttemptError, EncodedResult
from pgflow.core.values.absent import ABSENT
from pgflow.core.values.codec import Location
from pgflow.core.values.payload import MAX_PAYLOAD_BYTES
from pgflow.core.values.sanitize import MAX_TEXT_LENGTH, error_message, sanitize_line
from pgflow.errors import InvalidPayload, PayloadUnavailable
from pgflow.logs import Logger
from pgflow.payloads.policy import DEFAULT, PayloadPolicy
from pgflow.process import acall_in_parent
from pgflow.telemetry.bus import handlers_by_event
from pgflow.worker import points, report
from pgflow.worker.claimed_job import ClaimedJob, Signal
from pgflow.worker.claimed_task import ClaimedTask, HeldJob
from pgflow.worker.committed import JobOutcome
from pgflow.worker.cpu.attempts import execute_step, failed_in_process
from pgflow.worker.cpu.pool import CpuPool
from pgflow.worker.large_values import LargeValues, awaited
from pgflow.worker.outcome import AnyOutcome, AttemptFailed, Finished, Outcome, Parked, Reactivated, Snoozed
from pgflow.worker.reports import JobControl, Reports
from pgflow.worker.task_runner import EXPIRED_PAUSE, TaskRunner

__all__ = ["Runner"]

log = Logger("pgflow.worker")

NO_CONTROL = Control()  # of a route, which neither runs long nor reports anything
SUMMARY = ("reason", "type", "attempt", EXHAUSTED)  # keys of a stored error that are not its details


class Runner:
    """Runs steps: async ones on the event loop, sync ones in `threads`, cpu ones in processes of `cpu`, if given.

    Outputs are stored by `payloads`.

    `around` is the middleware, the outermost first; `reports` takes the progress and the checkpoints of steps.
    """

    def __init__(
        self,
        threads: Executor,
        payloads: PayloadPolicy = DEFAULT,
        around: Sequence[Middleware] = (),
        reports: Reports | None = None,
        calls: set[Future[Any]] | None = None,
        cpu: CpuPool | None = None,
    ) -> None:
        # Sync steps and tasks that run in threads, also those that were given up.
        self.calls: set[Future[Any]] = set() if calls is None else calls
        self._threads = threads
        self._payloads = payloads
        self._stores_plain = payloads.codec is None and payloads.store is None
        self._large = LargeValues(self._payloads)
        self._middleware = around
        self.reports = Reports(payloads.codec) if reports is None else reports
        self._cpu = cpu
        self._tasks = TaskRunner(threads, self.calls, payloads, around, self.reports, cpu)

    @property
    def has_processes(self) -> bool:
        """Whether cpu work runs in processes, and not in threads."""
        return self._cpu is not None

    def using(self, threads: Executor) -> Runner:
        """Return the same runner with other threads."""
        return Runner(threads, self._payloads, self._middleware, self.reports, self.calls, self._cpu)

    async def run(self, job: HeldJob, conn: Any = None) -> AnyOutcome:
        """Run a job to its outcome: any exception of the step becomes an `AttemptFailed`.

        Raises only `CancelledError`, and only while the task is being cancelled: a `CancelledError` that the step
        raises itself is an error like any other.
        """
        if isinstance(job, ClaimedTask):
            return await self._tasks.run(job, conn)
        if job.is_poisoned and job.step:
            return AttemptFailed(
                job, f"the worker was lost while the step ran, {job.crashes} times", "WorkerLost", retry=False
            )
        if self._payloads.store is not None:
            return await self._run_with_store(job, conn)
        return await self._run(job, conn)

    async def _run_with_store(self, job: ClaimedJob, conn: Any) -> Outcome:
        """`run`, with the values that are in the payload store, and an output that goes there."""
        try:
            needs_context = _needs_context(job)
            await self._large.fetch(job, awaited(job, job.awaits or {}), with_context=needs_context)
            if needs_context:
                self._large.complete(job.instance)
            outcome = await self._run(job, conn)
            match outcome:
                case Finished():
                    return await self._large.store(outcome)
                case Parked():
                    return await self._large.prepared(job, outcome)
            return outcome
        except (InvalidPayload, PayloadUnavailable) as error:
            return self._failed(job, error, 0.0)

    async def _run(self, job: ClaimedJob, conn: Any) -> Outcome:
        match job.kind:
            case "resume":
                return self._resume(job)
            case "advance":
                return self._advance(job)
        if job.expires is not None and time.monotonic() > job.expires:
            return Snoozed(job, EXPIRED_PAUSE, began=False)  # `pgflow.end_expired` ends it
        if handlers_by_event:
            report.began(job)
        began = time.perf_counter()
        try:
            step = self.step(job)
            control = job.control = JobControl(self.reports, job)
            ctx = self.context(job, conn, control)
            points.reached("step.begins", job)
            with running(partial(_as_job, job, ctx)):
                if step.is_async and not step.cpu and not self._middleware:
                    result = await acall_in_parent(cast("Awaitable[Any]", step.execute(ctx)))
                else:
                    result = await self._call(job, step, ctx)
            points.reached("step.ended", job)
            return self._read(job, step, result, time.perf_counter() - began)
        except BaseException as error:  # a step must not end the worker, not even by sys.exit()
            if issubclass(type(error), asyncio.CancelledError) and _is_cancelled():
                raise
            return self._failed(job, error, time.perf_counter() - began)

    def step(self, job: ClaimedJob) -> Step:
        """Return the step to run, with the configuration that was stored when it was activated."""
        step = job.instance.graph.nodes[job.step].step
        return step if job.config is None else step.with_config(json.loads(job.config))

    def context(self, job: ClaimedJob, conn: Any = None, control: Control | None = None) -> Context[Any]:
        """Return what the step sees: the validated input, and the outputs of the completed steps."""
        instance = job.instance
        if self._payloads.store is not None:
            self._large.complete(instance)
        assert isinstance(instance.input, str)  # noqa: S101 -- for the type checker
        return Context(
            initial=instance.workflow.read_input(instance.input),  # a new object: a step may change its own
            steps=instance.outputs.copy() if instance.outputs else EMPTY,  # a sibling may complete while it runs
            id=instance.id,
            value=instance.value,
            run=instance.run,
            workflow=instance.graph.name,
            version=instance.version,
            step=job.step,
            attempt=job.attempt,
            metadata=instance.metadata.copy() if instance.metadata else EMPTY,
            conn=conn,
            control=control or NO_CONTROL,
        )

    async def _call(self, job: ClaimedJob, step: Step, ctx: Context[Any]) -> Any:
        policy = job.instance.graph.nodes[job.step].retry
        execute: Callable[[], Awaitable[Any]]
        if step.cpu and self._cpu is not None:
            execute = partial(self._execute_cpu, self._cpu, job, ctx, raising=bool(self._middleware))
        else:
            run = middleware.call if self._middleware else attempt.call
            execute = partial(self._execute, run, step, ctx, policy)
        if not self._middleware:
            return await execute()
        return await middleware.around(self._middleware, StepCall(step, ctx, job.queue, job.worker), execute)

    async def _execute(self, call: Callable[..., Any], step: Step, ctx: Context[Any], policy: Retry) -> Any:
        """Execute a step; a sync one in a thread, by `call`, with the context variables of this task."""
        if step.is_async:
            return await acall_in_parent(cast("Awaitable[Any]", step.execute(ctx)))
        in_context: Callable[..., Any] = contextvars.copy_context().run
        started = self._threads.submit(in_context, call, step, ctx, policy)
        self.calls.add(started)
        started.add_done_callback(self.calls.discard)
        result = await asyncio.wrap_future(started)
        return await acall_in_parent(result) if inspect.isawaitable(result) else result

    async def _execute_cpu(self, cpu: CpuPool, job: ClaimedJob, ctx: Context[Any], *, raising: bool) -> Any:
        """Execute a step in a process of the pool; if `raising`, return a `Raised` for an attempt that failed."""
        result = await execute_step(cpu, job, ctx)
        return failed_in_process(result) if raising and isinstance(result, AttemptError) else result

    def _read(self, job: ClaimedJob, step: Step, result: Any, seconds: float) -> Outcome:
        policy, graph = self._payloads, job.instance.graph
        read = attempt.read(
            graph, job.step, result, lambda: self.context(job), job.attempt, reveal=policy.reveal, limit=policy.limit
        )
        match read:
            case EncodedResult():
                return self._finished(job, read, seconds)
            case AttemptError():
                return self._attempt_failed(job, read, seconds)
            case Async():
                return self._waits(job, attempt.parking_of(job.instance.graph, step), seconds)
            case Snooze(delay):
                return Snoozed(job, delay)
        assert_never(read)

    def _waits(self, job: ClaimedJob, parking: Parking, seconds: float = 0.0) -> Parked:
        def end(signal: Signal) -> Finished | AttemptFailed[ClaimedJob]:
            outcome = self._signalled(job, parking.awaits, signal, seconds)
            return self._large.store_now(outcome) if isinstance(outcome, Finished) else outcome

        return Parked(job, parking.awaits, parking.delay, parking.timeout_event, end, seconds)

    def _signalled(
        self, job: ClaimedJob, awaits: Mapping[str, str], signal: Signal, seconds: float = 0.0
    ) -> Finished | AttemptFailed[ClaimedJob]:
        """End a wait with a signal; its payload may not fit."""
        try:
            payload = self._large.opened(job.instance, signal).payload if signal.has_payload else ABSENT
            limit = max(self._payloads.limit, MAX_PAYLOAD_BYTES)  # it is stored, so it is not too large here
            text = attempt.signal_output(job.instance.graph, job.step, signal.name, payload, limit)
        except InvalidPayload as error:
            return self._passed_over(replace(self._failed(job, error, seconds), signal=signal), awaits)
        except BaseException as error:  # from the code of the output's type; nothing is awaited here
            return self._failed(job, error, seconds)
        try:
            return self._finish(job, awaits[signal.name], text, seconds, signal=signal, awaits=awaits)
        except BaseException as error:  # from the codec's code; nothing is awaited here
            return self._failed(job, error, seconds)

    def _finish(self, job: ClaimedJob, event: str, text: str | None, seconds: float = 0.0, **more: Any) -> Finished:
        end = attempt.finish(job.instance.graph, job.step, event, text, lambda: self.context(job))
        return self._finished(job, end, seconds, **more)

    def _resume(self, job: ClaimedJob) -> Outcome:
        """End a wait: with a signal for it, or because its time is over."""
        try:
            awaits = job.awaits or {}
            for signal in job.instance.signals:
                if signal.name in awaits and signal.step in (None, job.step):
                    return self._signalled(job, awaits, signal)
            parking = replace(self.step(job).parking(), awaits=awaits)
            if parking.timeout_event is None:
                return self._waits(job, parking)
            text = self.step(job).absent_text()
            return self._finish(job, parking.timeout_event, text, by_timer=True)
        except BaseException as error:  # from the step's parking(); nothing is awaited here
            return self._failed(job, error, 0.0)

    def _advance(self, job: ClaimedJob) -> Outcome:
        """Fold in a result or wait that was not applied at once; fail a job whose last attempt lost its worker."""
        instance = job.instance
        if not job.step:
            return Reactivated(job)
        stored = instance.unapplied.get(job.step)
        if stored is not None:
            if self._payloads.store is not None and _needs_context(job):
                self._large.complete(instance)
            value, targets, why = instance.outputs.get(job.step), stored.targets, None
            if instance.graph.is_route_pending(job.step, stored.event, targets):
                targets, why = attempt.decide(instance.graph, job.step, stored.event, value, lambda: self.context(job))
            return Finished(job, stored.event, "", value, None, targets, stored=True, failing=why)
        if job.awaits is not None:
            try:
                parking = replace(attempt.parking_of(instance.graph, self.step(job)), awaits=job.awaits)
            except BaseException as error:  # from the step's parking(); nothing is awaited here
                return self._failed(job, error, 0.0)
            return self._waits(job, parking)
        if job.errors and job.errors[-1].get(EXHAUSTED):  # it was to pause, and the instance had moved on
            last = job.errors.pop()
            details = {key: value for key, value in last.items() if key not in SUMMARY}
            return AttemptFailed(job, str(last["reason"]), str(last["type"]), retry=False, details=details)
        return AttemptFailed(
            job, "the worker was lost while the step ran, in each of its attempts", "WorkerLost", retry=False
        )

    def by_policy(self, outcome: JobOutcome) -> JobOutcome:
        """Return what the policy of its step makes of a failure; every other outcome is returned unchanged."""
        if isinstance(outcome, AttemptFailed) and isinstance(outcome.job, ClaimedJob):
            return self._passed_over(cast("AttemptFailed[ClaimedJob]", outcome))
        return outcome

    def _passed_over(
        self, outcome: AttemptFailed[ClaimedJob], awaits: Mapping[str, str] | None = None
    ) -> Finished | AttemptFailed[ClaimedJob]:
        """Return the outcome of a step whose last attempt failed, by its policy; any other failure unchanged.

        Steps of the policies "transition" and "skip" are finished.
        """
        job = outcome.job
        if not job.step or outcome.is_fatal or not outcome.is_last:
            return outcome
        try:
            end = attempt.passed_over(
                job.instance.graph, job.step, outcome.error, job.attempt, lambda: self.context(job)
            )
            if end is None:
                return outcome
            return self._finished(job, end, outcome.seconds, failed=outcome.error, signal=outcome.signal, awaits=awaits)
        except BaseException as error:  # of the codec, or the graph has lost the event; nothing is awaited here
            log.error("step %s of %s: its policy: %s", job.step, job.instance.id, sanitize_line(error_message(error)))
            return replace(outcome, is_fatal=True)

    def overdue(self, job: HeldJob) -> AnyOutcome:
        """Return the outcome of a step or task that still ran when its `max_runtime` had passed."""
        if isinstance(job, ClaimedTask):
            return self._tasks.overdue(job)
        failed = attempt.overdue(job.instance.graph, job.step, job.attempt)
        seconds = job.instance.graph.nodes[job.step].step.max_runtime or timedelta(0)
        return self._attempt_failed(job, failed, seconds.total_seconds())

    def _failed(self, job: ClaimedJob, error: BaseException, seconds: float) -> AttemptFailed[ClaimedJob]:
        policy = job.instance.graph.nodes[job.step].retry
        return self._attempt_failed(job, attempt.attempt_error(error, policy, job.attempt), seconds)

    def _attempt_failed(self, job: ClaimedJob, failed: AttemptError, seconds: float) -> AttemptFailed[ClaimedJob]:
        if log.isEnabledFor(logging.DEBUG):
            text = failed.details.get("trace", failed.reason)
            log.debug("step %s of %s failed: %s", job.step, job.instance.id, sanitize_line(text, MAX_TEXT_LENGTH))
        return AttemptFailed(job, failed.reason, failed.type, failed.retry, seconds, failed.details, pause=failed.pause)

    def _finished(self, job: ClaimedJob, end: EncodedResult, seconds: float, **more: Any) -> Finished:
        text, stored = end.text, None
        if text is not None and not self._stores_plain:
            text, stored = self._payloads.close(
                text, Location(job.instance.graph.name, job.instance.id, "output", job.step)
            )
        return Finished(
            job,
            end.event,
            text,
            end.value,
            end.metadata,
            end.targets,
            seconds,
            failing=end.route_error,
            stored_object=stored,
            **more,
        )


def _needs_context(job: ClaimedJob) -> bool:
    """Whether running a job makes a context: for its step, or for a route that follows a wait or a stored result."""
    node = job.instance.graph.nodes.get(job.step)
    if job.kind == "execute" or node is None:
        return node is not None
    return any(choice.chooser is not None for choice in node.choices.values())


def _as_job(job: ClaimedJob, ctx: Context[Any]) -> TaskContext:
    """Return what `current_job()` returns in a step."""
    retry = job.instance.graph.nodes[job.step].retry
    return TaskContext.of_step(ctx, id=job.id, queue=job.queue, max_attempts=retry.max_attempts)


def _is_cancelled() -> bool:
    """Whether the current task is being cancelled, so that a `CancelledError` is not one that the step has raised."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
