"""Register, enqueue, cancel, retry and read tasks."""

from __future__ import annotations

import json
from builtins import list as Builtin
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from psycopg.types.numeric import Int8

from pgflow.core.definition.unique_task import UniqueKey
from pgflow.core.models.task import Enqueued, TaskFilters, TaskInstance
from pgflow.database import files
from pgflow.database.arrays import Bigints, Texts
from pgflow.database.statement import Row, Statement
from pgflow.store import task_rows
from pgflow.store.task_rows import Listed

__all__ = [
    "Listed",
    "StoredTask",
    "cancel",
    "channel",
    "complete",
    "count",
    "decode_enqueued",
    "delete",
    "enqueue",
    "fail",
    "find",
    "get",
    "list",
    "names",
    "notify_ended",
    "page",
    "poll_ended",
    "register",
    "retry",
    "states",
    "update",
]

LIVE = frozenset({"pending", "running", "waiting"})


@dataclass(frozen=True, slots=True)
class StoredTask:
    """What SQL needs to know of a task: its name and its options, as JSON."""

    name: str
    options: Mapping[str, Any]

    @property
    def text(self) -> str:
        """The options as JSON text, always the same for the same options."""
        return json.dumps(dict(self.options), sort_keys=True)


def register(schema: str, tasks: Sequence[StoredTask]) -> Statement[int]:
    """Store tasks, each in place of an earlier one with its name; returns how many were new or have changed."""
    params = {
        "names": Texts(each.name for each in tasks),
        "hashes": Texts(sha256(each.text.encode()).hexdigest() for each in tasks),
        "options": Texts(each.text for each in tasks),
    }
    query = files.load("queries/task/register.sql", schema)
    return Statement("task/register", query, params, lambda rows: int(rows[0][0]))


def enqueue(
    schema: str,
    *,
    task: str,
    args: Sequence[str],
    at: datetime | None,
    delay: timedelta | None,
    queue: str | None,
    priority: int | None,
    max_attempts: int | None,
    tags: Sequence[str],
    metadata: Mapping[str, Any],
    expires_in: timedelta | None = None,
    notify: bool,
    unique: UniqueKey | None = None,
    partition_keys: Sequence[str | None] | None = None,
    key: str | None = None,
    call: str | None = None,
) -> Statement[Builtin[Enqueued]]:
    """Enqueue a task once for each of `args`, which are JSON objects as text.

    Without `partition_keys` they are taken from the arguments. `key` is an idempotency key that the statement claims,
    for the `call`: see `request.run_once`.
    """
    params = {
        "task": task,
        "args": Texts(args),
        "at": at,
        "delay": delay.total_seconds() if delay is not None else None,
        "queue": queue,
        "priority": priority,
        "max_attempts": max_attempts,
        "tags": Texts(tags),
        "metadata": json.dumps(dict(metadata)) if metadata else "{}",
        "expires_in": None if expires_in is None else expires_in.total_seconds(),
        "notify": notify,
        "keys": None if unique is None else Texts(unique.keys),
        "uniqueness": None if unique is None else json.dumps(_uniqueness(unique)),
        "partition_keys": None if partition_keys is None else Texts(partition_keys),
        "key": key,
        "call": call,
    }
    query = files.load("queries/task/enqueue.sql", schema)
    return Statement("task/enqueue", query, params, _enqueued, prepare=True)


def _uniqueness(unique: UniqueKey) -> dict[str, Any]:
    return {"period": unique.period, "on_conflict": unique.on_conflict, "replace": unique.replace}


def _enqueued(rows: Sequence[Row]) -> Builtin[Enqueued]:
    return [Enqueued(number, created) for _, number, created in rows]


def decode_enqueued(answer: Any) -> Builtin[Enqueued]:
    """Return the result of an earlier enqueue with the same idempotency key, from its recorded answer."""
    return [Enqueued(number, created) for number, created in zip(answer["ids"], answer["created"], strict=True)]


def cancel(
    schema: str,
    *,
    id: int,  # noqa: A002 -- "id" is the word for it in all of the API
    task: str | None,
    reason: str | None,
    notify: bool,
) -> Statement[None]:
    """Cancel a task that has not ended; `task` None: of any name."""
    params = {"id": Int8(id), "task": task, "reason": reason, "notify": notify}
    return Statement("task/cancel", files.load("queries/task/cancel.sql", schema), params, _nothing)


def retry(schema: str, *, id: int, task: str | None, notify: bool) -> Statement[None]:  # noqa: A002 -- as in cancel
    """Run a failed or cancelled task once more, or a waiting one now."""
    params = {"id": Int8(id), "task": task, "notify": notify}
    return Statement("task/retry", files.load("queries/task/retry.sql", schema), params, _nothing)


def update(
    schema: str,
    *,
    id: int,  # noqa: A002 -- as in cancel
    task: str | None,
    queue: str | None,
    priority: int | None,
    at: datetime | None,
    delay: timedelta | None,
    notify: bool,
) -> Statement[None]:
    """Move a task that does not run to another queue, priority or time; None changes nothing."""
    params = {
        "id": Int8(id),
        "task": task,
        "queue": queue,
        "priority": priority,
        "at": at,
        "delay": delay.total_seconds() if delay is not None else None,
        "notify": notify,
    }
    return Statement("task/update", files.load("queries/task/update.sql", schema), params, _nothing)


def delete(schema: str, *, id: int, task: str | None) -> Statement[None]:  # noqa: A002 -- as in cancel
    """Delete a task that does not run."""
    params = {"id": Int8(id), "task": task}
    return Statement("task/delete", files.load("queries/task/delete.sql", schema), params, _nothing)


def complete(schema: str, *, id: int, task: str | None, output: str | None, notify: bool) -> Statement[None]:  # noqa: A002 -- as in cancel
    """Complete a task that waits for an operator; `output` is JSON text."""
    params = {"id": Int8(id), "task": task, "output": output, "notify": notify}
    return Statement("task/complete", files.load("queries/task/complete.sql", schema), params, _nothing)


def fail(schema: str, *, id: int, task: str | None, reason: str | None, notify: bool) -> Statement[None]:  # noqa: A002 -- as in cancel
    """Fail a task that waits for an operator."""
    params = {"id": Int8(id), "task": task, "reason": reason, "notify": notify}
    return Statement("task/fail", files.load("queries/task/fail.sql", schema), params, _nothing)


def get(schema: str, ids: Iterable[int]) -> Statement[Builtin[TaskInstance]]:
    """Read tasks by the ids of their jobs, live or ended; those that do not exist are left out."""
    query = files.load("queries/task/get.sql", schema)
    return Statement("task/get", query, {"ids": Bigints(ids)}, _instances, prepare=True)


def poll_ended(schema: str, waiter: str, ids: Iterable[int], seconds: float) -> Statement[Builtin[int]]:
    """Return which of these tasks have ended or do not exist; workers notify of the end of tasks for `seconds`."""
    params = {"waiter": waiter, "ids": Bigints(ids), "seconds": seconds}
    query = files.load("queries/task/poll_ended.sql", schema)
    return Statement("task/poll_ended", query, params, lambda rows: [number for (number,) in rows])


def channel(schema: str) -> Statement[str]:
    """Return the channel on which the ids of ended tasks are sent."""
    return Statement("task/channel", files.load("queries/task/channel.sql", schema), {}, lambda rows: str(rows[0][0]))


def notify_ended(schema: str, ids: Iterable[int]) -> Statement[None]:
    """Notify apps that wait of the tasks that have ended."""
    query = files.load("queries/task/notify_ended.sql", schema)
    return Statement("task/notify_ended", query, {"ids": Bigints(ids)}, _nothing)


def find(
    schema: str,
    document: Mapping[str, Any],
    *,
    oldest: bool = False,
    before: int | None = None,
    after: int | None = None,
    limit: int | None = None,
) -> Statement[Builtin[int]]:
    """List the ids of the tasks that match a filter, in order; `document` is that of a `Query`."""
    params = {"filter": json.dumps(document), "oldest": oldest, "before": before, "after": after, "limit": limit}
    query = files.load("queries/task/find.sql", schema)
    return Statement("task/find", query, params, lambda rows: [number for (number,) in rows])


def list(  # noqa: A001 -- path is name: task/list.sql
    schema: str, filters: TaskFilters, *, task: str | None = None
) -> Statement[Builtin[TaskInstance]]:
    """List the tasks that match all filters, in order of their ids; of one task, or of all."""
    statuses = filters.statuses
    params = {
        "task": task,
        "is_live": statuses is None or not LIVE.isdisjoint(statuses),
        "is_ended": statuses is None or not LIVE.issuperset(statuses),
        "status": statuses[0] if statuses is not None and len(statuses) == 1 else None,  # its index gives the order
        "statuses": None if statuses is None else Builtin(statuses),
        "queue": filters.queue,
        "before": filters.before,
        "after": filters.after,
        "tags": Builtin(filters.tags) or None,
        "args": filters.args,
        "oldest": filters.oldest,
        "limit": filters.limit,
    }
    query = files.load("queries/task/list.sql", schema)
    return Statement("task/list", query, params, _instances, prepare=False)


def names(schema: str) -> Statement[Builtin[str]]:
    """List the names of all registered tasks, in order."""
    query = files.load("queries/task/names.sql", schema)
    return Statement("task/names", query, {}, lambda rows: [name for (name,) in rows])


def states(schema: str, *, limit: int) -> Statement[dict[str, int | None]]:
    """Count the tasks of each status, up to `limit` each; None if so many other jobs are live that they hide them."""

    def counts(rows: Sequence[Row]) -> dict[str, int | None]:
        *live, is_cut, completed, failed, cancelled = rows[0]
        known = [None if is_cut and many < limit else many for many in live]
        ended = {"completed": completed, "failed": failed, "cancelled": cancelled}
        return {**dict(zip(("running", "waiting", "pending"), known, strict=True)), **ended}

    return Statement("task/states", files.load("queries/task/states.sql", schema), {"limit": limit}, counts)


def count(schema: str, document: Mapping[str, Any], *, limit: int) -> Statement[int]:
    """Count the tasks that match a filter, up to `limit`."""
    params = {"filter": json.dumps(document), "limit": limit}
    return Statement("task/count", files.load("queries/task/count.sql", schema), params, lambda rows: int(rows[0][0]))


def page(
    schema: str,
    document: Mapping[str, Any],
    *,
    oldest: bool = False,
    before: int | None = None,
    after: int | None = None,
    limit: int,
    size: int,
) -> Statement[Builtin[Listed]]:
    """Read a page of the tasks that match a filter, in order, with `size` bytes of arguments at most."""
    params = {
        "filter": json.dumps(document),
        "oldest": oldest,
        "before": before,
        "after": after,
        "limit": limit,
        "size": size,
    }
    query = files.load("queries/task/page.sql", schema)
    return Statement("task/page", query, params, lambda rows: [*map(task_rows.listed, rows)])


def _nothing(rows: Sequence[Row]) -> None:
    return None


def _instances(rows: Sequence[Row]) -> Builtin[TaskInstance]:
    return [*map(task_rows.task, rows)]
