"""Give a schema a clock that tests can move, and triggers that reject writes at random.

For a schema that is thrown away. Both can be installed and uninstalled any number of times.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg

from pgflow.database.files import SCHEMA
from pgflow.database.statement import Statement
from tests.torture.install import files

__all__ = [
    "install_clock",
    "install_refusals",
    "move_clock",
    "refuse",
    "uninstall_clock",
    "uninstall_refusals",
]


def install_clock(conn: psycopg.Connection[Any], schema: str = SCHEMA) -> None:
    """Replace the schema's clock by one that `move_clock` moves; until then it shows the real time.

    Raises `psycopg.Error` when pgflow is not installed there, or the role does not own the schema.
    """
    _execute(conn, "clock", schema)


def uninstall_clock(conn: psycopg.Connection[Any], schema: str = SCHEMA) -> None:
    """Restore the schema's real clock."""
    _execute(conn, "clock_off", schema)


def move_clock(ahead: timedelta, schema: str = SCHEMA) -> Statement[None]:
    """Set the schema's clock `ahead` of the real time (negative: behind), for all sessions' next statements.

    The offset is absolute: zero restores the real time.

        run(conn, debug.move_clock(timedelta(hours=1)))    # every lease has expired
    """
    query = files.load("move_clock", schema)
    return Statement("debug/move_clock", query, {"ahead": ahead.total_seconds()}, lambda rows: None)


def install_refusals(conn: psycopg.Connection[Any], schema: str = SCHEMA) -> None:
    """Add a trigger to each of the engine's tables that rejects writes as often as `refuse` sets: at first never.

    A rejected statement raises 40001 (serialization failure), 40P01 (deadlock) or 55P03 (lock not available) and aborts
    its transaction. Raises `psycopg.Error` when pgflow is not installed there, or the role does not own the schema.
    """
    _execute(conn, "refusals", schema)


def uninstall_refusals(conn: psycopg.Connection[Any], schema: str = SCHEMA) -> None:
    """Remove the triggers."""
    _execute(conn, "refusals_off", schema)


def refuse(chance: float, schema: str = SCHEMA) -> Statement[None]:
    """Reject each statement that writes to one of the engine's tables with this probability, 0 to 1.

    run(conn, debug.refuse(0.05))
    """
    query = files.load("refuse", schema)
    return Statement("debug/refuse", query, {"chance": chance}, lambda rows: None)


def _execute(conn: psycopg.Connection[Any], name: str, schema: str) -> None:
    with conn.transaction():
        conn.execute("set local client_min_messages = warning")  # "does not exist, skipping"
        conn.execute(files.load(name, schema).encode(), prepare=False)
