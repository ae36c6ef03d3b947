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
    "apply_settings",
    "check_constraints",
    "preparing",
    "read_session_state",
    "reset",
    "reset_role",
    "reset_session",
]


@dataclass(frozen=True, slots=True)
class SessionState:
    """The state of a step's session after the step returned.

    `mark` identifies the open transaction; `has_prepared` is whether SQL PREPARE left statements behind.
    """

    mark: str | None
    has_prepared: bool


class DeferredError(Exception):
    """A statement before the settle raised `error`, mostly from a deferred constraint or trigger of the user.

    The settle itself was not rejected, so the step is at fault and not pgflow's tables.
    """

    def __init__(self, error: psycopg.Error) -> None:
        super().__init__(str(error))
        self.error = error


def preparing(schema: str) -> Sequence[Statement[Any]]:
    """Return all statements that prepare a settle, in order; the first one returns a `SessionState`."""
    return (
        read_session_state(schema),
        check_constraints(schema),
        reset_session(schema),
        reset_role(schema),
        reset(schema),
        apply_settings(schema),
    )


def read_session_state(schema: str) -> Statement[SessionState]:
    """Read the state of the step's session."""
    query = files.load("queries/step/read_session_state.sql", schema)
    return Statement("step/read_session_state", query, {}, lambda rows: SessionState(*rows[0]), prepare=True)


def check_constraints(schema: str) -> Statement[None]:
    """Check deferred constraints now. Raises the error that the commit would raise, as a `DeferredError`."""
    return replace(_unprepared("step/check_constraints", schema), translate=DeferredError)


def reset_session(schema: str) -> Statement[None]:
    """Restore the user that the worker connected as."""
    return _unprepared("step/reset_session", schema)


def reset_role(schema: str) -> Statement[None]:
    """Restore the role that the worker connected with."""
    return _unprepared("step/reset_role", schema)


def reset(schema: str) -> Statement[None]:
    """Restore the settings that the worker connected with."""
    return _unprepared("step/reset", schema)


def apply_settings(schema: str) -> Statement[None]:
    """Apply a worker's search_path, timeouts and planner settings for the rest of the transaction."""
    query = files.load("queries/step/apply_settings.sql", schema)
    return Statement("step/apply_settings", query, {}, _no_result, prepare=True)


def _unprepared(name: str, schema: str) -> Statement[None]:
    return Statement(name, files.load(f"queries/{name}.sql", schema), {}, _no_result, prepare=False)


def _no_result(rows: Sequence[Row]) -> None:
    """Ignore the rows."""
