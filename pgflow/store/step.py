"""Prepare the transaction of a transactional step for its settle: the statements that run before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import psycopg

from pgflow.database import files
from pgflow.database.statement import Row, Statement

__all__ = [
    "DeferredError",
    "SessionState",
    "ending",
    "enforce",
    "preparing",
    "reset",
    "reset_role",
    "reset_session",
    "restrict",
]


@dataclass(frozen=True, slots=True)
class SessionState:
    """What a step's session was like when the step returned.

    `mark` is the mark of the transaction that is open; `has_prepared`, whether SQL PREPARE left statements behind.
    """

    mark: str | None
    has_prepared: bool


class DeferredError(Exception):
    """What stands before a settle raised `error`, mostly a deferred constraint or trigger of the user's own.

    The settle itself was not refused, so this is the step's fault, not that of pgflow's tables.
    """

    def __init__(self, error: psycopg.Error) -> None:
        super().__init__(str(error))
        self.error = error


def preparing(schema: str) -> Sequence[Statement[Any]]:
    """Return all statements that prepare a settle, in their order; the first one returns an `SessionState`."""
    return ending(schema), enforce(schema), reset_session(schema), reset_role(schema), reset(schema), restrict(schema)


def ending(schema: str) -> Statement[SessionState]:
    """Read what the step's session is like."""
    query = files.load("queries/step/ending.sql", schema)
    return Statement("step/ending", query, {}, lambda rows: SessionState(*rows[0]), prepare=True)


def enforce(schema: str) -> Statement[None]:
    """Check deferred constraints now. Raises what the commit would have raised, in a `DeferredError`."""
    return replace(_silent("step/enforce", schema), translate=DeferredError)


def reset_session(schema: str) -> Statement[None]:
    """Return to the user that the worker connected as."""
    return _silent("step/reset_session", schema)


def reset_role(schema: str) -> Statement[None]:
    """Return to the role that the worker connected with."""
    return _silent("step/reset_role", schema)


def reset(schema: str) -> Statement[None]:
    """Return to the settings that the worker connected with."""
    return _silent("step/reset", schema)


def restrict(schema: str) -> Statement[None]:
    """Set a worker's own path, limits and planner settings for the rest of the transaction."""
    return Statement("step/restrict", files.load("queries/step/restrict.sql", schema), {}, _nothing, prepare=True)


def _silent(name: str, schema: str) -> Statement[None]:
    return Statement(name, files.load(f"queries/{name}.sql", schema), {}, _nothing, prepare=False)


def _nothing(rows: Sequence[Row]) -> None:
    """Read nothing."""
