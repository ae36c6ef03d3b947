"""Tell telemetry what a worker does: from a decision and what the database says became of it to events."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from pgflow.store.job import RescueResult, SettleResult, Verdict
from pgflow.telemetry import emit, instance_events
from pgflow.telemetry.emit import AttemptRef, InstanceRef
from pgflow.telemetry.instance_events import Source
from pgflow.worker.claimed_job import CachedInstance, ClaimedJob
from pgflow.worker.decide import Decision
from pgflow.worker.held_jobs import RejectedJob
from pgflow.worker.outcome import AttemptFailed, Finished, Outcome, Snoozed

__all__ = ["began", "ready", "refused", "rescued", "settled"]


def ready(worker: int, queues: Mapping[str, int], schema: str) -> None:
    """A worker has an identity and a lease."""
    emit.runner_init(
        name=f"worker {worker}", runner="worker", storage="postgresql", pid=os.getpid(), queues=queues, schema=schema
    )


def rescued(worker: int, freed: RescueResult) -> None:
    """A worker has looked for tokens of dead ones."""
    if freed.tokens:
        emit.runner_rescue(name=f"worker {worker}", tokens=freed.tokens, queues=freed.queues)


def began(job: ClaimedJob) -> None:
    """A step begins to run; with the first one its instance."""
    if instance_events.has_handler(instance_events.START_EVENTS):
        instance_events.began(_attempt(job), job.run.state, job.run.input)


def refused(refusal: RejectedJob) -> None:
    """A job could not be read, and its instance has failed with it."""
    head, failure = refusal.head, refusal.failure
    if head is None or failure is None:
        return
    emit.workflow_exception(
        InstanceRef(head.business_id or "", head.workflow or "", head.version, head.run, refusal.caller),
        duration=head.age,
        kind=failure["type"],
        reason=failure["reason"],
        stacktrace=None,
        failed_step=failure["step"],
        step_count=None,
        advance_count=0,
    )


def settled(decision: Decision, fates: Mapping[int, SettleResult], *, is_written: bool) -> None:
    """A decision was sent to the database; only what its rows say became true is told.

    `is_written`: the instance has changed as it says, and not only some job of it.
    """
    if instance_events.has_handler(instance_events.RESULT_EVENTS):
        _tell_outcomes(decision, fates)
    if not is_written or all(verdict.op == "release" for verdict in decision.verdicts):
        return
    run = decision.run
    subject = _subject(run)
    instance_events.advanced(
        subject, decision.before, decision.state, duration=decision.seconds, iteration=run.advances
    )
    instance_events.ended(subject, decision.state, decision.failure, duration=_age(run), advance_count=run.advances)


def _tell_outcomes(decision: Decision, fates: Mapping[int, SettleResult]) -> None:
    for outcome, verdict in zip(decision.outcomes, decision.verdicts, strict=True):
        status = fates[verdict.id].status
        is_done = status == "done"
        # A conflict keeps the result, for an advance job to apply; that which a signal brought is decided again.
        is_recorded = is_done or (status == "conflict" and verdict.signal is None)
        if is_recorded and verdict.event is not None and not verdict.stored:
            _completed(outcome, verdict, verdict.event)
        if is_done:
            _applied(decision, outcome, verdict)


def _completed(outcome: Outcome, verdict: Verdict, event: str) -> None:
    """A result is recorded."""
    job = outcome.job
    source: Source | None = None
    if isinstance(outcome, Finished) and outcome.by_timer:
        source = "timeout"
    elif verdict.signal is not None:
        source = "external"
    instance_events.completed(
        _attempt(job),
        event=event,
        duration=_duration(job, verdict.seconds),
        has_output=verdict.output is not None,
        has_metadata=verdict.metadata is not None,
        source=source,
        waited=job.waited or 0.0,  # a signal that was there before the step waited: it has not parked
    )


def _applied(decision: Decision, outcome: Outcome, verdict: Verdict) -> None:
    """A verdict has taken effect."""
    job = outcome.job
    if verdict.op == "fail" and verdict.event is not None:
        return  # a route failed: the step completed, and no step follows
    if verdict.event is not None:
        instance_events.moved(_attempt(job), verdict.event, decision.commands.get(job.step, ()))
    elif verdict.op == "park" and job.kind != "resume":
        took = _duration(job, getattr(outcome, "seconds", 0.0))
        emit.step_async(_attempt(job), duration=took, instance_status=decision.state.status)
    elif isinstance(outcome, Snoozed):
        emit.step_snooze(_attempt(job), delay=outcome.delay.total_seconds())
    elif isinstance(outcome, AttemptFailed):
        instance_events.failed(
            _attempt(job),
            duration=_duration(job, outcome.seconds),
            kind=outcome.type,
            reason=outcome.reason,
            stacktrace=outcome.details.get("trace"),
            max_attempts=job.max_attempts,
            will_retry=verdict.op in ("retry", "snooze"),
        )


def _subject(run: CachedInstance) -> InstanceRef:
    return InstanceRef(run.id, run.graph.name, run.version, run.run, run.caller)


def _attempt(job: ClaimedJob) -> AttemptRef:
    name = type(job.run.graph.nodes[job.step].step).__name__
    return AttemptRef(_subject(job.run), job.step, name, job.attempt)


def _duration(job: ClaimedJob, seconds: float) -> float | None:
    """How long an attempt took; what a signal or a timer ended, or another worker began, has no duration here."""
    return seconds if job.kind == "execute" else None


def _age(run: CachedInstance) -> float | None:
    """How long ago the instance was started, in seconds."""
    if run.age is None or run.age < 0:  # a clock that was set back
        return None
    return run.age + time.monotonic() - run.known_at
