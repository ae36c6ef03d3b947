"""Write migrations as SQL scripts, for psql and other migration tools."""

from __future__ import annotations

import re
from typing import Any

from psycopg import sql as compose

from pgflow.database import encoding, files
from pgflow.database.adapters import ADAPTERS
from pgflow.database.files import SCHEMA
from pgflow.database.migration_files import FUNCTIONS, Migration, functions, migrations
from pgflow.database.settings import ENCODING
from pgflow.database.statement import Statement
from pgflow.errors import ConfigError
from pgflow.migrations.schema import check_goal
from pgflow.store import migration, role, worker
from pgflow.store.migration import Applied

__all__ = ["UNCHECKED", "create_schema", "functions_row", "ledger", "planned_row", "restore_privileges", "sql"]

# Functions call one another, so no order of the files allows to check their bodies.
UNCHECKED = "check_function_bodies = off"
# A script runs with the search_path of its tool. PIN keeps objects in "public" out of the views that it creates; UNPIN
# restores the path, so that the tool finds its own tables. Both last for one transaction.
PIN = """do $$ begin
    perform set_config('pgflow.path_before', current_setting('search_path'), true);
    perform set_config('search_path', 'pg_catalog, pg_temp', true);
end $$;"""
UNPIN = "do $$ begin perform set_config('search_path', current_setting('pgflow.path_before', true), true); end $$;"
ENCODED = f"""do $$ begin
    if current_setting('server_encoding') <> '{ENCODING}' then
        raise exception 'the encoding of database % is %; pgflow needs {ENCODING}',
            current_database(), current_setting('server_encoding')
            using hint = '{encoding.NEW_DATABASE_HINT}';
    end if;
end $$;"""
PLACEHOLDER = re.compile(r"%\((\w+)\)s")


def sql(schema: str = SCHEMA, after: int = 0, to: int | None = None) -> str:
    """Return all migrations as one script, for psql or another migration tool.

    `after` omits the migrations up to that version, `to` those after that version, and the functions with them. The
    script does not begin a transaction. It fails in a database that is not encoded in UTF8 and, before a breaking
    migration, if a worker is alive. It records the migrations, so that `status` finds them. Raises `ConfigError` if
    migration `to` does not exist or is before `after`.

        print(sql("orders"))    # psql --single-transaction -v ON_ERROR_STOP=1 -f …
    """
    latest = len(migrations())
    check_goal(to, latest)
    goal = to or latest
    if to is not None and to < after:
        raise ConfigError(f"migration {to:04} (to) is before {after:04} (after)", hint="Migrations go forward only.")
    sections = [
        f'-- Brings schema "{schema}" of pgflow from {after:04} to {goal:04}. Run it in one transaction.',
        ENCODED,
        PIN,
    ]
    if not after:
        sections += [create_schema(schema).as_string() + ";", _text(migration.create_table(schema))]
    for each in migrations()[after:goal]:
        if each.breaking and each.version > 1:
            sections += [_text(worker.block_registration(schema)), _text(worker.require_none(schema))]
        record = _text(migration.record(schema, planned_row(each)))
        body = _terminated(files.load(each.path, schema))
        # "concurrently" is not possible in the script's single transaction; `migrate.up` uses it.
        sections += [record, body if each.transactional else body.replace(" concurrently", "")]
    if goal == latest:
        bodies = [_terminated(files.load(path, schema)) for path in functions().paths]
        sections += [f"set {UNCHECKED};", *bodies, "reset check_function_bodies;"]
        sections.append(_text(migration.upsert(schema, functions_row(schema))))
        sections.append(restore_privileges(schema))
    sections.append(UNPIN)
    return "\n\n".join(sections) + "\n"


def ledger(schema: str = SCHEMA, to: int | None = None) -> str:
    """Return a script that writes lost rows of the table `migrations` again, as if those up to `to` were just applied.

    It changes nothing else, and overwrites existing rows. Raises `ConfigError` if migration `to` does not exist.
    """
    check_goal(to, len(migrations()))
    rows = [_text(migration.upsert(schema, planned_row(each))) for each in migrations()[:to]]
    return "\n\n".join([_text(migration.create_table(schema)), *rows]) + "\n"


def restore_privileges(schema: str) -> str:
    """Return the statement that restores the privileges of the SQL files in an existing schema."""
    found = _text(role.find_drift(schema)).rstrip(";")
    return f"""do $pgflow$
declare
    drift record;
begin
    for drift in {found}
    loop
        execute drift.repair;
    end loop;
end $pgflow$;"""


def create_schema(schema: str) -> compose.Composed:
    """Return the statement that creates a schema if it does not exist."""
    return compose.SQL("create schema if not exists {}").format(compose.Identifier(schema))


def planned_row(each: Migration) -> Applied:
    """Return the row that records a migration."""
    return Applied(each.version, each.name, each.checksum, each.breaking)


def functions_row(schema: str) -> Applied:
    """Return the row that records the functions."""
    return Applied(FUNCTIONS, "functions", functions(schema).checksum, breaking=False)


def _text(statement: Statement[Any]) -> str:
    """Return a statement as text for psql, with literals for parameters: checksums and file names, never user data."""
    literal = {key: compose.Literal(value).as_string(ADAPTERS) for key, value in statement.params.items()}
    return _terminated(PLACEHOLDER.sub(lambda match: literal[match[1]], statement.query).replace("%%", "%"))


def _terminated(text: str) -> str:
    text = text.rstrip()
    return text if text.endswith(";") else text + ";"
