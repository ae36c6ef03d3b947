"""Emit telemetry for a `Local`: events are built under the lock and emitted after its release."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from pgflow.core.engine.attempt import AttemptError, EncodedResult
from pgflow.core.engine.state import Command, State
from pgflow.local.clock import Clock
from pgflow.local.live import LiveInstance, LocalJob
from pgflow.local.local_task import LocalTask
from pgflow.local.lock import DeferringLock
from pgflow.telemetry import emit, instance_events, task_events
from pgflow.telemetry.bus import handlers_by_event
from pgflow.telemetry.emit import AttemptRef, InstanceRef
from pgflow.telemetry.instance_events import Source
from pgflow.telemetry.task_events import TaskRef

__all__ = ["Report", "ready"]


def ready(storage: str) -> None:
    """A `Local` starts."""
    emit.runner_init(name=f"local {storage}", runner="local", storage="memory", pid=os.getpid(), queues={}, schema=None)


class Report:
    """Builds events under the lock, from values: the instance may have changed when they are emitted."""

    def __init__(self, lock: DeferringLock, clock: Clock) -> None:
        self._lock = lock
        self._clock = clock

    # -- what callers do

    def signalled(self, live: LiveInstance, signal: str, step: str | None, outcome: str) -> None:
        """A signal was sent."""
        if handlers_by_event:
            self._emit(
                emit.workflow_signal, _ref(live), signal=signal, step=step, outcome=outcome, in_transaction=False
            )

    def cancelled(self, live: LiveInstance, reason: str | None) -> None:
        """An instance was cancelled."""
        if handlers_by_event:
            self._emit(emit.workflow_cancel, _ref(live), reason=reason, in_transaction=False)

    def retried(self, live: LiveInstance) -> None:
        """A failed instance is retried."""
        if handlers_by_event:
            self._emit(emit.workflow_retry, _ref(live), in_transaction=False)

    # -- what steps do

    def began(self, live: LiveInstance, job: LocalJob) -> None:
        """An attempt begins."""
        if handlers_by_event:
            self._emit(instance_events.began, _attempt(live, job), live.state, live.text)

    def completed(
        self,
        live: LiveInstance,
        job: LocalJob,
        end: EncodedResult,
        took: timedelta,
        source: Source | None,
    ) -> None:
        """A result is recorded."""
        if handlers_by_event:
            self._emit(
                instance_events.completed,
                _attempt(live, job),
                event=end.event,
                duration=_duration(job, took),
                has_output=end.text is not None,
                has_metadata=bool(end.metadata),
                source=source,
                waited=0.0 if job.parked_at is None else self._since(job.parked_at),
            )

    def moved(self, live: LiveInstance, job: LocalJob, event: str, commands: tuple[Command, ...]) -> None:
        """A result was applied, with these commands as its effect."""
        if handlers_by_event:
            self._emit(instance_events.transitioned, _attempt(live, job), event, commands)

    def parked(self, live: LiveInstance, job: LocalJob, took: timedelta) -> None:
        """A step waits."""
        if handlers_by_event:
            status = live.state.status
            self._emit(emit.step_async, _attempt(live, job), duration=took.total_seconds(), instance_status=status)

    def snoozed(self, live: LiveInstance, job: LocalJob, delay: timedelta) -> None:
        """A step will run again later."""
        if handlers_by_event:
            self._emit(emit.step_snooze, _attempt(live, job), delay=delay.total_seconds())

    def failed(
        self, live: LiveInstance, job: LocalJob, why: AttemptError, took: timedelta, *, will_retry: bool
    ) -> None:
        """An attempt failed."""
        if handlers_by_event:
            self._emit(
                instance_events.failed,
                _attempt(live, job),
                duration=_duration(job, took),
                kind=why.type,
                reason=why.reason,
                stacktrace=why.details.get("trace"),
                max_attempts=live.graph.nodes[job.step].retry.max_attempts,
                will_retry=will_retry,
            )

    def advanced(self, live: LiveInstance, before: State, took: float) -> None:
        """An instance was advanced, and may have ended."""
        live.advances += 1
        if handlers_by_event:
            ref, state = _ref(live), live.state
            self._emit(instance_events.advanced, ref, before, state, duration=took, iteration=live.advances)
            age = self._since(live.created_at)
            self._emit(instance_events.ended, ref, state, live.error, duration=age, advance_count=live.advances)

    # -- tasks

    def enqueued(self, task: str, jobs: Sequence[int | None]) -> None:
        """A task was enqueued, once for each of `jobs`."""
        if handlers_by_event:
            self._emit(task_events.task_enqueue, task, jobs, in_transaction=False)

    def task_cancelled(self, job: LocalTask, reason: str | None) -> None:
        """A job was cancelled."""
        if handlers_by_event:
            self._emit(task_events.task_cancel, _task(job), reason=reason, in_transaction=False)

    def task_retried(self, job: LocalTask) -> None:
        """A job is retried."""
        if handlers_by_event:
            self._emit(task_events.task_retry, _task(job), in_transaction=False)

    def task_began(self, job: LocalTask) -> None:
        """An attempt at a task begins."""
        if handlers_by_event:
            self._emit(task_events.task_start, _task(job))

    def task_completed(self, job: LocalTask, took: timedelta) -> None:
        """A task has completed."""
        if handlers_by_event:
            age = self._since(job.enqueued_at)
            self._emit(task_events.task_stop, _task(job), duration=took.total_seconds(), age=age)

    def task_snoozed(self, job: LocalTask, delay: timedelta) -> None:
        """A task will run again later."""
        if handlers_by_event:
            self._emit(task_events.task_snooze, _task(job), delay=delay.total_seconds())

    def task_failed(self, job: LocalTask, why: AttemptError, took: timedelta, *, will_retry: bool) -> None:
        """An attempt at a task failed."""
        if handlers_by_event:
            self._emit(
                task_events.task_exception,
                _task(job),
                duration=took.total_seconds(),
                kind=why.type,
                reason=why.reason,
                stacktrace=why.details.get("trace"),
                max_attempts=job.max_attempts,
                will_retry=will_retry,
            )

    def _emit(self, emitter: Any, *args: Any, **fields: Any) -> None:
        self._lock.defer(partial(emitter, *args, **fields))

    def _since(self, moment: datetime) -> float | None:
        """Return the seconds since then, None for a time of an earlier `Local` whose clock was ahead of ours."""
        seconds = (self._clock.now() - moment).total_seconds()
        return seconds if seconds >= 0 else None


def _ref(live: LiveInstance) -> InstanceRef:
    return InstanceRef(live.id, live.graph.name, live.graph.version, live.run, live.telemetry, runner="local")


def _task(job: LocalTask) -> TaskRef:
    return TaskRef(job.id, job.task.name, job.attempt, caller=job.caller, runner="local")


def _attempt(live: LiveInstance, job: LocalJob) -> AttemptRef:
    return AttemptRef(_ref(live), job.step, type(live.graph.nodes[job.step].step).__name__, job.attempt)


def _duration(job: LocalJob, took: timedelta) -> float | None:
    """Return how long an attempt took; None where a signal or a timer ended it."""
    return took.total_seconds() if job.parked_at is None else None
