"""One function for each event, with its measurements and metadata. Without a handler it does nothing."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pgflow.telemetry import names
from pgflow.telemetry.bus import deliver, handlers_by_event

__all__ = [
    "AttemptRef",
    "InstanceRef",
    "engine_advance",
    "runner_init",
    "runner_rescue",
    "step_async",
    "step_exception",
    "step_resume",
    "step_retry",
    "step_snooze",
    "step_start",
    "step_stop",
    "workflow_cancel",
    "workflow_exception",
    "workflow_retry",
    "workflow_signal",
    "workflow_start",
    "workflow_stop",
    "workflow_transition",
]


@dataclass(frozen=True, slots=True)
class InstanceRef:
    """The instance of an event. `caller` is the `telemetry=` of its start; `runner` is "worker" or "local".

    In the events of client calls on PostgreSQL `run` and `version` are None and `caller` is empty: the client does not
    read them.
    """

    instance_id: str
    workflow: str
    version: int | None = None
    run: int | None = None
    caller: Mapping[str, Any] = field(default_factory=dict)
    runner: str = "worker"

    def metadata(self, **own: Any) -> dict[str, Any]:
        """Return the metadata of an event. The caller's items never overwrite pgflow's."""
        return {
            **self.caller,
            "instance_id": self.instance_id,
            "run": self.run,
            "workflow": self.workflow,
            **own,
            "workflow_version": self.version,
        }


@dataclass(frozen=True, slots=True)
class AttemptRef:
    """The attempt of an event: the instance, the step's key, the name of its class, and the attempt's number from 1.

    `queue` and `worker` (its id) are where it runs; both are None in memory.
    """

    subject: InstanceRef
    step: str
    step_name: str
    number: int
    queue: str | None = None
    worker: int | None = None

    def metadata(self, **own: Any) -> dict[str, Any]:
        """Return the metadata of an event; it has the step's key under two names."""
        return self.subject.metadata(
            step=self.step,
            step_key=self.step,
            step_name=self.step_name,
            attempt=self.number,
            queue=self.queue,
            worker=self.worker,
            **own,
        )


# -- workflow


def workflow_start(subject: InstanceRef, *, initial_step: str, context_keys: Iterable[str]) -> None:
    """The first step of an instance starts on this worker; emitted again if that step snoozes or is released."""
    if names.WORKFLOW_START in handlers_by_event:
        metadata = subject.metadata(initial_step=initial_step, context_keys=tuple(context_keys), runner=subject.runner)
        deliver(names.WORKFLOW_START, {"system_time": time.time_ns()}, metadata)


def workflow_stop(
    subject: InstanceRef, *, duration: float | None, completed_steps: Iterable[str], advance_count: int
) -> None:
    """An instance is completed. `advance_count` counts the advances of this worker since it loaded the instance."""
    if names.WORKFLOW_STOP in handlers_by_event:
        completed = tuple(completed_steps)
        measurements = {"duration": duration, "step_count": len(completed), "advance_count": advance_count}
        metadata = subject.metadata(status="completed", completed_steps=completed, runner=subject.runner)
        deliver(names.WORKFLOW_STOP, measurements, metadata)


def workflow_exception(
    subject: InstanceRef,
    *,
    duration: float | None,
    kind: str,
    reason: str,
    stacktrace: str | None,
    failed_step: str | None,
    step_count: int | None,
    advance_count: int,
) -> None:
    """An instance has failed at a step; `failed_step` is None if no path to Done is left.

    `kind` is the name of the exception's class, "Error" for a returned `Error`. `step_count` is None if the stored
    instance cannot be read.
    """
    if names.WORKFLOW_EXCEPTION in handlers_by_event:
        metadata = subject.metadata(
            kind=kind,
            reason=reason,
            stacktrace=stacktrace,
            status="failed",
            failed_step=failed_step,
            runner=subject.runner,
            step_count=step_count,
            advance_count=advance_count,
        )
        deliver(names.WORKFLOW_EXCEPTION, {"duration": duration}, metadata)


def workflow_transition(subject: InstanceRef, *, from_step: str, event: str, targets: Iterable[str]) -> None:
    """A completion was applied; `targets` are the activated steps, empty if a join waits for other branches."""
    if names.WORKFLOW_TRANSITION in handlers_by_event:
        to = tuple(targets)
        metadata = subject.metadata(from_step=from_step, event=event, targets=to, fan_out=len(to) > 1)
        deliver(names.WORKFLOW_TRANSITION, {"targets_count": len(to)}, metadata)


def workflow_cancel(subject: InstanceRef, *, reason: str | None, in_transaction: bool) -> None:
    """A client of this process cancelled an instance."""
    if names.WORKFLOW_CANCEL in handlers_by_event:
        metadata = subject.metadata(status="cancelled", reason=reason, in_transaction=in_transaction)
        deliver(names.WORKFLOW_CANCEL, {"system_time": time.time_ns()}, metadata)


def workflow_retry(subject: InstanceRef, *, in_transaction: bool) -> None:
    """A client of this process retried a failed instance."""
    if names.WORKFLOW_RETRY in handlers_by_event:
        metadata = subject.metadata(in_transaction=in_transaction)
        deliver(names.WORKFLOW_RETRY, {"system_time": time.time_ns()}, metadata)


def workflow_signal(subject: InstanceRef, *, signal: str, step: str | None, outcome: str, in_transaction: bool) -> None:
    """A client of this process sent a signal, to `step` or, if that is None, to any step that consumes it.

    `outcome` is "delivered", "kept", or "scheduled" for a signal that is sent later.
    """
    if names.WORKFLOW_SIGNAL in handlers_by_event:
        metadata = subject.metadata(signal=signal, step=step, outcome=outcome, in_transaction=in_transaction)
        deliver(names.WORKFLOW_SIGNAL, {"system_time": time.time_ns()}, metadata)


# -- step


def step_start(attempt: AttemptRef, *, active_steps_count: int) -> None:
    """An attempt of a step starts."""
    if names.STEP_START in handlers_by_event:
        metadata = attempt.metadata(
            concurrent=active_steps_count > 1,
            active_steps_count=active_steps_count,
        )
        deliver(names.STEP_START, {"system_time": time.time_ns()}, metadata)


def step_stop(
    attempt: AttemptRef,
    *,
    event: str,
    duration: float | None,
    has_context_updates: bool,
    has_metadata_updates: bool,
) -> None:
    """A step is completed and recorded; `duration` is the attempt's, None if a signal or a timer completed the step."""
    if names.STEP_STOP in handlers_by_event:
        metadata = attempt.metadata(
            event=event,
            has_context_updates=has_context_updates,
            has_metadata_updates=has_metadata_updates,
        )
        deliver(names.STEP_STOP, {"duration": duration}, metadata)


def step_exception(
    attempt: AttemptRef,
    *,
    duration: float | None,
    kind: str,
    reason: str,
    stacktrace: str | None,
    will_retry: bool,
) -> None:
    """An attempt of a step failed; `stacktrace` is None for a returned `Error`."""
    if names.STEP_EXCEPTION in handlers_by_event:
        metadata = attempt.metadata(
            kind=kind,
            reason=reason,
            stacktrace=stacktrace,
            will_retry=will_retry,
        )
        deliver(names.STEP_EXCEPTION, {"duration": duration}, metadata)


def step_retry(attempt: AttemptRef, *, max_attempts: int, kind: str, reason: str) -> None:
    """A failed attempt will be followed by another; emitted after its `step exception`."""
    if names.STEP_RETRY in handlers_by_event:
        metadata = attempt.metadata(max_attempts=max_attempts, kind=kind, reason=reason)
        deliver(names.STEP_RETRY, {"system_time": time.time_ns()}, metadata)


def step_snooze(attempt: AttemptRef, *, delay: float) -> None:
    """A step returned `Snooze`; it runs again after `delay` seconds."""
    if names.STEP_SNOOZE in handlers_by_event:
        metadata = attempt.metadata()
        deliver(names.STEP_SNOOZE, {"system_time": time.time_ns(), "delay": delay}, metadata)


def step_async(attempt: AttemptRef, *, duration: float | None, instance_status: str) -> None:
    """A step waits. `instance_status` is "running" while other branches run."""
    if names.STEP_ASYNC in handlers_by_event:
        metadata = attempt.metadata(instance_status=instance_status)
        deliver(names.STEP_ASYNC, {"duration": duration}, metadata)


def step_resume(
    attempt: AttemptRef,
    *,
    resume_event: str,
    source: str,
    wait_duration: float | None,
) -> None:
    """A wait has ended; `source` is "external" or "timeout". A signal sent before the wait ends it after 0 s."""
    if names.STEP_RESUME in handlers_by_event:
        metadata = attempt.metadata(resume_event=resume_event, source=source)
        deliver(names.STEP_RESUME, {"system_time": time.time_ns(), "wait_duration": wait_duration}, metadata)


# -- engine and runner


def engine_advance(
    subject: InstanceRef,
    *,
    duration: float | None,
    active_steps_count: int,
    completed_in_advance: int,
    status_before: str,
    status_after: str,
    iteration: int,
) -> None:
    """A new state of an instance is written; `iteration` counts the advances as `advance_count` does."""
    if names.ENGINE_ADVANCE in handlers_by_event:
        measurements = {
            "duration": duration,
            "active_steps_count": active_steps_count,
            "completed_in_advance": completed_in_advance,
        }
        metadata = subject.metadata(status_before=status_before, status_after=status_after, iteration=iteration)
        deliver(names.ENGINE_ADVANCE, measurements, metadata)


def runner_init(
    *, name: str, runner: str, storage: str, pid: int, queues: Mapping[str, int], schema: str | None
) -> None:
    """A worker is registered and ready, or a `Local` is open; emitted again when a worker re-registers."""
    if names.RUNNER_INIT in handlers_by_event:
        metadata = {
            "name": name,
            "runner": runner,
            "storage": storage,
            "pid": pid,
            "queues": dict(queues),
            "schema": schema,
        }
        deliver(names.RUNNER_INIT, {"system_time": time.time_ns()}, metadata)


def runner_rescue(*, name: str, jobs: int, queues: Iterable[str]) -> None:
    """A worker returned the jobs of workers with an expired lease to their queues."""
    if names.RUNNER_RESCUE in handlers_by_event:
        metadata = {"name": name, "runner": "worker", "queues": tuple(queues)}
        deliver(names.RUNNER_RESCUE, {"system_time": time.time_ns(), "jobs": jobs}, metadata)
