"""Write migrations down as SQL scripts, for psql and for other migration tools."""

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

__all__ = ["UNCHECKED", "create_schema", "functions_line", "ledger", "planned_line", "restore", "sql"]

# Functions may call one another: their bodies cannot be checked in any order of files.
UNCHECKED = "check_function_bodies = off"
# A script runs with whatever path its tool has. Views are built here, and nothing that somebody put into "public" may
# get into them; afterwards the tool finds its own tables again. Both hold for one transaction.
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
    """Return everything as one script, to hand to psql or to another migration tool.

    `after` leaves out the migrations up to that version, `to` those after that one, and the functions with them. The
    script brings no transaction of its own. It stops in a database that is not encoded in UTF8 and, before a migration
    that breaks older code, if a worker is alive.
    Once it has run, `status` says so. Raises `ConfigError` for a `to` that does not exist, or not after `after`.

        print(sql("orders"))    # psql --single-transaction -v ON_ERROR_STOP=1 -f …
    """
    latest = len(migrations())
    check_goal(to, latest)
    goal = to or latest
    if to is not None and to < after:
        raise ConfigError(f"nothing lies between {after:04} and {to:04}", hint="Migrations go forward only.")
    parts = [
        f'-- Brings schema "{schema}" of pgflow from {after:04} to {goal:04}. Run it in one transaction.',
        ENCODED,
        PIN,
    ]
    if not after:
        parts += [create_schema(schema).as_string() + ";", _text(migration.create_table(schema))]
    for each in migrations()[after:goal]:
        if each.breaking and each.version > 1:
            parts += [_text(worker.bar(schema)), _text(worker.require_none(schema))]
        record = _text(migration.record(schema, planned_line(each)))
        body = _terminated(files.load(each.path, schema))
        # In the script's one transaction nothing can be done concurrently; who needs that lets `migrate.up` do it.
        parts += [record, body if each.transactional else body.replace(" concurrently", "")]
    if goal == latest:
        bodies = [_terminated(files.load(path, schema)) for path in functions().paths]
        parts += [f"set {UNCHECKED};", *bodies, "reset check_function_bodies;"]
        parts.append(_text(migration.upsert(schema, functions_line(schema))))
        parts.append(restore(schema))
    parts.append(UNPIN)
    return "\n\n".join(parts) + "\n"


def ledger(schema: str = SCHEMA, to: int | None = None) -> str:
    """Return a script that writes a lost ledger anew, as if the migrations up to `to` had just been applied.

    It touches nothing else; lines that are there are written over. Raises `ConfigError` for a `to` that does not exist.
    """
    check_goal(to, len(migrations()))
    lines = [_text(migration.upsert(schema, planned_line(each))) for each in migrations()[:to]]
    return "\n\n".join([_text(migration.create_table(schema)), *lines]) + "\n"


def restore(schema: str) -> str:
    """Return the statement that restores the rights which the files give, in a schema that is there."""
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
    """The statement that creates a schema unless it is there."""
    return compose.SQL("create schema if not exists {}").format(compose.Identifier(schema))


def planned_line(each: Migration) -> Applied:
    """The line of the ledger for a migration that is to be applied."""
    return Applied(each.version, each.name, each.checksum, each.breaking)


def functions_line(schema: str) -> Applied:
    """The line of the ledger for the functions that are to be put in place."""
    return Applied(FUNCTIONS, "functions", functions(schema).checksum, breaking=False)


def _text(statement: Statement[Any]) -> str:
    """A statement as text for psql, its parameters as literals. Not for data: ours are checksums and names of files."""
    literal = {key: compose.Literal(value).as_string(ADAPTERS) for key, value in statement.params.items()}
    return _terminated(PLACEHOLDER.sub(lambda match: literal[match[1]], statement.query).replace("%%", "%"))


def _terminated(text: str) -> str:
    text = text.rstrip()
    return text if text.endswith(";") else text + ";"
