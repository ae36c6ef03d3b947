"""Emit the events of an instance from the engine's states and commands; the same for worker and `Local`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from pgflow.core.definition.graph import DONE
from pgflow.core.engine.state import Command, Complete, Execute, State
from pgflow.core.values.payload import decode
from pgflow.errors import InvalidPayload
from pgflow.telemetry import emit, names
from pgflow.telemetry.bus import handlers_by_event
from pgflow.telemetry.emit import AttemptRef, InstanceRef
from pgflow.telemetry.names import Name

__all__ = [
    "RESULT_EVENTS",
    "START_EVENTS",
    "Source",
    "advanced",
    "began",
    "completed",
    "ended",
    "failed",
    "has_handler",
    "transitioned",
]

Source = Literal["external", "timeout"]

START_EVENTS = frozenset({names.WORKFLOW_START, names.STEP_START})
RESULT_EVENTS = frozenset(
    {
        names.WORKFLOW_TRANSITION,
        names.STEP_STOP,
        names.STEP_EXCEPTION,
        names.STEP_ASYNC,
        names.STEP_RESUME,
        names.STEP_RETRY,
        names.STEP_SNOOZE,
    }
)


def has_handler(group: frozenset[Name]) -> bool:
    """Whether a handler is attached to one of these events. Check it before collecting their data."""
    return not handlers_by_event.keys().isdisjoint(group)


def began(attempt: AttemptRef, state: State, text: str) -> None:
    """An attempt starts, and with the first attempt of the first step its instance, whose input is the JSON `text`."""
    if attempt.step == state.graph.initial and attempt.number == 1:
        keys = _keys(text) if names.WORKFLOW_START in handlers_by_event else ()
        emit.workflow_start(attempt.subject, initial_step=attempt.step, context_keys=keys)
    emit.step_start(attempt, active_steps_count=len(state.active))


def _keys(text: str) -> Sequence[str]:
    """Return the keys of an input, none for one that cannot be read: the step fails with that error."""
    try:
        given = decode(text)
    except InvalidPayload:
        return ()
    return sorted(given) if isinstance(given, dict) else ()


def completed(
    attempt: AttemptRef,
    *,
    event: str,
    duration: float | None,
    has_output: bool,
    has_metadata: bool,
    source: Source | None,
    waited: float | None,
) -> None:
    """The result of a step is recorded; with a `source` it ended a wait of `waited` seconds."""
    if source is not None:
        emit.step_resume(attempt, resume_event=event, source=source, wait_duration=waited)
    emit.step_stop(
        attempt, event=event, duration=duration, has_context_updates=has_output, has_metadata_updates=has_metadata
    )


def transitioned(attempt: AttemptRef, event: str, commands: Iterable[Command]) -> None:
    """A result is applied, with these commands as its consequences."""
    targets = [command.step for command in commands if isinstance(command, Execute)]
    targets += [DONE for command in commands if isinstance(command, Complete)]
    emit.workflow_transition(attempt.subject, from_step=attempt.step, event=event, targets=targets)


def failed(
    attempt: AttemptRef,
    *,
    duration: float | None,
    kind: str,
    reason: str,
    stacktrace: str | None,
    max_attempts: int,
    will_retry: bool,
) -> None:
    """An attempt failed."""
    emit.step_exception(
        attempt, duration=duration, kind=kind, reason=reason, stacktrace=stacktrace, will_retry=will_retry
    )
    if will_retry:
        emit.step_retry(attempt, max_attempts=max_attempts, kind=kind, reason=reason)


def advanced(subject: InstanceRef, before: State, after: State, *, duration: float | None, iteration: int) -> None:
    """A new state of an instance is recorded."""
    if names.ENGINE_ADVANCE in handlers_by_event:
        emit.engine_advance(
            subject,
            duration=duration,
            active_steps_count=len(after.active),
            completed_in_advance=len((after.done.keys() - before.done.keys()) - {DONE}),
            status_before=before.status,
            status_after=after.status,
            iteration=iteration,
        )


def ended(
    subject: InstanceRef, state: State, failure: Mapping[str, Any] | None, *, duration: float | None, advance_count: int
) -> None:
    """An instance has ended in `state`, with `failure` if it failed. Emits nothing for an active instance."""
    steps = [step for step in state.done if step != DONE]
    if state.status == "completed":
        emit.workflow_stop(subject, duration=duration, completed_steps=steps, advance_count=advance_count)
    elif state.status == "failed" and failure is not None:
        emit.workflow_exception(
            subject,
            duration=duration,
            kind=failure["type"],
            reason=failure["reason"],
            stacktrace=failure.get("trace"),
            failed_step=failure["step"],
            step_count=len(steps),
            advance_count=advance_count,
        )
