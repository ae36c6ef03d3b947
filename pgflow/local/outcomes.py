"""What the outcome of a step, or the end of a wait, does to an instance."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Protocol, assert_never

from pgflow.core.definition.results import Snooze
from pgflow.core.definition.step import Parking
from pgflow.core.engine import attempt
from pgflow.core.engine.attempt import KEPT_ERRORS, AttemptError, EncodedResult, attempt_error
from pgflow.core.engine.state import Command, Completed, Event, Failed, Parked, Paused, Skipped
from pgflow.core.models.instance import Entry, PendingSignal
from pgflow.core.values.absent import ABSENT
from pgflow.core.values.names import OPERATOR
from pgflow.core.values.sanitize import error_message, sanitize_line
from pgflow.errors import InvalidPayload
from pgflow.jitter import uniform
from pgflow.local.clock import Clock
from pgflow.local.live import LiveInstance, LocalJob
from pgflow.local.report import Report
from pgflow.local.runner import Outcome
from pgflow.logs import Logger
from pgflow.telemetry.instance_events import Source

__all__ = ["Outcomes"]

log = Logger("pgflow.local")


class Applier(Protocol):
    """The scheduler, as far as outcomes need it."""

    clock: Clock
    busy: set[LocalJob]
    is_closed: bool

    def apply(self, live: LiveInstance, event: Event) -> tuple[Command, ...]:
        """Advance an instance by an event, and execute the commands that follow."""

    def pause(self, live: LiveInstance, job: LocalJob, delay: timedelta) -> None:
        """Run a job again later."""


class Outcomes:
    """Applies outcomes to instances, as a settle does on PostgreSQL. All methods are called with the lock held."""

    def __init__(self, scheduler: Applier, report: Report) -> None:
        self._scheduler = scheduler
        self._report = report

    def deliver(self, live: LiveInstance, job: LocalJob, signal: PendingSignal) -> None:
        """End a wait by a signal. It stays in the mailbox until the wait has completed: the route may raise."""
        number = live.mailbox.put(replace(signal, step=job.step, id=None))
        self._end_wait_by(live, job, number)

    def complete_paused(self, live: LiveInstance, job: LocalJob, event: str, payload: Any) -> None:
        """Complete a step that waits for an operator, with its output."""
        try:
            text = attempt.signal_output(live.graph, job.step, OPERATOR, payload)
            end = attempt.finish(live.graph, job.step, event, text, lambda: live.context(job))
        except BaseException as error:  # nothing is awaited here
            self._fail(live, job, self._error(live, job, error), timedelta(0))
            return
        self._complete(live, job, end, timedelta(0), "external")

    def fail_paused(self, live: LiveInstance, job: LocalJob, reason: str | None) -> None:
        """Fail a step that waits for an operator, and its instance; without a reason for that of its last attempt."""
        *before, last = job.errors
        live.error = {"step": job.step, **last, "attempts": before}
        if reason is not None:
            live.error.update(reason=reason, type="FailedByOperator", attempts=job.errors)
        self._scheduler.apply(live, Failed(job.step, str(live.error["reason"])))

    def settle(self, live: LiveInstance, job: LocalJob, outcome: Outcome, took: timedelta) -> None:
        if self._scheduler.is_closed:
            return
        match outcome:
            case EncodedResult():
                self._complete(live, job, outcome, took, None)
            case Parking():
                self._park(live, job, outcome, took)
            case Snooze(delay):
                self._report.snoozed(live, job, delay)
                job.attempt -= 1  # it does not count
                self._scheduler.pause(live, job, delay)
                self._report.advanced(live, live.state, 0.0)
            case AttemptError():
                self._fail(live, job, outcome, took)
            case _:
                assert_never(outcome)

    def _complete(
        self,
        live: LiveInstance,
        job: LocalJob,
        end: EncodedResult,
        took: timedelta,
        source: Source | None,
        failed: Sequence[dict[str, Any]] = (),
    ) -> None:
        before, began = live.state, time.perf_counter()
        live.metadata.update(end.metadata or {})
        live.record(
            Entry(
                step=job.step,
                event=end.event,
                at=self._scheduler.clock.now(),
                attempt=job.attempt,
                output={} if end.text is None else end.value,
                metadata=end.metadata or {},
                duration=took,
                errors=(*job.errors, *failed)[-KEPT_ERRORS:],
                targets=end.targets,
            )
        )
        commands = self._advance(live, job, end, source)
        self._report.completed(live, job, end, took, source)
        if commands is not None:
            self._report.moved(live, job, end.event, commands)
        self._report.advanced(live, before, time.perf_counter() - began)

    def decide(self, live: LiveInstance, job: LocalJob, entry: Entry) -> None:
        """Call the route of a recorded result again, after it failed when the step completed."""
        before, began = live.state, time.perf_counter()
        job.attempt = entry.attempt
        targets, why = attempt.decide(live.graph, job.step, entry.event, entry.output, lambda: live.context(job))
        live.history[live.history.index(entry)] = replace(entry, targets=targets)
        commands = self._advance(live, job, EncodedResult(entry.event, targets=targets, route_error=why))
        if commands is not None:
            self._report.moved(live, job, entry.event, commands)
        self._report.advanced(live, before, time.perf_counter() - began)

    def _advance(
        self, live: LiveInstance, job: LocalJob, end: EncodedResult, source: Source | None = None
    ) -> tuple[Command, ...] | None:
        """Apply a recorded result, or fail the instance (None) because the route failed."""
        del live.jobs[job.step]
        self._scheduler.busy.discard(job)
        if end.targets == ():
            return self._scheduler.apply(live, Skipped(job.step))
        if end.route_error is None:
            return self._scheduler.apply(
                live, Completed(job.step, end.event, end.targets, by_timer=source == "timeout")
            )
        live.error = {"step": job.step, **end.route_error.entry(job.attempt), "attempts": job.errors[-KEPT_ERRORS:]}
        self._scheduler.apply(live, Failed(job.step, end.route_error.reason))
        return None

    def _park(self, live: LiveInstance, job: LocalJob, parking: Parking, took: timedelta) -> None:
        job.awaits = dict(parking.awaits)
        if (number := live.mailbox.first_for(job.step, job.awaits)) is not None:  # the signal came before the wait
            self._end_wait_by(live, job, number, took)
            return
        before, began = live.state, time.perf_counter()
        job.state, job.errors, job.parked_at = "parked", [], self._scheduler.clock.now()
        self._scheduler.busy.discard(job)
        self._scheduler.apply(live, Parked(job.step, parking.delay, parking.timeout_event))
        self._report.parked(live, job, took)
        self._report.advanced(live, before, time.perf_counter() - began)

    def _end_wait_by(self, live: LiveInstance, job: LocalJob, number: int, took: timedelta = timedelta(0)) -> None:
        """End a wait by a signal in the mailbox."""
        self.end_wait(live, job, job.awaits[live.mailbox[number].event], "external", took, number)

    def end_wait(
        self,
        live: LiveInstance,
        job: LocalJob,
        event: str,
        source: Source,
        took: timedelta = timedelta(0),
        number: int | None = None,
    ) -> None:
        """End a wait. Its signal, if any, is consumed if the wait completes or rejects the payload."""
        signal = None if number is None else live.mailbox[number]
        try:
            payload = signal.payload if signal is not None and signal.has_payload else ABSENT
            text = attempt.signal_output(live.graph, job.step, event if signal is None else signal.event, payload)
            end = attempt.finish(live.graph, job.step, event, text, lambda: live.context(job))
        except BaseException as error:  # nothing is awaited here
            if number is not None and issubclass(type(error), InvalidPayload):
                live.mailbox.take(number)
            self._fail(live, job, self._error(live, job, error), took)
            return
        if number is not None:
            live.mailbox.take(number)
        self._complete(live, job, end, took, source)

    def _fail(self, live: LiveInstance, job: LocalJob, why: AttemptError, took: timedelta) -> None:
        before, began = live.state, time.perf_counter()
        policy = live.graph.nodes[job.step].retry
        error = why.entry(job.attempt)
        will_retry = why.retry and job.attempt < live.max_attempts(job)
        self._report.failed(live, job, why, took, will_retry=will_retry)
        if will_retry:
            job.errors = [*job.errors, error][-KEPT_ERRORS:]
            pause = policy.delay(job.attempt, uniform(0.0, 1.0)) if why.pause is None else why.pause
            self._scheduler.pause(live, job, pause)
        elif policy.on_exhausted == "pause":
            job.errors = [*job.errors, error][-KEPT_ERRORS:]
            job.state, job.is_paused, job.parked_at = "parked", True, None
            job.due, job.timeout_event, job.awaits = None, None, {}
            self._scheduler.busy.discard(job)
            self._scheduler.apply(live, Paused(job.step))
        elif (end := self._passed_over(live, job, why)) is not None:
            self._complete(live, job, end, took, None, [error])
            return
        else:
            live.error = {"step": job.step, **error, "attempts": job.errors[-KEPT_ERRORS:]}
            self._scheduler.apply(live, Failed(job.step, why.reason))
        self._report.advanced(live, before, time.perf_counter() - began)

    def _passed_over(self, live: LiveInstance, job: LocalJob, why: AttemptError) -> EncodedResult | None:
        try:
            return attempt.passed_over(live.graph, job.step, why, job.attempt, lambda: live.context(job))
        except BaseException as error:  # the graph has lost the event; nothing is awaited here
            log.error("step %s of %s: its policy: %s", job.step, live.id, sanitize_line(error_message(error)))
            return None

    def _error(self, live: LiveInstance, job: LocalJob, error: BaseException) -> AttemptError:
        return attempt_error(error, live.graph.nodes[job.step].retry, job.attempt)
