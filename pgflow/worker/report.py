"""Emit telemetry events of a worker: from a decision and the results of its settle to events."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from pgflow.store.instance import Expired
from pgflow.store.job import RescueResult, SettleResult
from pgflow.store.job_updates import Fail, JobUpdate, Park, Result, Retry, Snooze
from pgflow.telemetry import emit, instance_events, task_events
from pgflow.telemetry.emit import AttemptRef, InstanceRef
from pgflow.telemetry.instance_events import Source
from pgflow.telemetry.task_events import TaskRef
from pgflow.worker.claimed_job import CachedInstance, ClaimedJob
from pgflow.worker.claimed_task import ClaimedTask
from pgflow.worker.decide import Decision
from pgflow.worker.decide_task import TaskDecision
from pgflow.worker.held_jobs import RejectedJob
from pgflow.worker.outcome import AttemptFailed, Completed, Finished, Outcome, Released, Snoozed

__all__ = ["began", "expired", "ready", "rejected", "rescued", "settled", "task_began", "task_settled"]


def ready(worker: int, queues: Mapping[str, int], schema: str) -> None:
    """A worker is registered and has a lease."""
    emit.runner_init(
        name=f"worker {worker}", runner="worker", storage="postgresql", pid=os.getpid(), queues=queues, schema=schema
    )


def rescued(worker: int, result: RescueResult) -> None:
    """A worker has looked for jobs of lost workers."""
    if result.jobs:
        emit.runner_rescue(name=f"worker {worker}", jobs=result.jobs, queues=result.queues)


def began(job: ClaimedJob) -> None:
    """A step begins to run; with the first step, its instance."""
    if instance_events.has_handler(instance_events.START_EVENTS):
        given = job.instance.input
        instance_events.began(_attempt(job), job.instance.state, given if isinstance(given, str) else "")


def task_began(job: ClaimedTask) -> None:
    """A task begins to run."""
    task_events.task_start(_task(job))


def task_settled(decision: TaskDecision) -> None:
    """The outcome of a task was written."""
    job, outcome = decision.job, decision.outcome
    match outcome:
        case Completed(seconds=seconds):
            task_events.task_stop(_task(job), duration=seconds, age=_since(job.age, job.since))
        case Snoozed(delay=delay):
            task_events.task_snooze(_task(job), delay=delay.total_seconds())
        case AttemptFailed():
            task_events.task_exception(
                _task(job),
                duration=outcome.seconds,
                kind=outcome.type,
                reason=outcome.reason,
                stacktrace=outcome.details.get("trace"),
                max_attempts=job.max_attempts,
                will_retry=decision.schedules_jobs,
            )


def rejected(each: RejectedJob) -> None:
    """An instance has failed because one of its jobs could not be read."""
    head, failure = each.head, each.failure
    if head is None or failure is None:
        return
    emit.workflow_exception(
        InstanceRef(head.business_id or "", head.workflow or "", head.version, head.run, each.caller),
        duration=head.age,
        kind=failure["type"],
        reason=failure["reason"],
        stacktrace=None,
        failed_step=failure["step"],
        step_count=None,
        advance_count=0,
    )


def expired(each: Expired) -> None:
    """An instance has ended because its time was over. Tasks report none of their cancels."""
    if each.run is None:
        return
    ref = InstanceRef(each.id, each.workflow, each.version, each.run)
    if each.status == "cancelled":
        emit.workflow_cancel(ref, reason=each.reason, in_transaction=False)
        return
    emit.workflow_exception(
        ref,
        duration=each.age,
        kind="DeadlineExceeded",
        reason=each.reason,
        stacktrace=None,
        failed_step=None,
        step_count=None,
        advance_count=0,
    )


def settled(decision: Decision, results: Mapping[int, SettleResult], *, is_written: bool) -> None:
    """A decision was sent to the database. Emits events only for the effects that the results confirm.

    `is_written`: the instance's state was written, not only some of its jobs.
    """
    if instance_events.has_handler(instance_events.RESULT_EVENTS):
        _emit_outcomes(decision, results)
    if not is_written or all(isinstance(outcome, Released) for outcome in decision.outcomes):
        return
    instance = decision.instance
    ref, advances = _reference(instance), instance.advances
    instance_events.advanced(ref, decision.before, decision.state, duration=decision.seconds, iteration=advances)
    instance_events.ended(ref, decision.state, decision.failure, duration=_age(instance), advance_count=advances)


def _emit_outcomes(decision: Decision, results: Mapping[int, SettleResult]) -> None:
    for outcome, update in zip(decision.outcomes, decision.updates, strict=True):
        status, result = results[update.id].status, update.result
        is_done = status == "done"
        # After a conflict the result is kept, for an advance job to apply, unless a signal brought it.
        is_recorded = is_done or (status == "conflict" and update.signal is None)
        if is_recorded and result is not None and not result.stored:
            _completed(outcome, update, result)
        if is_done:
            _applied(decision, outcome, update)


def _completed(outcome: Outcome, update: JobUpdate, result: Result) -> None:
    """A result was recorded."""
    job = outcome.job
    source: Source | None = None
    if isinstance(outcome, Finished) and outcome.by_timer:
        source = "timeout"
    elif update.signal is not None:
        source = "external"
    instance_events.completed(
        _attempt(job),
        event=result.event,
        duration=_duration(job, result.seconds),
        has_output=result.output is not None,
        has_metadata=result.metadata is not None,
        source=source,
        waited=job.waited or 0.0,  # None: the signal came before the wait, so the job has not parked
    )


def _applied(decision: Decision, outcome: Outcome, update: JobUpdate) -> None:
    """An update was written."""
    job, effect = outcome.job, update.effect
    if update.result is not None:
        if not isinstance(effect, Fail):  # a route failed: the step completed, and no step follows
            instance_events.transitioned(_attempt(job), update.result.event, decision.commands.get(job.step, ()))
    elif isinstance(effect, Park) and job.kind != "resume":
        took = _duration(job, getattr(outcome, "seconds", 0.0))
        emit.step_async(_attempt(job), duration=took, instance_status=decision.state.status)
    elif isinstance(outcome, Snoozed) and outcome.began:
        emit.step_snooze(_attempt(job), delay=outcome.delay.total_seconds())
    elif isinstance(outcome, AttemptFailed):
        instance_events.failed(
            _attempt(job),
            duration=_duration(job, outcome.seconds),
            kind=outcome.type,
            reason=outcome.reason,
            stacktrace=outcome.details.get("trace"),
            max_attempts=job.max_attempts,
            will_retry=isinstance(effect, Retry | Snooze),
        )


def _reference(instance: CachedInstance) -> InstanceRef:
    return InstanceRef(instance.id, instance.graph.name, instance.version, instance.run, instance.caller)


def _attempt(job: ClaimedJob) -> AttemptRef:
    name = type(job.instance.graph.nodes[job.step].step).__name__
    return AttemptRef(_reference(job.instance), job.step, name, job.attempt, job.queue, job.worker)


def _duration(job: ClaimedJob, seconds: float) -> float | None:
    """Return how long an attempt took: None if a signal or a timer ended it, or another worker began it."""
    return seconds if job.kind == "execute" else None


def _task(job: ClaimedTask) -> TaskRef:
    _, caller = job.read_metadata()
    return TaskRef(job.id, job.work.name, job.attempt, job.queue, job.worker, caller)


def _age(instance: CachedInstance) -> float | None:
    """Return how many seconds ago the instance was started."""
    return _since(instance.age, instance.known_at)


def _since(age: float | None, known_at: float) -> float | None:
    """Return an age now, which was known at a moment (monotonic seconds)."""
    if age is None or age < 0:  # the clock was set back
        return None
    return age + time.monotonic() - known_at
