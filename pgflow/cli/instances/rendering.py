"""Show an instance: in words that a person understands, or as an object of a JSON document."""

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, assert_never

from pgflow.cli.output import moment, printable
from pgflow.core.models.instance import Entry, Instance, PendingSignal, WaitingFor
from pgflow.core.values.codec import encryption_key_id

__all__ = ["compact", "entry_record", "failure", "pending", "record", "shorten", "signal_record", "took", "wait"]


def record(instance: Instance) -> dict[str, Any]:
    """Return what list and show tell of an instance in their documents; numbers that identify are strings."""
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
        "waiting_for": [_wait_record(each) for each in instance.waiting_for],
        "step_configs": instance.step_configs,
        "error": instance.error,
        "unreadable": instance.unreadable,
    }


def entry_record(entry: Entry) -> dict[str, Any]:
    """Return what show tells of a completed step in its document."""
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
    """Return what show tells of a signal that no step has taken in its document."""
    return {
        "event": each.event,
        "step": each.step,
        "payload": each.payload,
        "has_payload": each.has_payload,
        "at": each.at,
        "id": None if each.id is None else str(each.id),
    }


def pending(each: PendingSignal) -> str:
    """Return in words that a signal is kept, or will be sent."""
    event, step = printable(each.event), None if each.step is None else printable(each.step)
    if each.id is None:
        return f"the signal {event} is kept until {step or 'a step'} waits for it"
    return f"the signal {event} is sent to {step} at {moment(each.at)}; to call it off: pgflow unschedule {each.id}"


def _wait_record(each: WaitingFor) -> dict[str, Any]:
    return {
        "step": each.step,
        "kind": each.kind,
        "events": each.events,
        "until": each.until,
        "attempt": each.attempt,
        "max_attempts": each.max_attempts,
        "error": each.error,
    }


def wait(each: WaitingFor) -> str:
    """Say what one active step waits for.

    wait(WaitingFor("charge", "signal", ("paid",)))    # charge waits for a signal: paid
    """
    step = each.step or "the instance"
    match each.kind:
        case "signal":
            until = f", at the latest until {moment(each.until)}" if each.until else ""
            return printable(f"{step} waits for a signal: {' or '.join(each.events) or 'any'}{until}")
        case "timer":
            return f"{step}: timer until {moment(each.until)}"
        case "retry":
            said = f"{step} is tried again at {moment(each.until)} {_attempt(each, each.attempt + 1)}"
        case "queue" if each.until:
            said = f"{step} starts at {moment(each.until)}"
        case "queue":
            said = f"{step} waits for a worker" + (f" {_attempt(each, each.attempt + 1)}" if each.error else "")
        case "running":
            said = f"{step} runs" + (f" {_attempt(each, each.attempt)}" if each.attempt > 1 else "")
        case _:
            assert_never(each.kind)
    return printable(f"{said}: {each.error}" if each.error else said)


def failure(error: Mapping[str, Any] | None) -> str | None:
    """Say why an instance ended before its time, None when it did not or nobody gave a reason.

    failure({"step": "ship", "reason": "refused", "type": "ConnectionError", "attempt": 5})
    # ship failed in attempt 5: ConnectionError: refused
    """
    if error is None:
        return None
    reason = str(error.get("reason", "no reason was given"))
    if "step" not in error:
        return reason
    kind = error.get("type", "Error")
    attempt = f" in attempt {error['attempt']}" if "attempt" in error else ""
    return f"{error['step']} failed{attempt}: {reason if kind == 'Error' else f'{kind}: {reason}'}"


def took(duration: timedelta) -> str:
    """Return a duration in its two largest units.

    took(timedelta(seconds=125))    # "2m 5s"
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


def compact(value: Any, limit: int) -> str:
    """Return a value as JSON in one line of at most `limit` characters; of a sealed one, with which key."""
    key = encryption_key_id(value)
    if key is not None:
        return f"(sealed with key {key})" if key else "(sealed)"
    return shorten(json.dumps(value, ensure_ascii=False), limit)


def shorten(text: str, limit: int) -> str:
    """Return text in one line of at most `limit` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _attempt(each: WaitingFor, number: int) -> str:
    return f"(attempt {number} of {each.max_attempts})" if each.max_attempts else f"(attempt {number})"
