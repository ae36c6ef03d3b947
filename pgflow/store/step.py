"""Prepare the transaction of a transactional step for its settle: the statements that run before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pgflow.store import files
from pgflow.store.statement import Row, Statement

__all__ = ["Ending", "ending", "enforce", "preparing", "reset", "reset_role", "reset_session", "restrict"]


@dataclass(frozen=True, slots=True)
class Ending:
    """What a step's session was like when the step returned.

    `mark` is the mark of the transaction that is open; `has_prepared`, whether SQL PREPARE left statements behind.
    """

    mark: str | None
    has_prepared: bool


def preparing(schema: str) -> Sequence[Statement[Any]]:
    """Return all statements that prepare a settle, in their order; the first one returns an `Ending`."""
    return ending(schema), enforce(schema), reset_session(schema), reset_role(schema), reset(schema), restrict(schema)


def ending(schema: str) -> Statement[Ending]:
    """Read what the step's session is like."""
    query = files.load("queries/step/ending.sql", schema)
    return Statement("step/ending", query, {}, lambda rows: Ending(*rows[0]), prepare=True)


def enforce(schema: str) -> Statement[None]:
    """Check deferred constraints now. Raises what the commit would have raised."""
    return _silent("step/enforce", schema)


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
