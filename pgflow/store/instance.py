"""Start, cancel, retry, read and list instances."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from pgflow.core.instance import Entry, Instance, Kind, Started, WaitingFor
from pgflow.core.names import TELEMETRY
from pgflow.core.payload import decode
from pgflow.store import files
from pgflow.store.statement import Row, Statement

__all__ = ["cancel", "cancel_version", "get", "list", "retry", "retry_version", "runs", "start"]

Builtin = list  # this module's `list` is the verb


def start(
    schema: str,
    *,
    workflow: str,
    values: Sequence[str],
    inputs: Sequence[str],
    version: int | None,
    at: datetime | None,
    delay: timedelta | None,
    tags: Sequence[str],
    metadata: Mapping[str, Any],
    priority: int | None,
    notify: bool,
) -> Statement[Builtin[Started]]:
    """Start an instance for each value, with JSON text as its input.

    One whose key is active comes back with created=False.
    """
    params = {
        "workflow": workflow,
        "values": Builtin(values),
        "inputs": Builtin(inputs),
        "version": version,
        "at": at,
        "delay": delay.total_seconds() if delay is not None else None,
        "tags": Builtin(tags),
        "metadata": json.dumps(dict(metadata)),
        "priority": priority,
        "notify": notify,
    }
    return Statement("instance/start", files.load("queries/instance/start.sql", schema), params, _started)


def _started(rows: Sequence[Row]) -> Builtin[Started]:
    return [Started(id=business_id, run=run, created=created) for _, run, business_id, created in rows]


def cancel(schema: str, *, workflow: str, value: str, reason: str | None, notify: bool) -> Statement[None]:
    """Cancel the newest run of a value."""
    params = {"workflow": workflow, "value": value, "reason": reason, "notify": notify}
    return Statement("instance/cancel", files.load("queries/instance/cancel.sql", schema), params, lambda rows: None)


def cancel_version(
    schema: str, *, workflow: str, version: int, value: str, reason: str | None, notify: bool
) -> Statement[None]:
    """Cancel the newest run of a value in one version."""
    params = {"workflow": workflow, "version": version, "value": value, "reason": reason, "notify": notify}
    query = files.load("queries/instance/cancel_version.sql", schema)
    return Statement("instance/cancel_version", query, params, lambda rows: None)


def retry(schema: str, *, workflow: str, value: str, notify: bool) -> Statement[None]:
    """Take the newest run of a value up again after it failed."""
    params = {"workflow": workflow, "value": value, "notify": notify}
    return Statement("instance/retry", files.load("queries/instance/retry.sql", schema), params, lambda rows: None)


def retry_version(schema: str, *, workflow: str, version: int, value: str, notify: bool) -> Statement[None]:
    """Take the newest run of a value in one version up again after it failed."""
    params = {"workflow": workflow, "version": version, "value": value, "notify": notify}
    query = files.load("queries/instance/retry_version.sql", schema)
    return Statement("instance/retry_version", query, params, lambda rows: None)


def get(schema: str, *, workflow: str, value: str, version: int | None = None) -> Statement[Instance]:
    """Read the newest run of a value, in one version or any, with its history and what it waits for."""
    params = {"workflow": workflow, "value": value, "version": version}
    return Statement(
        "instance/get", files.load("queries/instance/get.sql", schema), params, lambda rows: _whole(rows[0])
    )


def list(  # noqa: A001 -- path is name: instance/list.sql
    schema: str,
    *,
    workflow: str | None,
    statuses: Sequence[str] | None,
    before: int | None,
    limit: int,
    version: int | None = None,
) -> Statement[Builtin[Instance]]:
    """Read a page of instances, of one version or any, newest first, without their histories.

    Pass the last one's run as `before` for the next page.
    """
    params = {
        "workflow": workflow,
        "version": version,
        "statuses": Builtin(statuses) if statuses is not None else None,
        "before": before,
        "limit": limit,
    }
    return Statement(
        "instance/list",
        files.load("queries/instance/list.sql", schema),
        params,
        _page,
    )


def runs(
    schema: str,
    *,
    workflow: str,
    id: str,  # noqa: A002 -- "id" is the word for it in all of the API
    version: int | None,
    before: int | None,
    limit: int,
) -> Statement[Builtin[Instance]]:
    """Read a page of the runs of one business id, in one version or any, newest first, without their histories."""
    params = {"workflow": workflow, "id": id, "version": version, "before": before, "limit": limit}
    return Statement("instance/runs", files.load("queries/instance/runs.sql", schema), params, _page)


def _page(rows: Sequence[Row]) -> Builtin[Instance]:
    return [_instance(row, waiting_for=tuple(_waiting(token) for token in decode(row[11] or "[]"))) for row in rows]


def _whole(row: Row) -> Instance:
    entries = decode(row[11] or "[]")
    metadata = _metadata(row[6])
    for entry in entries:
        metadata.update(entry["metadata"] or {})
    return _instance(
        row,
        metadata=metadata,
        steps={entry["step"]: {} if entry["output"] is None else entry["output"] for entry in entries},
        history=tuple(_entry(entry) for entry in entries),
        waiting_for=tuple(_waiting(token) for token in decode(row[12] or "[]")),
    )


def _instance(row: Row, **more: Any) -> Instance:
    run, business_id, workflow, version, status, text, metadata, tags, error, created_at, finished_at = row[:11]
    known = {
        "metadata": _metadata(metadata), "steps": {}, "history": (), "waiting_for": (), **more,
    }  # fmt: skip
    return Instance(
        run=run,
        id=business_id,
        workflow=workflow,
        version=version,
        status=status,
        input=decode(text),
        tags=tuple(tags),
        error=decode(error) if error is not None else None,
        created_at=created_at,
        finished_at=finished_at,
        **known,
    )


def _metadata(text: str) -> dict[str, Any]:
    metadata: dict[str, Any] = decode(text)
    metadata.pop(TELEMETRY, None)  # for events, not for the instance's readers
    return metadata


def _entry(entry: Mapping[str, Any]) -> Entry:
    return Entry(
        step=entry["step"],
        event=entry["event"],
        at=datetime.fromisoformat(entry["at"]),
        attempt=entry["attempt"],
        output={} if entry["output"] is None else entry["output"],
        metadata=entry["metadata"] or {},
        duration=timedelta(seconds=entry["seconds"]),
        worker=entry["worker"],
        errors=tuple(entry["errors"] or ()),
    )


def _waiting(token: Mapping[str, Any]) -> WaitingFor:
    events = tuple(token["awaits"] or ())
    until = datetime.fromisoformat(token["run_at"]) if token["run_at"] is not None else None
    errors = token["errors"] or []
    kind: Kind
    match token["state"]:
        case "running":
            kind, until = "running", None
        case "parked":
            kind = "timer" if until is not None and events == ("timeout",) else "signal"
        case "scheduled":
            kind = "retry" if errors else "queue"
        case _:
            kind, until = "queue", None
    return WaitingFor(
        step=token["step"],
        kind=kind,
        events=events,
        until=until,
        attempt=token["attempt"],
        error=_reason(errors[-1]) if errors else None,
        max_attempts=token["max_attempts"],
    )


def _reason(error: Mapping[str, Any]) -> str:
    """What an attempt failed with; `Error` is what a step returns to say so in its own words."""
    kind = error.get("type", "Error")
    return str(error["reason"]) if kind == "Error" else f"{kind}: {error['reason']}"
