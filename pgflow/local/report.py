"""Tell telemetry what a `Local` does: notes on changes of instances, told once the lock is let go."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from pgflow.core.engine.attempt import AttemptError, EncodedResult
from pgflow.core.engine.state import Command, State
from pgflow.local.clock import Clock
from pgflow.local.live import LiveInstance, LocalJob
from pgflow.local.lock import Lock
from pgflow.telemetry import emit, instance_events
from pgflow.telemetry.bus import handlers_by_event
from pgflow.telemetry.emit import AttemptRef, InstanceRef
from pgflow.telemetry.instance_events import Source

__all__ = ["Report", "ready"]


def ready(storage: str) -> None:
    """A `Local` is about to work."""
    emit.runner_init(name=f"local {storage}", runner="local", storage="memory", pid=os.getpid(), queues={}, schema=None)


class Report:
    """Takes notes under the lock: of values, since what they are about changes while they wait to be told."""

    def __init__(self, lock: Lock, clock: Clock) -> None:
        self._lock = lock
        self._clock = clock

    # -- what callers do

    def signalled(self, live: LiveInstance, signal: str, step: str | None, outcome: str) -> None:
        """A signal was sent."""
        if handlers_by_event:
            self._note(
                emit.workflow_signal, _subject(live), signal=signal, step=step, outcome=outcome, in_transaction=False
            )

    def cancelled(self, live: LiveInstance, reason: str | None) -> None:
        """An instance was cancelled."""
        if handlers_by_event:
            self._note(emit.workflow_cancel, _subject(live), reason=reason, in_transaction=False)

    def retried(self, live: LiveInstance) -> None:
        """A failed instance was taken up again."""
        if handlers_by_event:
            self._note(emit.workflow_retry, _subject(live), in_transaction=False)

    # -- what steps do

    def began(self, live: LiveInstance, job: LocalJob) -> None:
        """An attempt begins."""
        if handlers_by_event:
            self._note(instance_events.began, _attempt(live, job), live.state, live.text)

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
            self._note(
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
        """A result is applied, and these commands have followed from it."""
        if handlers_by_event:
            self._note(instance_events.moved, _attempt(live, job), event, commands)

    def parked(self, live: LiveInstance, job: LocalJob, took: timedelta) -> None:
        """A step waits."""
        if handlers_by_event:
            status = live.state.status
            self._note(emit.step_async, _attempt(live, job), duration=took.total_seconds(), instance_status=status)

    def snoozed(self, live: LiveInstance, job: LocalJob, delay: timedelta) -> None:
        """A step is to live again later."""
        if handlers_by_event:
            self._note(emit.step_snooze, _attempt(live, job), delay=delay.total_seconds())

    def failed(
        self, live: LiveInstance, job: LocalJob, why: AttemptError, took: timedelta, *, will_retry: bool
    ) -> None:
        """An attempt failed."""
        if handlers_by_event:
            self._note(
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
        """A decision about an instance is made, and with it perhaps its end."""
        live.advances += 1
        if handlers_by_event:
            about, state = _subject(live), live.state
            self._note(instance_events.advanced, about, before, state, duration=took, iteration=live.advances)
            age = self._since(live.created_at)
            self._note(instance_events.ended, about, state, live.error, duration=age, advance_count=live.advances)

    def _note(self, tell: Any, *args: Any, **more: Any) -> None:
        self._lock.note(partial(tell, *args, **more))

    def _since(self, moment: datetime) -> float | None:
        """Seconds since then; None when that was on the clock of another `Local`, which was ahead of ours."""
        seconds = (self._clock.now() - moment).total_seconds()
        return seconds if seconds >= 0 else None


def _subject(live: LiveInstance) -> InstanceRef:
    return InstanceRef(live.id, live.graph.name, live.graph.version, live.run, live.telemetry, runner="local")


def _attempt(live: LiveInstance, job: LocalJob) -> AttemptRef:
    return AttemptRef(_subject(live), job.step, type(live.graph.nodes[job.step].step).__name__, job.attempt)


def _duration(job: LocalJob, took: timedelta) -> float | None:
    """How long an attempt took; what a signal or a timer ended has no duration."""
    return took.total_seconds() if job.parked_at is None else None
