"""Store the graphs of registered workflows, so that SQL can start a workflow and a changed graph is detected."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.types.numeric import Int4

from pgflow.database import files
from pgflow.database.statement import Row, Statement

__all__ = ["StoredDefinition", "names", "read", "register"]


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


def register(schema: str, definitions: Sequence[StoredDefinition]) -> Statement[list[StoredDefinition]]:
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


def names(schema: str) -> Statement[list[str]]:
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


def _definitions(rows: Sequence[Row]) -> list[StoredDefinition]:
    return [StoredDefinition(workflow, version, digest, json.loads(graph)) for workflow, version, digest, graph in rows]
