"""Apply one migration: in a transaction with its row in `migrations`, or outside one for concurrent index builds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, LiteralString

import psycopg
from psycopg import sql as compose
from tenacity import Retrying

from pgflow.database import files
from pgflow.database.migration_files import FUNCTIONS, Migration, functions
from pgflow.database.statement import run
from pgflow.database.transaction_status import is_idle
from pgflow.errors import SchemaError
from pgflow.migrations.schema import Status, migrations_table_error, privileges_error
from pgflow.migrations.script import UNCHECKED, create_schema, functions_row, planned_row
from pgflow.store import migration, role
from pgflow.store.migration import Applied

__all__ = ["LIMITS", "apply_in_transaction", "apply_outside_transaction", "require_all_rows"]

# A migration may block other sessions for 200 ms at most: 100 ms waiting for its locks, and 100 ms with them, in which
# it does its work. Local to a transaction.
LIMITS: LiteralString = """
set local lock_timeout = 100;
set local statement_timeout = 0;
set local idle_in_transaction_session_timeout = 0;
"""
# For the lock on the view among the functions, which is taken while the tables are locked.
VIEW_LIMIT: LiteralString = "set local lock_timeout = 50"
COMMENT = re.compile(r"--[^\n]*")
# The migration was applied before, but its row in `migrations` was lost.
ALREADY_EXISTS = (
    psycopg.errors.DuplicateTable,
    psycopg.errors.DuplicateColumn,
    psycopg.errors.DuplicateFunction,
    psycopg.errors.DuplicateObject,
)


def apply_in_transaction(conn: psycopg.Connection[Any], now: Status, following: Migration | None) -> Iterator[Applied]:
    """Apply a migration in the current transaction, and after the last one the functions and privileges; yield each."""
    schema = now.schema
    if following is not None:
        if not now.applied:
            _create_schema(conn, schema)
        if now.announced:
            run(conn, migration.withdraw(schema, following.version))  # replaced by the row of an applied migration
        yield run(conn, migration.record(schema, planned_row(following)))
        _lock(conn, schema, following.alters)
        try:
            _execute(conn, files.load(following.path, schema))
        except ALREADY_EXISTS as error:
            raise migrations_table_error(
                schema,
                f"already contains objects of {following.version:04} {following.name}: {error.diag.message_primary}",
            ) from error
    if len(now.pending) <= 1 and now.stale:
        row = functions_row(schema)
        recorded = run(conn, migration.upsert(schema, row))
        conn.execute(f"set local {UNCHECKED}")
        conn.execute(VIEW_LIMIT)
        for path in functions().paths:
            _execute(conn, files.load(path, schema))
        yield recorded or row  # after a restore, the row may be right although the functions are not
    if list(_restore_privileges(conn, schema)):
        yield Applied(FUNCTIONS, "rights", functions(schema).checksum, breaking=False)


def apply_outside_transaction(
    conn: psycopg.Connection[Any], schema: str, following: Migration, retrying: Retrying
) -> list[Applied]:
    """Run the statements of a migration one by one, then record it: until then another run repeats them.

    The session must hold the migration lock. `retrying` repeats a statement after a lock timeout.
    """
    conn.execute("set statement_timeout = 0")
    conn.execute("set lock_timeout = 0")
    try:
        for statement in _statements(files.load(following.path, schema)):
            try:
                if _is_concurrent(statement):
                    _execute(conn, statement)
                else:
                    retrying(_execute_limited, conn, statement)
            except psycopg.errors.CheckViolation as error:
                raise _constraint_violated(error) from error
        return [run(conn, migration.record(schema, planned_row(following)))]
    finally:
        if is_idle(conn):
            conn.execute("reset statement_timeout")
            conn.execute("reset lock_timeout")


def require_all_rows(found: Sequence[role.RowSecurity]) -> None:
    """Raise `RowSecurityError` if row-level security applies to us, unless policies let every row pass."""
    if hidden := [each for each in found if each.strict or not each.permitted]:
        raise role.row_security_error(hidden)


def _restore_privileges(conn: psycopg.Connection[Any], schema: str) -> Iterator[role.PrivilegeDrift]:
    """Restore the privileges of the SQL files: default privileges and a restore without grants cause others."""
    for each in run(conn, role.find_drift(schema)):
        try:
            _execute(conn, each.repair)
        except psycopg.errors.InsufficientPrivilege as error:
            raise privileges_error([each]) from error
        yield each
    if remaining := run(conn, role.find_drift(schema)):
        raise privileges_error(remaining)


def _lock(conn: psycopg.Connection[Any], schema: str, tables: Sequence[str]) -> None:
    """Lock all tables within the limit, or none: sessions that wait for the first one wait for the last one, too."""
    if not tables:
        return
    names = compose.SQL(", ").join(compose.Identifier(schema, table) for table in tables)
    conn.execute("set local statement_timeout = 100")
    try:
        conn.execute(compose.SQL("lock table {} in access exclusive mode").format(names))
    except psycopg.errors.QueryCanceled as error:
        raise psycopg.errors.LockNotAvailable(str(error)) from error
    conn.execute("set local statement_timeout = 0")


def _create_schema(conn: psycopg.Connection[Any], schema: str) -> None:
    # "create schema if not exists" needs the CREATE privilege even if the schema exists.
    info = run(conn, migration.inspect(schema))
    if info.shared:
        raise SchemaError(
            f'PUBLIC may create objects in schema "{schema}", which could shadow those of pgflow',
            hint=f'revoke create on schema "{schema}" from public, or use another schema: --schema NAME',
        )
    if not info.present:
        conn.execute(create_schema(schema))
    run(conn, migration.create_table(schema))
    require_all_rows(run(conn, role.find_row_security(schema, ())))  # an event trigger may have enabled it


def _execute(conn: psycopg.Connection[Any], text: str) -> None:
    """Run the text of a file: several statements, no placeholders."""
    conn.execute(text, prepare=False)


def _execute_limited(conn: psycopg.Connection[Any], text: str) -> None:
    with conn.transaction():
        conn.execute(LIMITS)
        _execute(conn, text)


def _constraint_violated(error: psycopg.errors.CheckViolation) -> SchemaError:
    """Return the error that names the table whose rows violate a new constraint."""
    table = f"{error.diag.schema_name}.{error.diag.table_name}"
    return SchemaError(
        f"some rows of {table} violate the new constraint {error.diag.constraint_name}",
        hint=f"See its definition (\\d {table} in psql), fix or delete those rows, and run it again.",
    )


def _statements(text: str) -> list[str]:
    """Split a file without functions into its statements, each of which ends at the end of a line."""
    return [each for each in re.split(r";[^\S\n]*(?:--[^\n]*)?\n", text) if each.strip()]


def _is_concurrent(statement: str) -> bool:
    """Return whether a statement waits for locks without blocking other sessions."""
    return " concurrently" in COMMENT.sub("", statement)
