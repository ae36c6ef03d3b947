"""Grant roles the privileges of a part of pgflow (client, worker, dashboard or operator), or print the SQL.

Roles belong to the whole cluster, so pgflow does not create any. In one transaction a role loses all its privileges in
the schema and gets those of its parts, and PUBLIC loses privileges that a restore without grants or default privileges
gave it. So the script is idempotent, a role may have several parts, and privileges that an older release granted and
this one does not are revoked. The role that migrates owns the tables and functions; it should be a separate role
without login that is not a superuser.
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
from pgflow.migrations.script import restore_privileges
from pgflow.store import role
from pgflow.store.role import Roles

__all__ = ["PARTS", "apply", "sql"]

PARTS = ("client", "worker", "dashboard", "operator")
MAX_NAME_BYTES = 63  # PostgreSQL truncates longer names, and would use another role


def sql(parts: Mapping[str, Sequence[str]], schema: str = SCHEMA) -> str:
    """Return the script that grants the privileges of each part, one of `PARTS`, to its roles.

    Run it as the owner of the schema, in one transaction, and again after each upgrade: new objects are granted to no
    role until then. Other roles are left alone. Raises `ConfigError` for an unknown part, an invalid name, or no role.

        sql({"client": ["app_client"], "worker": ["app_worker"]})    # revoke all … grant usage on schema "pgflow" …
    """
    return "\n".join(_statements(parts, schema))


def apply(conn: psycopg.Connection[Any], parts: Mapping[str, Sequence[str]], schema: str = SCHEMA) -> None:
    """Run the script of `sql` in a transaction.

    Raises the errors of `sql`, `SchemaMissing`, and `ConfigError` if we are not the owner, or a role does not exist or
    owns the schema; `SchemaError` if a role may create objects in the schema through another role, with which it could
    shadow pgflow's functions, or if privileges of PUBLIC cannot be revoked; `RowSecurityError` if row-level security
    would hide rows from a role.

        apply(connect(dsn, "migrate"), {"client": ["app_client"], "dashboard": ["app_ro"]})
    """
    statements = list(_statements(parts, schema))
    names = _names(parts)
    with conn.transaction():
        found = _look(conn, schema, names)
        _refuse(found, schema)
        for statement in statements:
            conn.execute(statement, prepare=False)
        if remaining := run(conn, role.find_drift(schema)):
            raise privileges_error(remaining)
        if hidden := [each for each in run(conn, role.find_row_security(schema, names)) if not each.permitted]:
            raise role.row_security_error(hidden)
        if creating := _look(conn, schema, names).creating:
            raise SchemaError(
                f'{", ".join(creating)} may create objects in schema "{schema}", through another role',
                hint=f'Run: revoke create on schema "{schema}" from that role',
            )


def _statements(parts: Mapping[str, Sequence[str]], schema: str) -> Iterator[str]:
    names = _names(parts)
    for name in names:
        yield _file("revoke", schema, name)
    yield restore_privileges(schema)
    for part in PARTS:
        for name in parts.get(part, ()):
            yield _file(part, schema, name)


def _names(parts: Mapping[str, Sequence[str]]) -> list[str]:
    if unknown := set(parts) - set(PARTS):
        raise ConfigError(f"{min(unknown)!r} is not a part", hint=f"The parts are {', '.join(PARTS)}.")
    names = sorted({name for given in parts.values() for name in given})
    if not names:
        raise ConfigError("no role was given", hint="Give one, for example: --client app_client")
    for name in names:
        if not name or "\0" in name or len(name.encode()) > MAX_NAME_BYTES or name == "public":
            raise ConfigError(
                f"{name!r} is not a valid role name",
                hint=f"Give a role of the database, of 1 to {MAX_NAME_BYTES} bytes, except public.",
            )
    return names


def _file(name: str, schema: str, to: str) -> str:
    # The files below sql/ are trusted; the names are inserted as identifiers.
    text = compose.SQL(files.load(f"roles/{name}.sql", schema))
    return text.format(schema=compose.Identifier(schema), role=compose.Identifier(to)).as_string()


def _look(conn: psycopg.Connection[Any], schema: str, names: Sequence[str]) -> Roles:
    found = run(conn, role.inspect(schema, names))
    if found is None:
        raise SchemaMissing(f'pgflow is not installed in schema "{schema}"', hint=MIGRATE_HINT)
    return found


def _refuse(found: Roles, schema: str) -> None:
    if not found.owned:
        raise ConfigError(
            f'only the owner of schema "{schema}" can grant privileges in it', hint="Connect as the role that migrates."
        )
    if found.missing:
        raise ConfigError(
            f"no such role: {', '.join(found.missing)}",
            hint=f'pgflow does not create roles: create role "{found.missing[0]}" login',
        )
    if found.above:
        raise ConfigError(
            f'{", ".join(found.above)} owns schema "{schema}", or may act as its owner, and so has every privilege',
            hint="Give a role that does not migrate and is not a superuser.",
        )
