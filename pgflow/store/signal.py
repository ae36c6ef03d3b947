"""Send signals to instances."""

from __future__ import annotations

from pgflow.store import files
from pgflow.store.statement import Statement

__all__ = ["send", "send_version"]


def send(
    schema: str, *, workflow: str, value: str, event: str, payload: str | None, step: str | None, notify: bool
) -> Statement[str]:
    """Send a signal, with JSON text as its payload; returns "delivered" to a wait, or "kept" for one still to come."""
    params = {"workflow": workflow, "value": value, "event": event, "payload": payload, "step": step, "notify": notify}
    return Statement("signal/send", files.load("queries/signal/send.sql", schema), params, lambda rows: str(rows[0][0]))


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
    """Send a signal to the newest run of a value in one version; returns what `send` does."""
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
