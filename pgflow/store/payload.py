"""References to a payload store: those of deleted rows, and those of all rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from psycopg.types.numeric import Int8

from pgflow.core.values.codec import Kind, Location
from pgflow.core.values.payload import REFERENCE_MARKER
from pgflow.core.values.reference import Reference, read_reference
from pgflow.database import files
from pgflow.database.adapters import Row
from pgflow.database.statement import Statement
from pgflow.errors import InvalidPayload

__all__ = ["ReferencePage", "StalePayload", "references", "stale", "task_references"]


@dataclass(frozen=True, slots=True)
class StalePayload:
    """A reference of a deleted row and the place that it was in; None for one that pgflow has not written."""

    id: int
    location: Location
    reference: Reference | None


@dataclass(frozen=True, slots=True)
class ReferencePage:
    """The keys that a page of instances or tasks refers to, and the page's last run or id; None after the last page."""

    keys: Sequence[str]
    last: int | None


def stale(schema: str, deleted: Sequence[int], limit: int = 100) -> Statement[list[StalePayload]]:
    """Read the references of deleted rows, the oldest first, after deleting those with the ids `deleted`."""
    query = files.load("queries/payload/stale.sql", schema)
    params = {"deleted": [*map(Int8, deleted)], "limit": limit}
    return Statement("payload/stale", query, params, lambda rows: [*map(_stale, rows)])


def references(schema: str, after: int = 0, limit: int = 1000) -> Statement[ReferencePage]:
    """Read the keys that the `limit` instances after run `after` refer to; pass `last` on for the next page."""
    query = files.load("queries/payload/references.sql", schema)
    params = {"after": Int8(after), "limit": limit}
    return Statement("payload/references", query, params, lambda rows: ReferencePage(*rows[0]))


def task_references(schema: str, after: int = 0, limit: int = 1000) -> Statement[ReferencePage]:
    """`references` of tasks, by the ids of their jobs."""
    query = files.load("queries/payload/task_references.sql", schema)
    params = {"after": Int8(after), "limit": limit}
    return Statement("payload/task_references", query, params, lambda rows: ReferencePage(*rows[0]))


def _stale(row: Row) -> StalePayload:
    number, workflow, instance, kind, name, text = row
    try:
        reference = read_reference({REFERENCE_MARKER: json.loads(text)})
    except InvalidPayload:
        reference = None
    return StalePayload(number, Location(workflow, instance, cast("Kind", kind), name), reference)
