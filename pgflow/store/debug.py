"""Give a test install what no other may have: a clock that can be moved, and writes that are refused at random.

`migrate` never brings any of this. What is installed here is for whoever tests the engine, in a database that is
thrown away: it can be installed and taken out again any number of times.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg

from pgflow.database import files
from pgflow.database.files import SCHEMA
from pgflow.database.statement import Statement

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

    Raises `psycopg.Error` where no pgflow is installed, or we are not its owner.
    """
    _execute(conn, "debug/clock.sql", schema)


def uninstall_clock(conn: psycopg.Connection[Any], schema: str = SCHEMA) -> None:
    """Give the schema its real clock back."""
    _execute(conn, "debug/clock_off.sql", schema)


def move_clock(ahead: timedelta, schema: str = SCHEMA) -> Statement[None]:
    """Let the schema's clock be so much `ahead` of the real one, for everybody's next statement; negative: behind it.

    Not added to an earlier move: zero brings the real time back.

        run(conn, debug.move_clock(timedelta(hours=1)))    # every lease has ended
    """
    query = files.load("queries/debug/move_clock.sql", schema)
    return Statement("debug/move_clock", query, {"ahead": ahead.total_seconds()}, lambda rows: None)


def install_refusals(conn: psycopg.Connection[Any], schema: str = SCHEMA) -> None:
    """Put a trigger on each of the engine's tables that refuses writes as `refuse` says; until then it refuses none.

    A refused statement raises 40001 (serialization failure), 40P01 (deadlock) or 55P03 (lock not available), and its
    transaction is lost. Raises `psycopg.Error` where no pgflow is installed, or we are not its owner.
    """
    _execute(conn, "debug/refusals.sql", schema)


def uninstall_refusals(conn: psycopg.Connection[Any], schema: str = SCHEMA) -> None:
    """Take the triggers out again."""
    _execute(conn, "debug/refusals_off.sql", schema)


def refuse(chance: float, schema: str = SCHEMA) -> Statement[None]:
    """Let each statement that writes to one of the engine's tables be refused with this `chance`, 0 to 1.

    run(conn, debug.refuse(0.05))
    """
    query = files.load("queries/debug/refuse.sql", schema)
    return Statement("debug/refuse", query, {"chance": chance}, lambda rows: None)


def _execute(conn: psycopg.Connection[Any], path: str, schema: str) -> None:
    with conn.transaction():
        conn.execute("set local client_min_messages = warning")  # "does not exist, skipping"
        conn.execute(files.load(path, schema), prepare=False)
