"""Look at a schema from outside, keep its ledger of migrations, and take the lock under which one migrates."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pgflow.database import files
from pgflow.database.statement import Row, Statement

ANNOUNCED = "announced"  # in the place of a checksum


@dataclass(frozen=True, slots=True)
class Applied:
    """A line of the ledger. `applied_at` is None for one that is only planned; version 0 stands for the functions.

    One that breaks older code stands there before it is applied, too: then it is announced, and no checksum is known.
    """

    version: int
    name: str
    checksum: str
    breaking: bool
    applied_at: datetime | None = None

    @property
    def announced(self) -> bool:
        """Whether it is not applied yet: it waits until the workers whose code it breaks have ended."""
        return self.checksum == ANNOUNCED

    def __str__(self) -> str:
        return f"{self.version:04}_{self.name}"


@dataclass(frozen=True, slots=True)
class SchemaInfo:
    """What a schema looks like from outside.

    `ours` when it has our ledger, `readable` when we may read that, `engine` when the engine's tables are there,
    `shared` when everybody may create objects in it. `made_for` is the schema that its functions name, which is another
    one after `alter schema … rename`; `moved` are schemas of another name whose functions name this one.
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
    """Look at a schema from outside, needing no right in it."""
    return Statement(
        "migration/inspect",
        files.load("queries/migration/inspect.sql", schema),
        {"schema": schema},
        lambda rows: SchemaInfo(*rows[0]),
    )


def create_table(schema: str) -> Statement[None]:
    """Create the ledger unless it is there."""
    return Statement(
        "migration/create_table", files.load("queries/migration/create_table.sql", schema), {}, lambda rows: None
    )


def applied(schema: str) -> Statement[tuple[Applied, ...]]:
    """Read the ledger, in order of version."""
    return Statement(
        "migration/applied",
        files.load("queries/migration/applied.sql", schema),
        {},
        lambda rows: tuple(Applied(*row) for row in rows),
    )


def record(schema: str, entry: Applied) -> Statement[Applied]:
    """Enter a migration; a unique violation says that somebody else did."""
    return _entry("record", schema, entry)


def renew(schema: str, entry: Applied) -> Statement[Applied | None]:
    """Enter a line over what was there before: which functions are in place, or what a lost ledger said.

    None when it says so already: somebody else was faster.
    """
    line = _entry("renew", schema, entry)
    return Statement(line.name, line.query, line.params, lambda rows: Applied(*rows[0]) if rows else None)


def breaking(schema: str, after: int) -> Statement[Applied | None]:
    """Read the first line of a migration beyond `after` that breaks older code, be it only announced."""
    query = files.load("queries/migration/breaking.sql", schema)
    return Statement("migration/breaking", query, {"after": after}, lambda rows: Applied(*rows[0]) if rows else None)


def withdraw(schema: str, version: int) -> Statement[None]:
    """Take an announcement back."""
    query = files.load("queries/migration/withdraw.sql", schema)
    params = {"version": version, "announced": ANNOUNCED}
    return Statement("migration/withdraw", query, params, lambda rows: None)


def lock(schema: str) -> Statement[bool]:
    """Try to take the lock until the transaction ends."""
    return _lock("lock", schema)


def hold(schema: str) -> Statement[bool]:
    """Try to take the lock until `release`."""
    return _lock("hold", schema)


def release(schema: str) -> Statement[bool]:
    """Give back the lock of `hold`."""
    return _lock("release", schema)


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
