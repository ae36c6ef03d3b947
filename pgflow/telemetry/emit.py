"""One function for each event: what it measures, and what it is about; it does nothing while nobody wants it."""

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
    """The instance that an event is about. `caller` is what `start(..., telemetry=...)` gave along.

    On PostgreSQL, a client call knows neither `run` nor `version`, nor what the caller of `start` gave along. `runner`
    is the stack that the instance runs on: "worker" or "local".
    """

    instance_id: str
    workflow: str
    version: int | None = None
    run: int | None = None
    caller: Mapping[str, Any] = field(default_factory=dict)
    runner: str = "worker"

    def about(self, **own: Any) -> dict[str, Any]:
        """Metadata of an event: the caller's is the weakest, and never takes the place of a field of ours."""
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
    """What an event of a step is about: the step's key, the name of its type, and which attempt it is, from 1."""

    subject: InstanceRef
    step: str
    step_name: str
    number: int

    def about(self, **own: Any) -> dict[str, Any]:
        """Metadata of an event: the key of the step comes under two names."""
        return self.subject.about(
            step=self.step, step_key=self.step, step_name=self.step_name, attempt=self.number, **own
        )


# -- workflow


def workflow_start(subject: InstanceRef, *, initial_step: str, context_keys: Iterable[str]) -> None:
    """The first step of an instance begins on this worker; told again if that step snoozes or was given back."""
    if names.WORKFLOW_START in handlers_by_event:
        metadata = subject.about(initial_step=initial_step, context_keys=tuple(context_keys), runner=subject.runner)
        deliver(names.WORKFLOW_START, {"system_time": time.time_ns()}, metadata)


def workflow_stop(
    subject: InstanceRef, *, duration: float | None, completed_steps: Iterable[str], advance_count: int
) -> None:
    """An instance is completed. `advance_count` counts the decisions of this worker since it took the instance up."""
    if names.WORKFLOW_STOP in handlers_by_event:
        completed = tuple(completed_steps)
        measurements = {"duration": duration, "step_count": len(completed), "advance_count": advance_count}
        metadata = subject.about(status="completed", completed_steps=completed, runner=subject.runner)
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
    """An instance has failed at a step, None where no way to its end is left.

    `kind` is the name of the exception's type, "Error" for a returned `Error`. `step_count` is None where what is
    stored of the instance cannot be read.
    """
    if names.WORKFLOW_EXCEPTION in handlers_by_event:
        metadata = subject.about(
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
    """A completion was applied; `targets` are the steps that it activated, none where a join waits for others."""
    if names.WORKFLOW_TRANSITION in handlers_by_event:
        to = tuple(targets)
        metadata = subject.about(from_step=from_step, event=event, targets=to, fan_out=len(to) > 1)
        deliver(names.WORKFLOW_TRANSITION, {"targets_count": len(to)}, metadata)


def workflow_cancel(subject: InstanceRef, *, reason: str | None, in_transaction: bool) -> None:
    """A client of this process cancelled an instance."""
    if names.WORKFLOW_CANCEL in handlers_by_event:
        metadata = subject.about(status="cancelled", reason=reason, in_transaction=in_transaction)
        deliver(names.WORKFLOW_CANCEL, {"system_time": time.time_ns()}, metadata)


def workflow_retry(subject: InstanceRef, *, in_transaction: bool) -> None:
    """A client of this process took a failed instance up again."""
    if names.WORKFLOW_RETRY in handlers_by_event:
        metadata = subject.about(in_transaction=in_transaction)
        deliver(names.WORKFLOW_RETRY, {"system_time": time.time_ns()}, metadata)


def workflow_signal(subject: InstanceRef, *, signal: str, step: str | None, outcome: str, in_transaction: bool) -> None:
    """A client of this process sent a signal, addressed to `step` or to whoever takes it.

    `outcome` is "delivered", "kept", or "scheduled" for one that is to be sent later.
    """
    if names.WORKFLOW_SIGNAL in handlers_by_event:
        metadata = subject.about(signal=signal, step=step, outcome=outcome, in_transaction=in_transaction)
        deliver(names.WORKFLOW_SIGNAL, {"system_time": time.time_ns()}, metadata)


# -- step


def step_start(attempt: AttemptRef, *, active_steps_count: int) -> None:
    """An attempt of a step begins."""
    if names.STEP_START in handlers_by_event:
        metadata = attempt.about(
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
    """A step is completed and recorded; `duration` is that of the attempt, None where a signal or timer ended it."""
    if names.STEP_STOP in handlers_by_event:
        metadata = attempt.about(
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
        metadata = attempt.about(
            kind=kind,
            reason=reason,
            stacktrace=stacktrace,
            will_retry=will_retry,
        )
        deliver(names.STEP_EXCEPTION, {"duration": duration}, metadata)


def step_retry(attempt: AttemptRef, *, max_attempts: int, kind: str, reason: str) -> None:
    """A failed attempt will be followed by another; told after its `step exception`."""
    if names.STEP_RETRY in handlers_by_event:
        metadata = attempt.about(max_attempts=max_attempts, kind=kind, reason=reason)
        deliver(names.STEP_RETRY, {"system_time": time.time_ns()}, metadata)


def step_snooze(attempt: AttemptRef, *, delay: float) -> None:
    """A step asked to be run again after `delay` seconds."""
    if names.STEP_SNOOZE in handlers_by_event:
        metadata = attempt.about()
        deliver(names.STEP_SNOOZE, {"system_time": time.time_ns(), "delay": delay}, metadata)


def step_async(attempt: AttemptRef, *, duration: float | None, instance_status: str) -> None:
    """A step waits now. `instance_status` is "running" while siblings of it go on."""
    if names.STEP_ASYNC in handlers_by_event:
        metadata = attempt.about(instance_status=instance_status)
        deliver(names.STEP_ASYNC, {"duration": duration}, metadata)


def step_resume(
    attempt: AttemptRef,
    *,
    resume_event: str,
    source: str,
    wait_duration: float | None,
) -> None:
    """A wait has ended; `source` is "external" or "timeout"; a signal that came before the wait ends it after 0 s."""
    if names.STEP_RESUME in handlers_by_event:
        metadata = attempt.about(resume_event=resume_event, source=source)
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
    """A decision about an instance is written; `iteration` counts them as `advance_count` does."""
    if names.ENGINE_ADVANCE in handlers_by_event:
        measurements = {
            "duration": duration,
            "active_steps_count": active_steps_count,
            "completed_in_advance": completed_in_advance,
        }
        metadata = subject.about(status_before=status_before, status_after=status_after, iteration=iteration)
        deliver(names.ENGINE_ADVANCE, measurements, metadata)


def runner_init(
    *, name: str, runner: str, storage: str, pid: int, queues: Mapping[str, int], schema: str | None
) -> None:
    """A worker is registered and ready, told again when it lost its lease and took a new identity; or a `Local` is."""
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


def runner_rescue(*, name: str, tokens: int, queues: Iterable[str]) -> None:
    """A worker freed so many tokens of workers whose lease had ended."""
    if names.RUNNER_RESCUE in handlers_by_event:
        metadata = {"name": name, "runner": "worker", "queues": tuple(queues)}
        deliver(names.RUNNER_RESCUE, {"system_time": time.time_ns(), "tokens": tokens}, metadata)
