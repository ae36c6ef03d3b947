"""One instance by its run, and pages of instances: what the dashboard reads and does."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from psycopg.types.numeric import Int8

from pgflow.database import files
from pgflow.database.statement import Statement
from pgflow.store.run_rows import Listed, LiveJob, Other, Recorded, Run, SentSignal

__all__ = [
    "cancel",
    "complete_step",
    "count",
    "fail_step",
    "get",
    "jobs",
    "others",
    "page",
    "results",
    "retry",
    "retry_step",
    "run_now",
    "signal",
    "signals",
    "states",
]

ERRORS_SIZE = 1_000_000  # characters of the errors of one step; more is left out


def page(
    schema: str,
    document: Mapping[str, Any],
    *,
    before: int | None = None,
    after: int | None = None,
    oldest: bool = False,
    limit: int,
) -> Statement[list[Listed]]:
    """List a page of the instances that match a filter; `document` is that of a `Query`."""
    params = {"filter": json.dumps(document), "before": before, "after": after, "oldest": oldest, "limit": limit}
    query = files.load("queries/run/page.sql", schema)
    return Statement("run/page", query, params, lambda rows: [*map(Listed.of, rows)])


def count(schema: str, document: Mapping[str, Any], *, limit: int) -> Statement[int]:
    """Count the instances that match a filter, up to `limit`."""
    params = {"filter": json.dumps(document), "limit": limit}
    return Statement("run/count", files.load("queries/run/count.sql", schema), params, lambda rows: int(rows[0][0]))


def states(schema: str, *, limit: int) -> Statement[dict[str, int]]:
    """Count the instances of each status, up to `limit` each."""
    query = files.load("queries/run/states.sql", schema)
    return Statement("run/states", query, {"limit": limit}, lambda rows: {str(row[0]): int(row[1]) for row in rows})


def get(schema: str, run: int, *, size: int) -> Statement[Run | None]:
    """Read an instance, `size` characters of its values; None if there is none."""
    query = files.load("queries/run/get.sql", schema)
    params = {"run": Int8(run), "size": size}
    return Statement("run/get", query, params, lambda rows: Run.of(rows[0]) if rows else None)


def results(schema: str, run: int, *, size: int, limit: int) -> Statement[list[Recorded]]:
    """List the results of an instance's steps, `size` characters of each output."""
    params = {"run": Int8(run), "size": size, "errors_size": ERRORS_SIZE, "limit": limit}
    query = files.load("queries/run/results.sql", schema)
    return Statement("run/results", query, params, lambda rows: [*map(Recorded.of, rows)])


def jobs(schema: str, run: int, *, limit: int) -> Statement[list[LiveJob]]:
    """List the live jobs of an instance."""
    params = {"run": Int8(run), "errors_size": ERRORS_SIZE, "limit": limit}
    query = files.load("queries/run/jobs.sql", schema)
    return Statement("run/jobs", query, params, lambda rows: [*map(LiveJob.of, rows)])


def signals(schema: str, run: int, *, size: int, limit: int) -> Statement[list[SentSignal]]:
    """List the signals of an instance, scheduled ones included, `size` characters of each payload."""
    params = {"run": Int8(run), "size": size, "limit": limit}
    query = files.load("queries/run/signals.sql", schema)
    return Statement("run/signals", query, params, lambda rows: [*map(SentSignal.of, rows)])


def others(schema: str, business_id: str, *, limit: int) -> Statement[list[Other]]:
    """List the runs of a business id, newest first."""
    query = files.load("queries/run/others.sql", schema)
    params = {"id": business_id, "limit": limit}
    return Statement("run/others", query, params, lambda rows: [*map(Other.of, rows)])


def cancel(schema: str, run: int, *, reason: str | None) -> Statement[None]:
    """Cancel an instance. Raises `InstanceNotFound`, `NotActive`."""
    return _act("cancel", schema, run, reason=reason)


def retry(schema: str, run: int) -> Statement[None]:
    """Retry a failed instance. Raises `InstanceNotFound`, `NotRetryable`, `AlreadyRunning`."""
    return _act("retry", schema, run)


def retry_step(schema: str, run: int, *, step: str) -> Statement[None]:
    """Retry a step that waits for an operator. Raises `UnknownStep`, `NotActive`."""
    return _act("retry_step", schema, run, step=step)


def complete_step(schema: str, run: int, *, step: str, event: str | None, output: str | None) -> Statement[None]:
    """Complete a step that waits for an operator; `output` is JSON text. Raises as `retry_step`, `UndeclaredEvent`."""
    return _act("complete_step", schema, run, step=step, event=event, output=output)


def fail_step(schema: str, run: int, *, step: str, reason: str | None) -> Statement[None]:
    """Fail a step that waits for an operator. Raises as `retry_step`."""
    return _act("fail_step", schema, run, step=step, reason=reason)


def run_now(schema: str, run: int, *, step: str) -> Statement[None]:
    """End a timer, a back-off or a delay of a step now. Raises `UnknownStep`, `NotActive`."""
    return _act("run_now", schema, run, step=step)


def signal(schema: str, run: int, *, event: str, payload: str | None, step: str | None) -> Statement[str]:
    """Send a signal; returns "delivered" or "kept". `payload` is JSON text."""
    params = {"run": Int8(run), "event": event, "payload": payload, "step": step}
    return Statement("run/signal", files.load("queries/run/signal.sql", schema), params, lambda rows: str(rows[0][0]))


def _act(verb: str, schema: str, run: int, **params: Any) -> Statement[None]:
    def nothing(rows: Sequence[Any]) -> None: ...

    query = files.load(f"queries/run/{verb}.sql", schema)
    return Statement(f"run/{verb}", query, {"run": Int8(run), **params}, nothing)
