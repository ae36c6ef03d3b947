"""Delete instances that ended too long ago, and read them before, for an archive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from pgflow.core.models.instance import Instance
from pgflow.core.models.task import TaskInstance
from pgflow.database import files
from pgflow.database.arrays import Bigints, Integers, Texts
from pgflow.database.statement import Row, Statement
from pgflow.store import instance_rows, task_rows
from pgflow.store.instance import PruneResult

__all__ = [
    "Ages",
    "Expired",
    "delete_archived",
    "delete_archived_tasks",
    "prune",
    "read_expired",
    "read_expired_tasks",
]


@dataclass(frozen=True, slots=True)
class Ages:
    """How long ago an instance of each status must have ended to be deleted; None: it is kept.

    `max_count` deletes the ended instances of a workflow that are more than that. With `overrides`, what a workflow
    declares itself takes precedence.
    """

    completed: timedelta | None = None
    failed: timedelta | None = None
    cancelled: timedelta | None = None
    max_count: int | None = None
    overrides: bool = False


@dataclass(frozen=True, slots=True)
class Expired:
    """A whole instance that will be deleted, and the revision at which it was read."""

    instance: Instance
    revision: int


def prune(schema: str, ages: Ages, *, limit: int = 500) -> Statement[PruneResult]:
    """Delete at most `limit` instances that ended too long ago; `last` is not None while there may be more."""
    query = files.load("queries/retention/prune.sql", schema)
    return Statement("retention/prune", query, _ages(ages, limit), partial(_pruned, limit))


def _pruned(limit: int, rows: Sequence[Row]) -> PruneResult:
    deleted, seconds = rows[0]
    return PruneResult(deleted, 0 if deleted >= limit else None, seconds)


def read_expired(schema: str, ages: Ages, *, limit: int = 100) -> Statement[list[Expired]]:
    """Read at most `limit` whole instances that ended too long ago."""
    query = files.load("queries/retention/read_expired.sql", schema)
    return Statement("retention/read_expired", query, _ages(ages, limit), _expired)


def _expired(rows: Sequence[Row]) -> list[Expired]:
    return [Expired(instance_rows.instance(tuple(row)), revision) for revision, *row in rows]


def delete_archived(schema: str, archived: Sequence[Expired]) -> Statement[int]:
    """Delete these instances, except those that have changed since they were read; returns how many."""
    params = {
        "runs": Bigints(each.instance.run for each in archived),
        "revisions": Integers(each.revision for each in archived),
    }
    query = files.load("queries/retention/delete_archived.sql", schema)
    return Statement("retention/delete_archived", query, params, lambda rows: int(rows[0][0]))


def read_expired_tasks(schema: str, ages: Ages, *, limit: int = 100) -> Statement[list[TaskInstance]]:
    """Read at most `limit` tasks that ended too long ago."""
    query = files.load("queries/retention/read_expired_tasks.sql", schema)
    return Statement("retention/read_expired_tasks", query, _ages(ages, limit), _tasks)


def _tasks(rows: Sequence[Row]) -> list[TaskInstance]:
    return [task_rows.task(row) for row in rows]


def delete_archived_tasks(schema: str, archived: Sequence[TaskInstance]) -> Statement[int]:
    """Delete these tasks, except those that have run again since they were read; returns how many."""
    params = {
        "ids": Bigints(each.id for each in archived),
        "ends": Texts("" if each.finished_at is None else each.finished_at.isoformat() for each in archived),
    }
    query = files.load("queries/retention/delete_archived_tasks.sql", schema)
    return Statement("retention/delete_archived_tasks", query, params, lambda rows: int(rows[0][0]))


def _ages(ages: Ages, limit: int) -> dict[str, Any]:
    spans = {"completed": ages.completed, "failed": ages.failed, "cancelled": ages.cancelled}
    seconds = {status: None if span is None else span.total_seconds() for status, span in spans.items()}
    return {**seconds, "max_count": ages.max_count, "overrides": ages.overrides, "limit": limit}
