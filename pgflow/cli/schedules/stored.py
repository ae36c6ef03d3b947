"""Read one schedule for a command, and report an unknown name with similar ones."""

import difflib

from pgflow.database.connect import Connection
from pgflow.database.statement import run
from pgflow.errors import UnknownSchedule
from pgflow.store import schedule
from pgflow.store.schedule import StoredSpec

__all__ = ["read_schedule"]


def read_schedule(conn: Connection, schema: str, name: str) -> StoredSpec:
    """Return a schedule. Raises `UnknownSchedule`; the hint suggests similar names."""
    found = run(conn, schedule.get(schema, name))
    if found is None:
        near = difflib.get_close_matches(name, run(conn, schedule.names(schema)), n=2)
        hint = f"Did you mean {' or '.join(near)}?" if near else "List them: pgflow schedule list"
        raise UnknownSchedule(f"there is no schedule named {name!r}", hint=hint)
    return found
