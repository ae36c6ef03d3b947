"""Store the graphs that apps bring, so that plain SQL can start a workflow and a changed graph is noticed."""

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
    """A workflow's graph in one version: `hash` over its edges, `graph` as `Graph.spec()` gives it.

    `is_current` says, of one that is brought, that a start takes it when it names no version.
    """

    workflow: str
    version: int
    hash: str
    graph: dict[str, Any]
    is_current: bool = False


def register(schema: str, definitions: Sequence[StoredDefinition]) -> Statement[list[StoredDefinition]]:
    """Store definitions that are not stored yet, and which of them are current.

    An app that does not know the version that is current now is an older one, and makes none current that is lower.
    Returns them all as stored, so that a different hash can be refused.
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
    """Read the names of all workflows that are stored, in order."""
    return Statement(
        "definition/names",
        files.load("queries/definition/names.sql", schema),
        {},
        lambda rows: [name for (name,) in rows],
    )


def read(schema: str, *, workflow: str, version: int | None) -> Statement[StoredDefinition | None]:
    """Read one definition, the current version unless one is named; None when it is not stored."""
    return Statement(
        "definition/read",
        files.load("queries/definition/read.sql", schema),
        {"workflow": workflow, "version": version},
        lambda rows: _definitions(rows)[0] if rows else None,
    )


def _definitions(rows: Sequence[Row]) -> list[StoredDefinition]:
    return [StoredDefinition(workflow, version, digest, json.loads(graph)) for workflow, version, digest, graph in rows]
