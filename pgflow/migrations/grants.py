"""Give roles of the database the rights that a part needs, client, worker or dashboard, or print the SQL that does.

Roles belong to the whole cluster, so pgflow makes none: they are named by who made them. A role first loses all that it
has in the schema, then gets what its parts need, in one transaction. PUBLIC loses what a restore without grants or
default privileges have given it. So the script may run any number of times, a role may have several parts, and what an
older release gave and this one does not is gone. Who migrates owns the tables and the functions, and should be a role
of its own that nobody logs in as and that is no superuser.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psycopg
from psycopg import sql as compose

from pgflow.database import files
from pgflow.database.files import SCHEMA
from pgflow.database.sqlstate import MIGRATE_HINT
from pgflow.database.statement import run
from pgflow.errors import ConfigError, SchemaError, SchemaMissing
from pgflow.migrations.schema import privileges_error
from pgflow.migrations.script import restore
from pgflow.store import role
from pgflow.store.role import Roles

__all__ = ["PARTS", "apply", "sql"]

PARTS = ("client", "worker", "dashboard")
LONGEST = 63  # bytes; PostgreSQL cuts off what is longer, and would then mean another role


def sql(parts: Mapping[str, Sequence[str]], schema: str = SCHEMA) -> str:
    """Return the script that gives each part, one of `PARTS`, to the roles that are named for it.

    Run it as the owner of the schema, in one transaction, and again after each upgrade: what that has added is nobody's
    until then. A role that is named for no part is left alone. Raises `ConfigError` for what is no part, for names that
    cannot be, and when none is given.

        sql({"client": ["app_client"], "worker": ["app_worker"]})    # revoke all … grant usage on schema "pgflow" …
    """
    return "\n".join(_statements(parts, schema))


def apply(conn: psycopg.Connection[Any], parts: Mapping[str, Sequence[str]], schema: str = SCHEMA) -> None:
    """Run that script, in a transaction.

    Raises what `sql` raises, `SchemaMissing`, and `ConfigError` when we are not the owner, when a role does not exist,
    or when it owns the schema itself; `SchemaError` when a role may put objects of its own into the schema through
    another role, for then whatever calls our functions could be made to call its, and when rights of PUBLIC cannot be
    taken away; `RowSecurityError` when row-level security would hide rows from a role.

        apply(connect(dsn, "migrate"), {"client": ["app_client"], "dashboard": ["app_ro"]})
    """
    statements = list(_statements(parts, schema))
    names = _names(parts)
    with conn.transaction():
        found = _look(conn, schema, names)
        _refuse(found, schema)
        for statement in statements:
            conn.execute(statement, prepare=False)
        if left := run(conn, role.find_drift(schema)):
            raise privileges_error(left)
        if hidden := [each for each in run(conn, role.find_row_security(schema, names)) if not each.permitted]:
            raise role.row_security_error(hidden)
        if creating := _look(conn, schema, names).creating:
            raise SchemaError(
                f'{", ".join(creating)} may create objects in schema "{schema}", through another role',
                hint=f'Revoke that: revoke create on schema "{schema}" from that role',
            )


def _statements(parts: Mapping[str, Sequence[str]], schema: str) -> Iterator[str]:
    names = _names(parts)
    for name in names:
        yield _file("revoke", schema, name)
    yield restore(schema)
    for part in PARTS:
        for name in parts.get(part, ()):
            yield _file(part, schema, name)


def _names(parts: Mapping[str, Sequence[str]]) -> list[str]:
    if unknown := set(parts) - set(PARTS):
        raise ConfigError(f"no part is named {min(unknown)!r}", hint=f"The parts are {', '.join(PARTS)}.")
    names = sorted({name for given in parts.values() for name in given})
    if not names:
        raise ConfigError("no role is named", hint="Name one, for example: --client app_client")
    for name in names:
        if not name or "\0" in name or len(name.encode()) > LONGEST or name == "public":
            raise ConfigError(
                f"{name!r} cannot be the role of a part", hint=f"Name a role of the database, up to {LONGEST} bytes."
            )
    return names


def _file(name: str, schema: str, to: str) -> str:
    # Written by us, like every file below sql/; the names are put in as identifiers.
    text = compose.SQL(files.load(f"roles/{name}.sql", schema))
    return text.format(schema=compose.Identifier(schema), role=compose.Identifier(to)).as_string()


def _look(conn: psycopg.Connection[Any], schema: str, names: Sequence[str]) -> Roles:
    found = run(conn, role.inspect(schema, names))
    if found is None:
        raise SchemaMissing(f'schema "{schema}" holds no pgflow yet', hint=MIGRATE_HINT)
    return found


def _refuse(found: Roles, schema: str) -> None:
    if not found.owned:
        raise ConfigError(f'only the owner of schema "{schema}" can give rights in it', hint="Connect as who migrates.")
    if found.missing:
        raise ConfigError(
            f"no such role: {', '.join(found.missing)}",
            hint=f'pgflow makes no roles: create role "{found.missing[0]}" login',
        )
    if found.above:
        raise ConfigError(
            f'{", ".join(found.above)} owns schema "{schema}", or may act as its owner: no part can bound its rights',
            hint="Name a role that does not migrate and is no superuser.",
        )
