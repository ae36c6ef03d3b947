"""Find out cheaply whether anything was written."""

from __future__ import annotations

from typing import NamedTuple

from pgflow.database import files
from pgflow.database.statement import Statement

__all__ = ["Pulse", "read"]


class Pulse(NamedTuple):
    """`position` changes with each write; `is_replica` is whether the server only follows another one."""

    position: str | None
    is_replica: bool


def read(schema: str) -> Statement[Pulse]:
    """Read the pulse of the tables."""
    query = files.load("queries/pulse/read.sql", schema)
    return Statement("pulse/read", query, {}, lambda rows: Pulse._make(rows[0]))
