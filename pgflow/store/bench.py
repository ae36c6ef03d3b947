"""Statements of a benchmark: the database's counters, its settings and sessions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pgflow.database import files
from pgflow.database.statement import Statement

__all__ = [
    "Counters",
    "analyze",
    "backend",
    "completed",
    "completed_tasks",
    "cost",
    "due",
    "lock_schema",
    "parked",
    "schema_comment",
    "sessions",
    "settings",
]


@dataclass(frozen=True, slots=True)
class Counters:
    """Counters of the database, which only grow.

    `wal` is bytes; `in_place` counts HOT updates, which need no new index entry.
    """

    wal: int
    commits: int
    inserted: int
    updated: int
    in_place: int
    deleted: int


def cost(schema: str) -> Statement[Counters]:
    """Read the counters. A session reports its statistics when it ends, or after some seconds."""
    return _statement("cost", schema, {}, lambda rows: Counters(*rows[0]))


def settings(schema: str) -> Statement[dict[str, str]]:
    """Read the server's version and the settings that speed depends on."""
    return _statement("settings", schema, {}, lambda rows: dict(rows))


def sessions(schema: str, name: str) -> Statement[int]:
    """Count the other sessions with this application name."""
    return _statement("sessions", schema, {"name": name}, lambda rows: int(rows[0][0]))


def backend(schema: str) -> Statement[int]:
    """Return the process id of the session's server process."""
    return _statement("backend", schema, {}, lambda rows: int(rows[0][0]))


def analyze(schema: str) -> Statement[None]:
    """Update the planner's statistics, as autovacuum does soon after."""
    return _statement("analyze", schema, {}, lambda rows: None)


def completed(schema: str) -> Statement[int]:
    """Count the completed instances."""
    return _statement("completed", schema, {}, lambda rows: int(rows[0][0]))


def completed_tasks(schema: str) -> Statement[int]:
    """Count the completed tasks."""
    return _statement("completed_tasks", schema, {}, lambda rows: int(rows[0][0]))


def parked(schema: str) -> Statement[int]:
    """Count the parked jobs."""
    return _statement("parked", schema, {}, lambda rows: int(rows[0][0]))


def due(schema: str, workflow: str) -> Statement[dict[int, float]]:
    """Read when each timer of a workflow is due, by run id: seconds since 1970 on the database's clock."""
    return _statement("due", schema, {"workflow": workflow}, lambda rows: dict(rows))


def schema_comment(schema: str) -> Statement[Sequence[str | None]]:
    """Read the comment on the schema; empty when the schema does not exist."""
    return _statement("schema_comment", schema, {"schema": schema}, lambda rows: [row[0] for row in rows])


def lock_schema(schema: str) -> Statement[bool]:
    """Take an advisory lock on the schema until the session ends; returns False when another session has it."""
    return _statement("lock_schema", schema, {"schema": schema}, lambda rows: bool(rows[0][0]))


def _statement(verb: str, schema: str, params: dict[str, Any], read: Any) -> Statement[Any]:
    query = files.load(f"queries/bench/{verb}.sql", schema)
    return Statement(f"bench/{verb}", query, params, read)
