"""Render instances: as text for people, and as objects for JSON documents."""

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, assert_never

from pgflow.cli.output import format_time, printable
from pgflow.core.definition.control import Progress
from pgflow.core.models.instance import Entry, Instance, PendingSignal, WaitingFor
from pgflow.core.values.codec import encryption_key_id

__all__ = [
    "compact_json",
    "describe_failure",
    "describe_signal",
    "describe_wait",
    "entry_record",
    "format_elapsed",
    "format_progress",
    "instance_record",
    "progress_record",
    "signal_record",
    "truncate",
]


def instance_record(instance: Instance) -> dict[str, Any]:
    """Return an instance as an object of a JSON document; numbers that identify are strings."""
    return {
        "run": str(instance.run),
        "id": instance.id,
        "workflow": instance.workflow,
        "version": instance.version,
        "status": instance.status,
        "input": instance.input,
        "tags": instance.tags,
        "metadata": instance.metadata,
        "started_at": instance.created_at,
        "finished_at": instance.finished_at,
        "deadline": instance.deadline,
        "waiting_for": [_wait_record(each) for each in instance.waiting_for],
        "step_configs": instance.step_configs,
        "error": instance.error,
        "unreadable": instance.unreadable,
    }


def entry_record(entry: Entry) -> dict[str, Any]:
    """Return a completed step of the history as an object of a JSON document."""
    return {
        "step": entry.step,
        "event": entry.event,
        "at": entry.at,
        "attempt": entry.attempt,
        "duration": entry.duration,
        "worker": None if entry.worker is None else str(entry.worker),
        "output": entry.output,
        "metadata": entry.metadata,
        "errors": entry.errors,
    }


def signal_record(each: PendingSignal) -> dict[str, Any]:
    """Return a kept or scheduled signal as an object of a JSON document."""
    return {
        "event": each.event,
        "step": each.step,
        "payload": each.payload,
        "has_payload": each.has_payload,
        "at": each.at,
        "id": None if each.id is None else str(each.id),
    }


def describe_signal(each: PendingSignal) -> str:
    """Describe a signal that is kept in the mailbox or scheduled."""
    event, step = printable(each.event), None if each.step is None else printable(each.step)
    if each.id is None:
        return f"signal {event}: kept until {step or 'a step'} waits for it"
    return f"signal {event}: scheduled for {step} at {format_time(each.at)}; cancel it: pgflow unschedule {each.id}"


def _wait_record(each: WaitingFor) -> dict[str, Any]:
    return {
        "step": each.step,
        "kind": each.kind,
        "events": each.events,
        "until": each.until,
        "attempt": each.attempt,
        "max_attempts": each.max_attempts,
        "error": each.error,
        "progress": progress_record(each.progress),
    }


def progress_record(progress: Progress | None) -> dict[str, Any] | None:
    """Return a progress as an object of a JSON document."""
    return None if progress is None else {"at": progress.at, "note": progress.note}


def format_progress(progress: Progress | None) -> str | None:
    """Return a progress as text.

    format_progress(Progress(0.4, "page 2"))    # "40 % page 2"
    """
    return None if progress is None else f"{progress.at * 100:.0f} % {progress.note}".rstrip()


def describe_wait(each: WaitingFor) -> str:
    """Describe the state of an active step.

    describe_wait(WaitingFor("charge", "signal", ("paid",)))    # charge: waiting for signal paid
    """
    step = each.step or "instance"
    match each.kind:
        case "signal":
            timeout = f", timeout at {format_time(each.until)}" if each.until else ""
            return printable(f"{step}: waiting for signal {' or '.join(each.events) or '(any)'}{timeout}")
        case "timer":
            return printable(f"{step}: timer until {format_time(each.until)}")
        case "retry":
            state = f"{step}: retry at {format_time(each.until)} {_attempt(each, each.attempt + 1)}"
        case "operator":
            state = f"{step}: waiting for an operator, after {each.attempt} of {each.max_attempts} attempts"
        case "queue" if each.until:
            state = f"{step}: scheduled for {format_time(each.until)}"
        case "queue":
            state = f"{step}: waiting for a worker" + (f" {_attempt(each, each.attempt + 1)}" if each.error else "")
        case "running":
            state = f"{step}: running" + (f" {_attempt(each, each.attempt)}" if each.attempt > 1 else "")
            if (progress := format_progress(each.progress)) is not None:
                state = f"{state}, {progress}"
        case _:
            assert_never(each.kind)
    return printable(f"{state}: {each.error}" if each.error else state)


def describe_failure(error: Mapping[str, Any] | None) -> str | None:
    """Describe why an instance failed or was cancelled; None if it did not, or without a reason.

    describe_failure({"step": "ship", "reason": "refused", "type": "ConnectionError", "attempt": 5})
    # ship failed on attempt 5: ConnectionError: refused
    """
    if error is None:
        return None
    reason = str(error.get("reason", "no reason given"))
    if "step" not in error:
        return reason
    kind = error.get("type", "Error")
    attempt = f" on attempt {error['attempt']}" if "attempt" in error else ""
    return f"{error['step']} failed{attempt}: {reason if kind == 'Error' else f'{kind}: {reason}'}"


def format_elapsed(duration: timedelta) -> str:
    """Return a duration in its two largest units.

    format_elapsed(timedelta(seconds=125))    # "2m 5s"
    """
    seconds = max(duration.total_seconds(), 0.0)
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 59.95:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes}m" if hours < 24 else f"{hours // 24}d {hours % 24}h"


def compact_json(value: Any, limit: int) -> str:
    """Return a value as one line of JSON of at most `limit` characters, or the key id of an encrypted value."""
    key = encryption_key_id(value)
    if key is not None:
        return f"(encrypted with key {key})" if key else "(encrypted)"
    return truncate(json.dumps(value, ensure_ascii=False), limit)


def truncate(text: str, limit: int) -> str:
    """Return text in one line of at most `limit` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _attempt(each: WaitingFor, number: int) -> str:
    return f"(attempt {number} of {each.max_attempts})" if each.max_attempts else f"(attempt {number})"
