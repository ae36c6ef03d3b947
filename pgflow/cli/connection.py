"""Open the connection of one command, and say more about what is refused than the database itself can."""

import difflib
from collections.abc import Iterator
from contextlib import contextmanager

import click
import psycopg

from pgflow.cli.error_reporting import GlobalOptions
from pgflow.database.connect import Connection, connect
from pgflow.database.db_errors import may_be_schema_mismatch
from pgflow.database.statement import run
from pgflow.errors import SchemaError, UnknownWorkflow
from pgflow.migrations.migrate import check, examine
from pgflow.store import definition

__all__ = ["open_connection", "require_workflow"]


@contextmanager
def open_connection(
    dsn: str, schema: str, workflow: str | None = None, role: str = "client", *, pooler: bool | None = None
) -> Iterator[Connection]:
    """Give a connection. One is enough for a command: a pool, as a program has it, would cost another and threads.

    `pooler` is whether one stands in between, None: what the command's --pooler says.
    A schema that was renamed, whose functions would work on other tables, is refused at once, as are hidden rows. A
    workflow that is not registered is answered with the name that was probably meant, a schema that is not there, or
    not of this pgflow's, with what stands in its place.
    """
    if pooler is None:
        pooler = click.get_current_context().ensure_object(GlobalOptions).pooler
    with connect(dsn, role, pooler=pooler) as conn:
        examine(conn, schema)
        try:
            yield conn
        except (SchemaError, psycopg.Error) as error:
            if may_be_schema_mismatch(error):
                check(conn, schema)
            raise
        except UnknownWorkflow as error:
            if workflow is not None:
                require_workflow(workflow, run(conn, definition.names(schema)))
            raise error


def require_workflow(workflow: str, known: list[str]) -> None:
    """Raise `UnknownWorkflow` unless the name is one of the known, with the one that was probably meant."""
    if workflow in known:
        return
    near = difflib.get_close_matches(workflow, known, n=2) or [
        name for name in known if name.lower() == workflow.lower()
    ]
    if near:
        hint = f"Did you mean {' or '.join(near)}?"
    elif known:
        hint = f"Known: {', '.join(known[:10])}{', …' if len(known) > 10 else ''}."
    else:
        hint = "Start a worker with the app that defines it: pgflow worker --app module:name"
    raise UnknownWorkflow(f"no workflow named {workflow!r} is registered here", hint=hint)
