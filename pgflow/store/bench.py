"""What a benchmark asks the database: what it has done so far, how it is set up, and who else is there."""

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
    "cost",
    "due",
    "hold",
    "mark",
    "parked",
    "sessions",
    "settings",
]


@dataclass(frozen=True, slots=True)
class Counters:
    """What the database has done so far: counters that only grow.

    `wal` is bytes, `in_place` those of the rows updated whose indexes needed no new entry (HOT).
    """

    wal: int
    commits: int
    inserted: int
    updated: int
    in_place: int
    deleted: int


def cost(schema: str) -> Statement[Counters]:
    """Read what has been done so far. A session reports what it did when it ends, or after some seconds."""
    return _statement("cost", schema, {}, lambda rows: Counters(*rows[0]))


def settings(schema: str) -> Statement[dict[str, str]]:
    """Read the server's version and the settings that speed depends on."""
    return _statement("settings", schema, {}, lambda rows: dict(rows))


def sessions(schema: str, name: str) -> Statement[int]:
    """Count the sessions with this application name, but for the one that asks."""
    return _statement("sessions", schema, {"name": name}, lambda rows: int(rows[0][0]))


def backend(schema: str) -> Statement[int]:
    """Ask for the process id of the session's server process."""
    return _statement("backend", schema, {}, lambda rows: int(rows[0][0]))


def analyze(schema: str) -> Statement[None]:
    """Have the planner look at the tables as they are now, as autovacuum will before long."""
    return _statement("analyze", schema, {}, lambda rows: None)


def completed(schema: str) -> Statement[int]:
    """Count the instances that have reached their end."""
    return _statement("completed", schema, {}, lambda rows: int(rows[0][0]))


def parked(schema: str) -> Statement[int]:
    """Count the tokens that wait for a signal or for their time."""
    return _statement("parked", schema, {}, lambda rows: int(rows[0][0]))


def due(schema: str, workflow: str) -> Statement[dict[int, float]]:
    """Read for each run of a workflow that waits for its time when that is: seconds since 1970, the database's."""
    return _statement("due", schema, {"workflow": workflow}, lambda rows: dict(rows))


def mark(schema: str) -> Statement[Sequence[str | None]]:
    """Read the comment on the schema; empty when there is no such schema."""
    return _statement("mark", schema, {"schema": schema}, lambda rows: [row[0] for row in rows])


def hold(schema: str) -> Statement[bool]:
    """Take the lock on the schema until the session ends; returns False when somebody else has it."""
    return _statement("hold", schema, {"schema": schema}, lambda rows: bool(rows[0][0]))


def _statement(verb: str, schema: str, params: dict[str, Any], read: Any) -> Statement[Any]:
    query = files.load(f"queries/bench/{verb}.sql", schema)
    return Statement(f"bench/{verb}", query, params, read)
