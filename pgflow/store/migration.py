"""Inspect a schema through the catalog, record its migrations, and take the migration lock."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pgflow.database import files
from pgflow.database.statement import Row, Statement

ANNOUNCED = "announced"  # in place of a checksum


@dataclass(frozen=True, slots=True)
class Applied:
    """A row of the table `migrations`. `applied_at` is None for a planned one; version 0 records the functions.

    A breaking migration is recorded before it is applied, as an announcement, with `ANNOUNCED` as its checksum.
    """

    version: int
    name: str
    checksum: str
    breaking: bool
    applied_at: datetime | None = None

    @property
    def announced(self) -> bool:
        """Whether it is only announced: it is applied once the workers whose code it breaks have ended."""
        return self.checksum == ANNOUNCED

    def __str__(self) -> str:
        return f"{self.version:04}_{self.name}"


@dataclass(frozen=True, slots=True)
class SchemaInfo:
    """What the catalog shows of a schema.

    `ours`: it has our table `migrations`; `readable`: we may read that table; `engine`: it has the engine's tables;
    `shared`: PUBLIC may create objects in it. `made_for` is the schema that its functions name, another one after
    `alter schema … rename`; `moved` are other schemas whose functions name this one.
    """

    present: bool
    relations: int
    ours: bool
    readable: bool
    engine: bool
    shared: bool
    made_for: str | None
    moved: list[str]


def inspect(schema: str) -> Statement[SchemaInfo]:
    """Inspect a schema through the catalog, which needs no privileges in it."""
    return Statement(
        "migration/inspect",
        files.load("queries/migration/inspect.sql", schema),
        {"schema": schema},
        lambda rows: SchemaInfo(*rows[0]),
    )


def create_table(schema: str) -> Statement[None]:
    """Create the table `migrations` if it does not exist."""
    return Statement(
        "migration/create_table", files.load("queries/migration/create_table.sql", schema), {}, lambda rows: None
    )


def applied(schema: str) -> Statement[tuple[Applied, ...]]:
    """List the recorded migrations, in order of version."""
    return Statement(
        "migration/applied",
        files.load("queries/migration/applied.sql", schema),
        {},
        lambda rows: tuple(Applied(*row) for row in rows),
    )


def record(schema: str, entry: Applied) -> Statement[Applied]:
    """Record a migration; a unique violation means that another session has recorded it."""
    return _entry("record", schema, entry)


def upsert(schema: str, entry: Applied) -> Statement[Applied | None]:
    """Record the installed functions, or a migration whose row was lost; None if an identical row exists."""
    statement = _entry("upsert", schema, entry)
    return Statement(
        statement.name, statement.query, statement.params, lambda rows: Applied(*rows[0]) if rows else None
    )


def breaking(schema: str, after: int) -> Statement[Applied | None]:
    """Read the first breaking migration after a version, applied or announced."""
    query = files.load("queries/migration/breaking.sql", schema)
    return Statement("migration/breaking", query, {"after": after}, lambda rows: Applied(*rows[0]) if rows else None)


def withdraw(schema: str, version: int) -> Statement[None]:
    """Delete the announcement of a migration."""
    query = files.load("queries/migration/withdraw.sql", schema)
    params = {"version": version, "announced": ANNOUNCED}
    return Statement("migration/withdraw", query, params, lambda rows: None)


def lock_transaction(schema: str) -> Statement[bool]:
    """Try to take the migration lock until the transaction ends."""
    return _lock("lock_transaction", schema)


def lock_session(schema: str) -> Statement[bool]:
    """Try to take the migration lock until `unlock_session`."""
    return _lock("lock_session", schema)


def unlock_session(schema: str) -> Statement[bool]:
    """Release the lock of `lock_session`."""
    return _lock("unlock_session", schema)


def _entry(verb: str, schema: str, entry: Applied) -> Statement[Applied]:
    params = {
        "version": entry.version,
        "name": entry.name,
        "checksum": entry.checksum,
        "breaking": entry.breaking,
    }

    def read(rows: Sequence[Row]) -> Applied:
        return Applied(*rows[0])

    return Statement(f"migration/{verb}", files.load(f"queries/migration/{verb}.sql", schema), params, read)


def _lock(verb: str, schema: str) -> Statement[bool]:
    def read(rows: Sequence[Row]) -> bool:
        return bool(rows[0][0])

    return Statement(f"migration/{verb}", files.load(f"queries/migration/{verb}.sql", schema), {"schema": schema}, read)
