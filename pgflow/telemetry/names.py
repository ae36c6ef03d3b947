"""The names of the events."""

from __future__ import annotations

from typing import TypeAlias

__all__ = [
    "ENGINE_ADVANCE",
    "RUNNER_INIT",
    "RUNNER_RESCUE",
    "SEED_EVENTS",
    "STEP_ASYNC",
    "STEP_EXCEPTION",
    "STEP_RESUME",
    "STEP_RETRY",
    "STEP_SNOOZE",
    "STEP_START",
    "STEP_STOP",
    "TASK_CANCEL",
    "TASK_ENQUEUE",
    "TASK_EXCEPTION",
    "TASK_RETRY",
    "TASK_SNOOZE",
    "TASK_START",
    "TASK_STOP",
    "WORKFLOW_CANCEL",
    "WORKFLOW_EXCEPTION",
    "WORKFLOW_RETRY",
    "WORKFLOW_SIGNAL",
    "WORKFLOW_START",
    "WORKFLOW_STOP",
    "WORKFLOW_TRANSITION",
    "Name",
    "dotted",
    "events",
]

Name: TypeAlias = tuple[str, str, str]

WORKFLOW_START: Name = ("pgflow", "workflow", "start")
WORKFLOW_STOP: Name = ("pgflow", "workflow", "stop")
WORKFLOW_EXCEPTION: Name = ("pgflow", "workflow", "exception")
WORKFLOW_TRANSITION: Name = ("pgflow", "workflow", "transition")
STEP_START: Name = ("pgflow", "step", "start")
STEP_STOP: Name = ("pgflow", "step", "stop")
STEP_EXCEPTION: Name = ("pgflow", "step", "exception")
STEP_ASYNC: Name = ("pgflow", "step", "async")
STEP_RESUME: Name = ("pgflow", "step", "resume")
ENGINE_ADVANCE: Name = ("pgflow", "engine", "advance")
RUNNER_INIT: Name = ("pgflow", "runner", "init")

WORKFLOW_CANCEL: Name = ("pgflow", "workflow", "cancel")
WORKFLOW_RETRY: Name = ("pgflow", "workflow", "retry")
WORKFLOW_SIGNAL: Name = ("pgflow", "workflow", "signal")
STEP_RETRY: Name = ("pgflow", "step", "retry")
STEP_SNOOZE: Name = ("pgflow", "step", "snooze")
RUNNER_RESCUE: Name = ("pgflow", "runner", "rescue")

TASK_ENQUEUE: Name = ("pgflow", "task", "enqueue")
TASK_START: Name = ("pgflow", "task", "start")
TASK_STOP: Name = ("pgflow", "task", "stop")
TASK_EXCEPTION: Name = ("pgflow", "task", "exception")
TASK_SNOOZE: Name = ("pgflow", "task", "snooze")
TASK_CANCEL: Name = ("pgflow", "task", "cancel")
TASK_RETRY: Name = ("pgflow", "task", "retry")

# The eleven events of the original engine; the others are additions.
SEED_EVENTS: tuple[Name, ...] = (
    WORKFLOW_START,
    WORKFLOW_STOP,
    WORKFLOW_EXCEPTION,
    WORKFLOW_TRANSITION,
    STEP_START,
    STEP_STOP,
    STEP_EXCEPTION,
    STEP_ASYNC,
    STEP_RESUME,
    ENGINE_ADVANCE,
    RUNNER_INIT,
)
EVENTS: tuple[Name, ...] = (
    *SEED_EVENTS,
    WORKFLOW_CANCEL,
    WORKFLOW_RETRY,
    WORKFLOW_SIGNAL,
    STEP_RETRY,
    STEP_SNOOZE,
    RUNNER_RESCUE,
    TASK_ENQUEUE,
    TASK_START,
    TASK_STOP,
    TASK_EXCEPTION,
    TASK_SNOOZE,
    TASK_CANCEL,
    TASK_RETRY,
)


def events() -> tuple[Name, ...]:
    """Return the names of all events.

    telemetry.attach("audit", telemetry.events(), record)
    """
    return EVENTS


def dotted(name: Name) -> str:
    """Return an event's name in dotted form: `pgflow.workflow.start`."""
    return ".".join(name)
