"""Write events to the log, one line each."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from pgflow.core.values.sanitize import sanitize_line
from pgflow.errors import ConfigError
from pgflow.logs import Logger
from pgflow.telemetry import names
from pgflow.telemetry.bus import Event, attach, checked, detach
from pgflow.telemetry.names import Name, events

__all__ = ["LOG_HANDLER", "attach_log_handler", "detach_log_handler"]

log = Logger("pgflow.telemetry")

LOG_HANDLER = "pgflow-default-log-handler"
MAX_REASON_LENGTH = 500

LEVELS: Mapping[Name, int] = {
    **dict.fromkeys(events(), logging.INFO),
    names.WORKFLOW_EXCEPTION: logging.ERROR,
    names.STEP_EXCEPTION: logging.ERROR,
    names.TASK_EXCEPTION: logging.ERROR,
    names.STEP_ASYNC: logging.WARNING,
    names.STEP_RETRY: logging.WARNING,
    names.RUNNER_RESCUE: logging.WARNING,
    names.WORKFLOW_TRANSITION: logging.DEBUG,
    names.ENGINE_ADVANCE: logging.DEBUG,
}

# The metadata fields with a step's key, in events that are not a step's, and with a step's event. Listed by event,
# because the caller's metadata may use the same names in others.
STEPS: Mapping[Name, str] = {
    names.WORKFLOW_EXCEPTION: "failed_step",
    names.WORKFLOW_TRANSITION: "from_step",
    names.WORKFLOW_SIGNAL: "step",
}
EVENTS: Mapping[Name, str] = {
    names.WORKFLOW_TRANSITION: "event",
    names.STEP_STOP: "event",
    names.STEP_RESUME: "resume_event",
}


def attach_log_handler(*, level: Mapping[Name, int | str] | None = None, events: Iterable[Name] | None = None) -> None:
    """Write events to the logger `pgflow.telemetry`, prefixed with `[instance_id] ` or `[job 17] `.

    `events` are the events to write, by default all; `level` overrides the levels of some. A record has the attributes
    instance_id, workflow, task, job, step, event (a step's event) and duration_ms, as far as the telemetry event has
    them. Raises `AlreadyAttached` if it is already attached, and `ConfigError` for an unknown event or level.

        attach_log_handler(level={telemetry.STEP_START: "debug"}, events=[telemetry.STEP_START, telemetry.STEP_STOP])
    """
    own = {name: _level(given) for name, given in (level or {}).items()}
    if own:
        checked(own)
    attach(LOG_HANDLER, names.events() if events is None else events, write, {**LEVELS, **own})


def detach_log_handler() -> None:
    """Stop writing events. Raises `NotAttached`."""
    detach(LOG_HANDLER)


def _level(given: int | str) -> int:
    number = logging.getLevelNamesMapping().get(given.upper()) if isinstance(given, str) else given
    if number is None:
        raise ConfigError(f"there is no log level {given!r}", hint="Use debug, info, warning or error.")
    return number


def write(event: Event, levels: Mapping[Name, int]) -> None:
    """Write one event."""
    level = levels[event.name]
    if not log.isEnabledFor(level):
        return
    metadata = event.metadata
    instance_id = metadata.get("instance_id")
    about = f"job {metadata['job']}" if metadata.get("job") is not None and event.name[1] == "task" else instance_id
    seconds = event.measurements.get("duration")
    extra = {
        "instance_id": instance_id,
        "workflow": metadata.get("workflow"),
        "task": metadata["task"] if event.name[1] == "task" else None,
        "job": metadata.get("job") if event.name[1] == "task" else None,
        "step": metadata["step"] if event.name[1] == "step" else metadata.get(STEPS.get(event.name, "")),
        "event": metadata.get(EVENTS.get(event.name, "")),
        "duration_ms": None if seconds is None else round(seconds * 1000, 3),
    }
    line = _line(event.name, event.measurements, metadata)
    present = {key: value for key, value in extra.items() if value is not None}
    log.log(level, "%s%s", f"[{about}] " if about is not None else "", line, extra=present)


def _line(name: Name, measured: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    took = _ms(measured.get("duration"))
    within = f" in {took}" if took else ""
    match name[1:]:
        case ("workflow", "start"):
            return "Workflow started"
        case ("workflow", "stop"):
            return f"Workflow completed{within}"
        case ("workflow", "exception"):
            at = "" if about["failed_step"] is None else f" at {about['failed_step']}"
            return f"Workflow failed{at}: {_reason(about['reason'])}"
        case ("workflow", "transition"):
            return f"Transition: {about['from_step']} → {', '.join(about['targets']) or '(a join that waits)'}"
        case ("workflow", "cancel"):
            return f"Workflow cancelled{': ' + _reason(about['reason']) if about['reason'] else ''}"
        case ("workflow", "retry"):
            return "Workflow retried"
        case ("workflow", "signal"):
            return f"Signal {about['signal']} {about['outcome']}"
        case ("step", "start"):
            return f"Step {about['step']} started"
        case ("step", "stop"):
            return f"Step {about['step']} completed{within} → {about['event']}"
        case ("step", "exception"):
            return f"Step {about['step']} failed: {_reason(about['reason'])}"
        case ("step", "async"):
            return f"Step {about['step']} waiting for async event"
        case ("step", "resume"):
            waited = _ms(measured["wait_duration"])
            return f"Step {about['step']} resumed with {about['resume_event']}{f' (waited {waited})' if waited else ''}"
        case ("step", "retry"):
            return f"Step {about['step']} will be retried after attempt {about['attempt']}"
        case ("step", "snooze"):
            return f"Step {about['step']} snoozes for {measured['delay']:g}s"
        case ("task", "enqueue"):
            return f"Task {about['task']} enqueued, jobs: {', '.join(map(str, about['jobs']))}"
        case ("task", "start"):
            return f"Task {about['task']} started"
        case ("task", "stop"):
            return f"Task {about['task']} completed{within}"
        case ("task", "exception"):
            again = f" and will be retried after attempt {about['attempt']}" if about["will_retry"] else ""
            return f"Task {about['task']} failed{again}: {_reason(about['reason'])}"
        case ("task", "snooze"):
            return f"Task {about['task']} snoozes for {measured['delay']:g}s"
        case ("task", "cancel"):
            return f"Task cancelled{': ' + _reason(about['reason']) if about['reason'] else ''}"
        case ("task", "retry"):
            return "Task retried"
        case ("engine", "advance"):
            return f"Engine advance #{about['iteration']}{f' ({took})' if took else ''}"
        case ("runner", "init"):
            return f"pgflow runner initialized: {about['name']}"
        case _:
            return f"Jobs of lost workers rescued: {measured['jobs']}"


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:.0f}ms"


def _reason(reason: str) -> str:
    """Return a reason as one line: it may be the text of a user's exception."""
    return sanitize_line(reason, MAX_REASON_LENGTH)
