"""Read the state that the doctor's checks judge. Each statement is read-only and fast on large tables.

No statement counts beyond 1001 rows. Ages and durations are seconds of the database's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Sequence as Rows
from datetime import timedelta
from typing import Any, TypeVar

from pgflow.database import files
from pgflow.database.statement import Row, Statement
from pgflow.store.doctor_rows import (
    Clock,
    Connections,
    DeadRows,
    Index,
    MissingJobs,
    Orphans,
    Overdue,
    Prepared,
    Queue,
    Sequence,
    Server,
    Slot,
    Transaction,
    Unapplied,
    Visibility,
    Workers,
    Wraparound,
)

__all__ = [
    "backend",
    "clock",
    "connections",
    "dead_rows",
    "echo",
    "indexes",
    "missing_jobs",
    "orphans",
    "overdue",
    "prepared",
    "queues",
    "sequences",
    "server",
    "settings",
    "signals",
    "slots",
    "transactions",
    "unapplied",
    "visibility",
    "workers",
    "wraparound",
]

T = TypeVar("T")


def server(schema: str) -> Statement[Server]:
    """Read the server's version and state."""
    return _one("server", schema, Server)


def settings(schema: str) -> Statement[dict[str, str]]:
    """Read the settings that durability and vacuum depend on, and those that control logging, by name."""
    return _statement("settings", schema, {}, lambda rows: {str(name): str(value) for name, value in rows})


def connections(schema: str) -> Statement[Connections]:
    """Count the connections of the whole server."""
    return _one("connections", schema, Connections)


def backend(schema: str) -> Statement[int]:
    """Return the process id of the server process behind the session."""
    return _one("backend", schema, int)


def echo(schema: str, channel: str) -> Statement[None]:
    """Send a notification on the caller's channel."""
    return _statement("echo", schema, {"channel": channel}, lambda rows: None)


def workers(schema: str) -> Statement[Workers]:
    """Count live workers, and the jobs of workers whose lease has expired."""
    return _one("workers", schema, Workers)


def queues(schema: str) -> Statement[list[Queue]]:
    """Examine each queue with jobs that are ready or due."""
    return _many("queues", schema, Queue)


def missing_jobs(schema: str, limit: int) -> Statement[MissingJobs]:
    """Find instances without a job among the `limit` oldest of each active status."""
    return _one("missing_jobs", schema, MissingJobs, {"limit": limit})


def unapplied(schema: str, limit: int) -> Statement[Unapplied]:
    """Find unapplied results of the `limit` oldest instances of each active status, except in paused queues."""
    return _one("unapplied", schema, Unapplied, {"limit": limit})


def orphans(schema: str, limit: int) -> Statement[list[Orphans]]:
    """Find orphaned rows among the `limit` oldest rows, the newest and a sample of each table."""
    return _many("orphans", schema, Orphans, {"limit": limit})


def overdue(schema: str) -> Statement[Overdue]:
    """Count jobs that should be ready."""
    return _one("overdue", schema, Overdue)


def signals(schema: str) -> Statement[Overdue]:
    """Count scheduled signals that should have been sent."""
    return _one("signals", schema, Overdue)


def visibility(schema: str) -> Statement[Visibility]:
    """Return whether this role sees other roles' sessions."""
    return _one("visibility", schema, Visibility)


def transactions(schema: str, age: timedelta) -> Statement[list[Transaction]]:
    """Find the ten oldest transactions that keep dead rows in this database and are older than `age`."""
    return _many("transactions", schema, Transaction, {"age": age.total_seconds()})


def prepared(schema: str, age: timedelta) -> Statement[list[Prepared]]:
    """Find the ten oldest prepared transactions of this database that are older than `age`."""
    return _many("prepared", schema, Prepared, {"age": age.total_seconds()})


def slots(schema: str) -> Statement[list[Slot]]:
    """Find the ten replication slots that keep the oldest dead rows."""
    return _many("slots", schema, Slot)


def dead_rows(schema: str) -> Statement[DeadRows]:
    """Read the statistics of the jobs table."""
    return _one("dead_rows", schema, DeadRows)


def wraparound(schema: str) -> Statement[Wraparound]:
    """Read the age of the oldest unfrozen row."""
    return _one("wraparound", schema, Wraparound)


def indexes(schema: str) -> Statement[list[Index]]:
    """Find the schema's invalid indexes."""
    return _many("indexes", schema, Index)


def sequences(schema: str) -> Statement[list[Sequence]]:
    """Compare each identity column's sequence with the highest value in use."""
    return _many("sequences", schema, Sequence)


def clock(schema: str) -> Statement[Clock]:
    """Read the server's time and pgflow's."""
    return _one("clock", schema, Clock)


def _one(verb: str, schema: str, make: Callable[..., T], params: Mapping[str, Any] | None = None) -> Statement[T]:
    return _statement(verb, schema, params or {}, lambda rows: make(*rows[0]))


def _many(
    verb: str, schema: str, make: Callable[..., T], params: Mapping[str, Any] | None = None
) -> Statement[list[T]]:
    return _statement(verb, schema, params or {}, lambda rows: [make(*row) for row in rows])


def _statement(verb: str, schema: str, params: Mapping[str, Any], read: Callable[[Rows[Row]], T]) -> Statement[T]:
    return Statement(f"doctor/{verb}", files.load(f"queries/doctor/{verb}.sql", schema), params, read)
