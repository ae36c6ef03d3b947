"""Send signals to instances, now or later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pgflow.database import files
from pgflow.database.statement import Statement

__all__ = ["SendDueResult", "decode_scheduled", "schedule", "send", "send_due", "send_version", "unschedule"]


@dataclass(frozen=True, slots=True)
class SendDueResult:
    """The queues in which waits ended, how many signals were sent, and in how many seconds the next one is due."""

    queues: Sequence[str]
    signals: int
    next_due: float | None


def send(
    schema: str, *, workflow: str, value: str, event: str, payload: str | None, step: str | None, notify: bool
) -> Statement[str]:
    """Send a signal; `payload` is JSON text. Returns "delivered" if it ended a wait, "kept" if the mailbox holds it."""
    params = {"workflow": workflow, "value": value, "event": event, "payload": payload, "step": step, "notify": notify}
    query = files.load("queries/signal/send.sql", schema)
    return Statement("signal/send", query, params, lambda rows: str(rows[0][0]), prepare=True)


def send_version(
    schema: str,
    *,
    workflow: str,
    version: int,
    value: str,
    event: str,
    payload: str | None,
    step: str | None,
    notify: bool,
) -> Statement[str]:
    """Send a signal to the newest run of a value in one version; returns the same as `send`."""
    params = {
        "workflow": workflow,
        "version": version,
        "value": value,
        "event": event,
        "payload": payload,
        "step": step,
        "notify": notify,
    }
    query = files.load("queries/signal/send_version.sql", schema)
    return Statement("signal/send_version", query, params, lambda rows: str(rows[0][0]))


def schedule(
    schema: str,
    *,
    workflow: str,
    version: int | None,
    value: str,
    step: str,
    delay: timedelta,
    event: str | None,
    payload: str | None,
) -> Statement[tuple[int, int, datetime]]:
    """Schedule a signal to a step; `payload` is JSON text. Returns the run, the signal's id and when it is due."""
    params: dict[str, Any] = {
        "workflow": workflow,
        "version": version,
        "value": value,
        "step": step,
        "delay": delay.total_seconds(),
        "event": event,
        "payload": payload,
    }
    query = files.load("queries/signal/schedule.sql", schema)
    return Statement("signal/schedule", query, params, lambda rows: (rows[0][0], rows[0][1], rows[0][2]))


def decode_scheduled(answer: Any) -> tuple[int, int, datetime]:
    """Return the result of an earlier `schedule` with the same idempotency key, from its recorded answer."""
    return answer["run"], answer["id"], datetime.fromisoformat(answer["due_at"])


def unschedule(schema: str, id: int) -> Statement[bool]:  # noqa: A002 -- "id" is the word for it in all of the API
    """Cancel a scheduled signal; returns whether it was pending."""
    query = files.load("queries/signal/unschedule.sql", schema)
    return Statement("signal/unschedule", query, {"id": id}, lambda rows: bool(rows[0][0]))


def send_due(schema: str, limit: int = 200) -> Statement[SendDueResult]:
    """Send at most `limit` scheduled signals that are due."""
    query = files.load("queries/signal/send_due.sql", schema)
    return Statement("signal/send_due", query, {"limit": limit}, lambda rows: SendDueResult(*rows[0]), prepare=True)
