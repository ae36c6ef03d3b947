"""Test installs: a schema that notes each committed change, for a harness to check; never one that holds anything dear.

Only there may failpoints be armed, and the clock be moved: a shipped switch would let any role end every lease.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.types.numeric import Int8

from pgflow.database import files
from pgflow.database.statement import Row, Statement

__all__ = ["Change", "effects", "install", "installed", "read"]


@dataclass(frozen=True, slots=True)
class Change:
    """A row that was inserted, updated or deleted: what it `was` before, and what it `is` since, as JSON has it.

    `seq` orders the changes of one row, `xact` is the transaction that they were committed in, `at` seconds since 1970
    on the server's clock and `moment` on the engine's, which may be moved, `who` the connection's application name and
    `backend` its process on the server.
    """

    seq: int
    xact: int
    at: float
    moment: float
    who: str
    backend: int
    relation: str
    op: str
    was: dict[str, Any] | None
    now: dict[str, Any] | None

    @property
    def row(self) -> dict[str, Any]:
        """The row as it is, or as it was when it was deleted."""
        return self.now or self.was or {}


def install(conn: psycopg.Connection[Any], schema: str) -> None:
    """Make a schema a test install: from here on each change of the engine's tables is noted."""
    for name in ("audit", "effects"):
        conn.execute(files.load(f"debug/{name}.sql", schema), prepare=False)


def installed(schema: str) -> Statement[bool]:
    """Whether a schema is a test install."""
    query = files.load("queries/audit/installed.sql", schema)
    return Statement("audit/installed", query, {}, lambda rows: bool(rows[0][0]))


def read(schema: str, after: int = 0, limit: int = 10_000) -> Statement[list[Change]]:
    """Read a page of the changes, in their order: pass the last one's `seq` as `after` for the next page."""
    params = {"after": Int8(after), "limit": limit}
    return Statement("audit/read", files.load("queries/audit/read.sql", schema), params, _changes)


def effects(schema: str) -> Statement[list[tuple[int, str, str]]]:
    """Read what transactional steps have written: run, step, nonce."""
    query = files.load("queries/audit/effects.sql", schema)
    return Statement("audit/effects", query, {}, lambda rows: [(row[0], row[1], row[2]) for row in rows])


def _changes(rows: Sequence[Row]) -> list[Change]:
    return [Change(*row[:8], *(None if text is None else json.loads(text) for text in row[8:])) for row in rows]
