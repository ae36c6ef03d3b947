"""Record every committed change of the engine's tables, for a checker to read.

For a schema that is thrown away: the triggers slow down every write, and the log is never pruned.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.types.numeric import Int8

from pgflow.database.statement import Row, Statement
from tests.torture.install import files

__all__ = ["Change", "install", "read_changes", "read_effects"]


@dataclass(frozen=True, slots=True)
class Change:
    """A row that was inserted, updated or deleted: its JSON before (`was`) and after (`now`).

    `seq` orders the changes of one row; `xact` is the transaction that committed them. `at` is seconds since 1970 on
    the server's clock, `moment` on the engine's clock, which a test may move. `who` is the connection's application
    name, and `backend` its server process.
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
        """The row after the change, or before it when the row was deleted."""
        return self.now or self.was or {}


def install(conn: psycopg.Connection[Any], schema: str) -> None:
    """Create the change log, its triggers and the table that transactional steps write to."""
    for name in ("audit", "effects"):
        conn.execute(files.load(name, schema).encode(), prepare=False)


def read_changes(schema: str, after: int = 0, limit: int = 10_000) -> Statement[list[Change]]:
    """Read a page of the changes, in order. Pass the last change's `seq` as `after` for the next page."""
    params = {"after": Int8(after), "limit": limit}
    return Statement("audit/read_changes", files.load("read_changes", schema), params, _changes)


def read_effects(schema: str) -> Statement[list[tuple[int, str, str]]]:
    """Read the rows that transactional steps wrote: run, step, nonce."""
    query = files.load("read_effects", schema)
    return Statement("audit/read_effects", query, {}, lambda rows: [(row[0], row[1], row[2]) for row in rows])


def _changes(rows: Sequence[Row]) -> list[Change]:
    return [Change(*row[:8], *(None if text is None else json.loads(text) for text in row[8:])) for row in rows]
