"""Store the graphs of registered workflows, so that SQL can start a workflow and a changed graph is detected."""

from __future__ import annotations

import json
from builtins import list as Builtin
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from psycopg.types.numeric import Int4

from pgflow.database import files
from pgflow.database.statement import Row, Statement

__all__ = ["Activity", "Listed", "StoredDefinition", "activity", "list", "names", "places", "read", "register"]


@dataclass(frozen=True, slots=True)
class StoredDefinition:
    """A workflow's graph in one version: `hash` over its edges, `graph` as returned by `Graph.spec()`.

    `is_current` requests, on registration, that a start without a version uses this one.
    """

    workflow: str
    version: int
    hash: str
    graph: dict[str, Any]
    is_current: bool = False


class Listed(NamedTuple):
    """A registered version of a workflow."""

    workflow: str
    version: int
    steps: int
    registered_at: datetime
    is_current: bool


class Activity(NamedTuple):
    """What a workflow's instances do; `is_cut`: there are more active instances than were looked at."""

    pending: int
    running: int
    waiting: int
    completed: int
    failed: int
    is_cut: bool


def list(schema: str) -> Statement[Builtin[Listed]]:  # noqa: A001 -- path is name: definition/list.sql
    """List all registered versions of workflows, the current one of each first."""
    query = files.load("queries/definition/list.sql", schema)
    return Statement("definition/list", query, {}, lambda rows: [*map(Listed._make, rows)])


def activity(schema: str, *, seconds: float, limit: int) -> Statement[dict[str, Activity]]:
    """Count the active instances of each workflow, and those that ended within `seconds`, up to `limit` each."""
    query = files.load("queries/definition/activity.sql", schema)
    params = {"seconds": seconds, "limit": limit}
    return Statement("definition/activity", query, params, lambda rows: {row[0]: Activity(*row[1:]) for row in rows})


def places(schema: str, *, workflow: str, version: int, limit: int) -> Statement[dict[str, int]]:
    """Count the active instances at each step of a version, among the newest `limit` of each status."""
    query = files.load("queries/definition/places.sql", schema)
    params = {"workflow": workflow, "version": version, "limit": limit}
    return Statement("definition/places", query, params, lambda rows: {str(step): many for step, many in rows})


def register(schema: str, definitions: Sequence[StoredDefinition]) -> Statement[Builtin[StoredDefinition]]:
    """Store new definitions and which of them are current.

    An app that does not know the current version is an older one and cannot make a lower version current.
    Returns all of them as stored, so that the caller can reject a different hash.
    """
    params = {
        "workflows": [definition.workflow for definition in definitions],
        "versions": [Int4(definition.version) for definition in definitions],
        "hashes": [definition.hash for definition in definitions],
        "graphs": [json.dumps(definition.graph) for definition in definitions],
        "currents": [Int4(definition.is_current) for definition in definitions],
    }
    return Statement("definition/register", files.load("queries/definition/register.sql", schema), params, _definitions)


def names(schema: str) -> Statement[Builtin[str]]:
    """List the names of all registered workflows, in order."""
    return Statement(
        "definition/names",
        files.load("queries/definition/names.sql", schema),
        {},
        lambda rows: [name for (name,) in rows],
    )


def read(schema: str, *, workflow: str, version: int | None) -> Statement[StoredDefinition | None]:
    """Read one definition, the current version unless one is given; None if it is not registered."""
    return Statement(
        "definition/read",
        files.load("queries/definition/read.sql", schema),
        {"workflow": workflow, "version": version},
        lambda rows: _definitions(rows)[0] if rows else None,
    )


def _definitions(rows: Sequence[Row]) -> Builtin[StoredDefinition]:
    return [StoredDefinition(workflow, version, digest, json.loads(graph)) for workflow, version, digest, graph in rows]
