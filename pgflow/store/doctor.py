"""Read the signs of a sick database or of missing workers: each statement is one look, quick on large tables.

Nothing is written, and nothing is counted beyond 1001. Ages and durations are seconds, of the database's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Sequence as Rows
from datetime import timedelta
from typing import Any, TypeVar

from pgflow.database import files
from pgflow.database.statement import Row, Statement
from pgflow.store.doctor_rows import (
    Adrift,
    Connections,
    Dead,
    Index,
    Late,
    Orphans,
    Prepared,
    Queue,
    Sequence,
    Server,
    Sight,
    Slot,
    Transaction,
    Unapplied,
    Workers,
    Wraparound,
)

__all__ = [
    "adrift",
    "backend",
    "clock",
    "connections",
    "dead",
    "echo",
    "indexes",
    "orphans",
    "overdue",
    "prepared",
    "queues",
    "sequences",
    "server",
    "settings",
    "sight",
    "signals",
    "slots",
    "transactions",
    "unapplied",
    "workers",
    "wraparound",
]

T = TypeVar("T")


def server(schema: str) -> Statement[Server]:
    """Look at the server itself."""
    return _one("server", schema, Server)


def settings(schema: str) -> Statement[dict[str, str]]:
    """Read the settings on which pgflow's promises stand, and those that say what is logged, by name."""
    return _statement("settings", schema, {}, lambda rows: {str(name): str(value) for name, value in rows})


def connections(schema: str) -> Statement[Connections]:
    """Count the connections of the whole server."""
    return _one("connections", schema, Connections)


def backend(schema: str) -> Statement[int]:
    """Ask which process of the server answers."""
    return _one("backend", schema, int)


def echo(schema: str, channel: str) -> Statement[None]:
    """Send a notification on a channel of the caller's own."""
    return _statement("echo", schema, {"channel": channel}, lambda rows: None)


def workers(schema: str) -> Statement[Workers]:
    """Look at leases, and at the tokens of workers whose lease has ended."""
    return _one("workers", schema, Workers)


def queues(schema: str) -> Statement[list[Queue]]:
    """Look at each queue with tokens that are ready or due."""
    return _many("queues", schema, Queue)


def adrift(schema: str, limit: int) -> Statement[Adrift]:
    """Look for instances without a token, among the `limit` oldest of each active status."""
    return _one("adrift", schema, Adrift, {"limit": limit})


def unapplied(schema: str, limit: int) -> Statement[Unapplied]:
    """Look for results not applied, of the `limit` oldest instances of each active status; paused queues apart."""
    return _one("unapplied", schema, Unapplied, {"limit": limit})


def orphans(schema: str, limit: int) -> Statement[list[Orphans]]:
    """Look for orphaned rows among the `limit` oldest rows, the newest and a sample of each table."""
    return _many("orphans", schema, Orphans, {"limit": limit})


def overdue(schema: str) -> Statement[Late]:
    """Look for tokens that should have been made ready."""
    return _one("overdue", schema, Late)


def signals(schema: str) -> Statement[Late]:
    """Look for scheduled signals that should have been sent."""
    return _one("signals", schema, Late)


def sight(schema: str) -> Statement[Sight]:
    """Ask whether this role sees other roles' sessions."""
    return _one("sight", schema, Sight)


def transactions(schema: str, age: timedelta) -> Statement[list[Transaction]]:
    """Find the ten oldest transactions that keep dead rows in this database, of those older than `age`."""
    return _many("transactions", schema, Transaction, {"age": age.total_seconds()})


def prepared(schema: str, age: timedelta) -> Statement[list[Prepared]]:
    """Find the ten oldest prepared transactions of this database, of those older than `age`."""
    return _many("prepared", schema, Prepared, {"age": age.total_seconds()})


def slots(schema: str) -> Statement[list[Slot]]:
    """Find the ten replication slots that keep the oldest rows."""
    return _many("slots", schema, Slot)


def dead(schema: str) -> Statement[Dead]:
    """Read the statistics of the table of tokens."""
    return _one("dead", schema, Dead)


def wraparound(schema: str) -> Statement[Wraparound]:
    """Read how long ago old rows were frozen."""
    return _one("wraparound", schema, Wraparound)


def indexes(schema: str) -> Statement[list[Index]]:
    """Find the schema's invalid indexes."""
    return _many("indexes", schema, Index)


def sequences(schema: str) -> Statement[list[Sequence]]:
    """Compare each identity column's sequence with the highest value in use."""
    return _many("sequences", schema, Sequence)


def clock(schema: str) -> Statement[float]:
    """Ask what time it is there, in seconds since 1970."""
    return _one("clock", schema, float)


def _one(verb: str, schema: str, make: Callable[..., T], params: Mapping[str, Any] | None = None) -> Statement[T]:
    return _statement(verb, schema, params or {}, lambda rows: make(*rows[0]))


def _many(
    verb: str, schema: str, make: Callable[..., T], params: Mapping[str, Any] | None = None
) -> Statement[list[T]]:
    return _statement(verb, schema, params or {}, lambda rows: [make(*row) for row in rows])


def _statement(verb: str, schema: str, params: Mapping[str, Any], read: Callable[[Rows[Row]], T]) -> Statement[T]:
    return Statement(f"doctor/{verb}", files.load(f"queries/doctor/{verb}.sql", schema), params, read)
