"""Start, cancel, retry, read, list, put and delete instances."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from psycopg.types.numeric import Int8

from pgflow.core.models.filters import Filters
from pgflow.core.models.instance import UNSAVED, Entry, Instance, PendingSignal, Started
from pgflow.core.values.names import TELEMETRY
from pgflow.database import files
from pgflow.database.arrays import Texts
from pgflow.database.statement import Row, Statement
from pgflow.store import instance_rows

__all__ = [
    "Expired",
    "PruneResult",
    "cancel",
    "cancel_version",
    "complete_step",
    "decode_started",
    "delete",
    "end_expired",
    "fail_step",
    "find",
    "get",
    "list",
    "list_by_output",
    "prune_orphans",
    "put",
    "retry",
    "retry_step",
    "retry_version",
    "start",
    "status",
    "workflows",
]

Builtin = list  # this module's `list` is the verb
LIKE_SPECIAL = re.compile(r"[\\%_]")  # characters that a pattern of `like` must escape


def start(
    schema: str,
    *,
    workflow: str,
    values: Sequence[str],
    inputs: Sequence[str | None],
    version: int | None,
    at: datetime | None,
    delay: timedelta | None,
    tags: Sequence[str],
    metadata: Mapping[str, Any],
    priority: int | None,
    expires_in: timedelta | None = None,
    deadline: timedelta | None = None,
    notify: bool,
    keys: Sequence[str | None] | None = None,
    key: str | None = None,
    call: str | None = None,
) -> Statement[Builtin[Started]]:
    """Start an instance for each value; `inputs` are JSON texts, None for no input.

    `keys` are partition keys; without them they are taken from the inputs. `key` is an idempotency key that the
    statement claims, for the `call`: see `request.run_once`.

    A value whose key is active returns created=False.
    """
    params = {
        "workflow": workflow,
        "values": Texts(values),
        "inputs": Texts(inputs),
        "version": version,
        "at": at,
        "delay": delay.total_seconds() if delay is not None else None,
        "tags": Texts(tags),
        "metadata": json.dumps(dict(metadata)) if metadata else "{}",
        "priority": priority,
        "expires_in": None if expires_in is None else expires_in.total_seconds(),
        "deadline": None if deadline is None else deadline.total_seconds(),
        "notify": notify,
        "keys": None if keys is None else Texts(keys),
        "key": key,
        "call": call,
    }
    query = files.load("queries/instance/start.sql", schema)
    return Statement("instance/start", query, params, _started, prepare=True)


def _started(rows: Sequence[Row]) -> Builtin[Started]:
    return [Started(id=business_id, run=run, created=created) for _, run, business_id, created in rows]


def decode_started(answer: Any) -> Builtin[Started]:
    """Return the result of an earlier start with the same idempotency key, from its recorded answer."""
    rows = zip(answer["ids"], answer["runs"], answer["created"], strict=True)
    return [Started(id=business_id, run=run, created=created) for business_id, run, created in rows]


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
    """Retry the newest run of a value, which has failed."""
    params = {"workflow": workflow, "value": value, "notify": notify}
    return Statement("instance/retry", files.load("queries/instance/retry.sql", schema), params, lambda rows: None)


def retry_version(schema: str, *, workflow: str, version: int, value: str, notify: bool) -> Statement[None]:
    """Retry the newest run of a value in one version, which has failed."""
    params = {"workflow": workflow, "version": version, "value": value, "notify": notify}
    query = files.load("queries/instance/retry_version.sql", schema)
    return Statement("instance/retry_version", query, params, lambda rows: None)


def retry_step(
    schema: str, *, workflow: str, value: str, step: str, version: int | None = None, notify: bool
) -> Statement[None]:
    """Retry a step that waits for an operator, of the newest run of a value."""
    params = {"workflow": workflow, "value": value, "version": version, "step": step, "notify": notify}
    query = files.load("queries/instance/retry_step.sql", schema)
    return Statement("instance/retry_step", query, params, lambda rows: None)


def complete_step(
    schema: str,
    *,
    workflow: str,
    value: str,
    step: str,
    event: str | None,
    output: str | None,
    version: int | None = None,
    notify: bool,
) -> Statement[None]:
    """Complete a step that waits for an operator; `output` is JSON text, None for no output."""
    params = {
        "workflow": workflow,
        "value": value,
        "version": version,
        "step": step,
        "event": event,
        "output": output,
        "notify": notify,
    }
    query = files.load("queries/instance/complete_step.sql", schema)
    return Statement("instance/complete_step", query, params, lambda rows: None)


def fail_step(
    schema: str,
    *,
    workflow: str,
    value: str,
    step: str,
    reason: str | None,
    version: int | None = None,
    notify: bool,
) -> Statement[None]:
    """Fail a step that waits for an operator, and its instance."""
    params = {
        "workflow": workflow,
        "value": value,
        "version": version,
        "step": step,
        "reason": reason,
        "notify": notify,
    }
    query = files.load("queries/instance/fail_step.sql", schema)
    return Statement("instance/fail_step", query, params, lambda rows: None)


class Expired(NamedTuple):
    """An instance that was ended because its time was over; `age` is in seconds.

    A task has no run and no version; `id` is then such as "job 17".
    """

    run: int | None
    id: str
    workflow: str
    version: int | None
    status: str
    reason: str
    age: float | None


def end_expired(schema: str, limit: int) -> Statement[Sequence[Expired]]:
    """End instances past their deadline, and those that were not started in time, at most `limit` of each."""
    query = files.load("queries/instance/end_expired.sql", schema)
    return Statement(
        "instance/end_expired", query, {"limit": limit}, lambda rows: [*map(Expired._make, rows)], prepare=True
    )


def get(schema: str, *, workflow: str, value: str, version: int | None = None) -> Statement[Instance]:
    """Read the newest run of a value, in one version or any, with its history and waits."""
    params = {"workflow": workflow, "value": value, "version": version}
    return Statement(
        "instance/get",
        files.load("queries/instance/get.sql", schema),
        params,
        lambda rows: instance_rows.instance(rows[0]),
    )


def list(  # noqa: A001 -- path is name: instance/list.sql
    schema: str, filters: Filters, *, whole: bool = False
) -> Statement[Builtin[Instance]]:
    """List the instances that match all filters, in order; `whole` adds their histories and signals."""
    if filters.steps:
        return list_by_output(schema, filters, whole=whole)
    query = files.load("queries/instance/list.sql", schema)
    return Statement("instance/list", query, _params(filters, whole), _instances, prepare=False)


def list_by_output(schema: str, filters: Filters, *, whole: bool) -> Statement[Builtin[Instance]]:
    """`list` with filters on outputs."""
    (step, output), *others = filters.steps
    more = {"step": step, "output": output, "steps": json.dumps({key: json.loads(part) for key, part in others})}
    query = files.load("queries/instance/list_by_output.sql", schema)
    params = {**_params(filters, whole), **more}
    return Statement("instance/list_by_output", query, params, _instances, prepare=False)


def _params(filters: Filters, whole: bool) -> dict[str, Any]:
    several = filters.statuses is not None and len(filters.statuses) != 1
    return {
        "whole": whole,
        "workflow": filters.workflow,
        "family": None if filters.family is None else LIKE_SPECIAL.sub(r"\\\g<0>", filters.family) + "%",
        "version": filters.version,
        "id": filters.id,
        "status": None if several or filters.statuses is None else filters.statuses[0],
        "statuses": Builtin(filters.statuses or ()) if several else None,
        "before": filters.before,
        "after": filters.after,
        "tags": Builtin(filters.tags) or None,
        "metadata": filters.metadata,
        "input": filters.input,
        "oldest": filters.oldest,
        "limit": filters.limit,
    }


def put(
    schema: str, each: Instance, *, unique_key: str | None, due: datetime | None, queue: str, notify: bool
) -> Statement[int]:
    """Replace the stored instance of a run with a validated one; an active instance continues, not before `due`.

    Returns the run; run 0 creates a new one.
    """
    metadata = {**each.metadata, **({TELEMETRY: dict(each.telemetry)} if each.telemetry else {})}
    params = {
        "run": each.run or None,
        "id": each.id,
        "workflow": each.workflow,
        "version": each.version,
        "status": each.status,
        "unique_key": unique_key,
        "input": json.dumps(each.input),
        "tags": Builtin(each.tags),
        "metadata": json.dumps(metadata),
        "error": None if each.error is None else json.dumps(dict(each.error)),
        "created_at": None if each.created_at == UNSAVED else each.created_at,
        "finished_at": each.finished_at,
        "history": json.dumps([_record(entry) for entry in each.history]),
        "due": due,
        "queue": queue,
        "notify": notify,
        "signals": json.dumps([_signal(signal) for signal in each.signals]),
        "step_configs": json.dumps({step: dict(config) for step, config in each.step_configs.items()}),
        "deadline": each.deadline,
    }
    query = files.load("queries/instance/put.sql", schema)
    return Statement("instance/put", query, params, lambda rows: int(rows[0][0]))


def find(
    schema: str,
    document: Mapping[str, Any],
    *,
    oldest: bool = False,
    before: int | None = None,
    after: int | None = None,
    limit: int | None = None,
) -> Statement[Builtin[Instance]]:
    """List the instances that match a filter, without their histories; `document` is that of a `Query`."""
    params = {"filter": json.dumps(document), "oldest": oldest, "before": before, "after": after, "limit": limit}
    query = files.load("queries/instance/find.sql", schema)
    return Statement("instance/find", query, params, _instances)


@dataclass(frozen=True, slots=True)
class PruneResult:
    """How many rows were deleted, in how many seconds. `last` is where to continue, None after the last page."""

    deleted: int
    last: int | None
    seconds: float = 0.0


def prune_orphans(schema: str, *, after: int = 0, limit: int = 5000) -> Statement[PruneResult]:
    """Delete orphaned rows among the `limit` ones of each table after run `after`; pass `last` on for the next page."""
    params = {"after": Int8(after), "limit": limit}
    query = files.load("queries/instance/prune_orphans.sql", schema)
    return Statement("instance/prune_orphans", query, params, lambda rows: PruneResult(*rows[0]))


def delete(
    schema: str,
    *,
    id: str,  # noqa: A002 -- "id" is the word for it in all of the API
    workflow: str | None = None,
    version: int | None = None,
    notify: bool,
) -> Statement[int]:
    """Delete all runs of a business id, of one workflow and version if given; returns how many."""
    params = {"id": id, "workflow": workflow, "version": version, "notify": notify}
    query = files.load("queries/instance/delete.sql", schema)
    return Statement("instance/delete", query, params, lambda rows: int(rows[0][0]))


def workflows(schema: str, *, id: str) -> Statement[Builtin[str]]:  # noqa: A002 -- as in delete
    """List the workflows that have runs of a business id."""
    query = files.load("queries/instance/workflows.sql", schema)
    return Statement("instance/workflows", query, {"id": id}, lambda rows: [name for (name,) in rows])


def _record(entry: Entry) -> dict[str, Any]:
    return {
        "step": entry.step,
        "event": entry.event,
        "targets": entry.targets,
        "output": entry.output,
        "metadata": dict(entry.metadata) or None,
        "errors": [dict(error) for error in entry.errors] or None,
        "attempt": entry.attempt,
        "worker": entry.worker,
        "started_at": (entry.at - entry.duration).isoformat(),
        "at": entry.at.isoformat(),
    }


def _signal(signal: PendingSignal) -> dict[str, Any]:
    return {
        "event": signal.event,
        "step": signal.step,
        "at": signal.at.isoformat(),
        "scheduled": signal.id is not None,
        **({"payload": signal.payload} if signal.has_payload else {}),
    }


def _instances(rows: Sequence[Row]) -> Builtin[Instance]:
    return [instance_rows.instance(row) for row in rows]


def status(schema: str, run: int) -> Statement[str | None]:
    """Read the status of a run; None if it does not exist."""
    query = files.load("queries/instance/status.sql", schema)
    return Statement("instance/status", query, {"run": run}, lambda rows: str(rows[0][0]) if rows else None)
